"""Representation: the base of encodings of a member's flat vector.

See `vitzoo.weights.representations.representation` for making one by its name. numpy only.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vitzoo.errors import RepresentationError
from vitzoo.weights.index import WeightsIndex


@dataclass(frozen=True)
class Representation(ABC):
    """Encodes the flat vectors of all members with the same tensors.

    Arrays that depend on the index alone, such as masks and edges, are in its ``structure()``, made once. Pickling a
    representation takes the index and the options; the structure is made again in the other process.

    Args:
        index: The tensors.
    """

    index: WeightsIndex

    def structure(self) -> dict[str, np.ndarray]:
        """Return the arrays that belong to every member's encoding, by name, read-only."""
        return {}

    @abstractmethod
    def encode(self, vector: Shaped[Any, "params"]) -> Any:
        """Encode a member as an array, or as arrays by name.

        Args:
            vector: Floats, numpy's or torch's on the CPU.

        Raises:
            WeightsError: The vector has another size than the index.
            RepresentationError: The vector is not of floats that numpy has.
        """

    def decode(self, encoded: Any, /) -> Shaped[np.ndarray, "params"]:
        """Decode the output of `encode`, or torch tensors of that form on the CPU, bit for bit.

        Raises:
            RepresentationError: It has another shape or is not of floats that numpy has; or there is no way back.
        """
        raise RepresentationError(f"{type(self).__name__} cannot be decoded to weights", fix="Use another one.")
