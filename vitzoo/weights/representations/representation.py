"""Representations: a member's flat vector in the form that a method wants, and back.

Each is made of an index and its options and serves every member with these tensors. What depends on the index alone,
such as masks and edges, is its ``structure()``, made once and not repeated for each member. Pickling one takes the
index and the options; the structure is made again on the other side. numpy only.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from vitzoo.errors import RepresentationError, did_you_mean
from vitzoo.tensors.floats import float_array
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
        """Arrays that go with every member's encoding, by name."""
        ...

    def encode(self, vector: Shaped[Any, "params"]) -> Any:
        """A member's numbers: an array, or arrays by name.

        Args:
            vector: Floats, numpy's or torch's on the CPU.

        Raises:
            WeightsError: The vector has another size than the index.
            RepresentationError: It is not of floats that numpy has.
        """
        ...


@runtime_checkable
class Invertible(Representation, Protocol):
    """One from which the vector comes back bit for bit: all but the statistics."""

    def decode(self, encoded: Any, /) -> Shaped[np.ndarray, "params"]:
        """The vector of what `encode` gave, or of torch tensors of that form on the CPU.

        Raises:
            VitZooError: It has another shape, or is not of floats that numpy has.
        """
        ...


@dataclass(frozen=True)
class Flat:
    """The vector as it is.

    Args:
        index: The tensors.
    """

    index: WeightsIndex

    def structure(self) -> dict[str, np.ndarray]:
        """Nothing: the index says where each tensor lies."""
        return {}

    def encode(self, vector: Shaped[Any, "params"]) -> Shaped[np.ndarray, "params"]:
        """The vector itself, not a copy.

        Raises:
            WeightsError: It has another size than the index.
            RepresentationError: It is not of floats that numpy has.
        """
        array = float_array(vector)
        self.index.unflatten(array)
        return array

    def decode(self, encoded: Shaped[Any, "params"]) -> Shaped[np.ndarray, "params"]:
        """The vector itself. Raises as `encode`."""
        return self.encode(encoded)


REPRESENTATIONS: dict[str, Callable[..., Representation]] = {
    "flat": Flat,
    "statistics": LayerStatistics,
    "tokens": Tokens,
    "graph": WeightsGraph,
}


def representation(name: str, index: WeightsIndex, **options: Any) -> Representation:
    """A representation by its name.

    Args:
        name: ``flat``, ``statistics``, ``tokens`` or ``graph``.
        index: The tensors.
        **options: ``token_size`` of tokens, ``num_heads`` of a graph.

    Raises:
        RepresentationError: There is none of that name, or an option is unknown, missing or out of range.

    Example:
        >>> representation("tokens", WeightsIndex({"classifier.bias": (4,)}), token_size=4).encode(np.ones(4)).tolist()
        [[1.0, 1.0, 1.0, 1.0]]
    """
    make: Any = REPRESENTATIONS.get(name)
    if make is None:
        raise RepresentationError(
            f'There is no representation "{name}".{did_you_mean(name, REPRESENTATIONS)}', value=name
        )
    known = [field.name for field in fields(make) if field.name != "index"]
    for option in options:
        if option not in known:
            raise RepresentationError(
                f'"{option}" is no option of the representation "{name}".{did_you_mean(option, known)}', value=option
            )
    for option in known:
        if option not in options:
            raise RepresentationError(
                f'The representation "{name}" needs {option}: representation("{name}", index, {option}=...).',
                value=name,
            )
    return make(index, **options)
