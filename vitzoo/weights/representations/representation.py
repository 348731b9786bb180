"""Make a representation of a member's flat vector by its name: flat, statistics, tokens or a graph."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vitzoo.errors import RepresentationError, did_you_mean
from vitzoo.tensors.dtypes import float_array
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.representations.base import Representation
from vitzoo.weights.representations.graph import WeightsGraph
from vitzoo.weights.representations.statistics import LayerStatistics
from vitzoo.weights.representations.tokens import Tokens


class Flat(Representation):
    """The flat vector itself, not a copy."""

    def encode(self, vector: Shaped[Any, "params"]) -> Shaped[np.ndarray, "params"]:
        """Return the vector as an array."""
        array = float_array(vector)
        self.index.unflatten(array)  # checks the size
        return array

    def decode(self, encoded: Shaped[Any, "params"], /) -> Shaped[np.ndarray, "params"]:
        """Return the vector as an array."""
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
