"""Representations: encode a member's flat vector in the form that a method needs, and decode it.

Each is made of an index and its options, and serves every member with these tensors. Arrays that depend on the index
alone, such as masks and edges, are in its ``structure()``, made once. Pickling a representation takes the index and the
options; the structure is made again in the other process. numpy only.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from vitzoo.errors import RepresentationError, did_you_mean
from vitzoo.tensors.dtypes import float_array
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.representations.graph import WeightsGraph
from vitzoo.weights.representations.statistics import LayerStatistics
from vitzoo.weights.representations.tokens import Tokens


@runtime_checkable
class Representation(Protocol):
    """Encodes the flat vectors of an index."""

    @property
    def index(self) -> WeightsIndex:
        """The tensors."""
        ...

    def structure(self) -> dict[str, np.ndarray]:
        """Return the arrays that belong to every member's encoding, by name."""
        ...

    def encode(self, vector: Shaped[Any, "params"]) -> Any:
        """Encode a member as an array, or as arrays by name.

        Args:
            vector: Floats, numpy's or torch's on the CPU.

        Raises:
            WeightsError: The vector has another size than the index.
            RepresentationError: The vector is not of floats that numpy has.
        """
        ...


@runtime_checkable
class Invertible(Representation, Protocol):
    """A representation that can be decoded bit for bit: all but the statistics."""

    def decode(self, encoded: Any, /) -> Shaped[np.ndarray, "params"]:
        """Decode the output of `encode`, or torch tensors of that form on the CPU.

        Raises:
            VitZooError: It has another shape, or is not of floats that numpy has.
        """
        ...


@dataclass(frozen=True)
class Flat:
    """The flat vector itself."""

    index: WeightsIndex

    def structure(self) -> dict[str, np.ndarray]:
        """Return an empty dict: the index has the offset of each tensor."""
        return {}

    def encode(self, vector: Shaped[Any, "params"]) -> Shaped[np.ndarray, "params"]:
        """Return the vector itself, not a copy. Raises as `Representation.encode`."""
        array = float_array(vector)
        self.index.unflatten(array)
        return array

    def decode(self, encoded: Shaped[Any, "params"]) -> Shaped[np.ndarray, "params"]:
        """Return the vector itself. Raises as `encode`."""
        return self.encode(encoded)


REPRESENTATIONS: dict[str, Callable[..., Representation]] = {
    "flat": Flat,
    "statistics": LayerStatistics,
    "tokens": Tokens,
    "graph": WeightsGraph,
}


def find_representation(name: str) -> Callable[..., Representation]:
    """Return the class of a representation, or raise RepresentationError if there is none of that name."""
    if name not in REPRESENTATIONS:
        raise RepresentationError(
            f'There is no representation "{name}"', fix=did_you_mean(name, REPRESENTATIONS), value=name
        )
    return REPRESENTATIONS[name]


def representation(name: str, index: WeightsIndex, **options: Any) -> Representation:
    """Make a representation by its name.

    Args:
        name: ``flat``, ``statistics``, ``tokens`` or ``graph``.
        index: The tensors.
        **options: ``token_size`` for tokens, ``num_heads`` for a graph.

    Raises:
        RepresentationError: There is none of that name, or an option is unknown, missing or out of range.

    Example:
        >>> representation("tokens", WeightsIndex({"classifier.bias": (4,)}), token_size=4).encode(np.ones(4)).tolist()
        [[1.0, 1.0, 1.0, 1.0]]
    """
    make: Any = find_representation(name)
    known = [field.name for field in fields(make) if field.name != "index"]
    if options.keys() != set(known):
        raise RepresentationError(
            f'The representation "{name}" was given the options {", ".join(options) or "none"}',
            expected=", ".join(f"{option}=..." for option in known) or "none",
            value=name,
        )
    return make(index, **options)
