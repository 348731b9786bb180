"""Tokens: encode a member as a sequence of chunks of its rows, all of one size, with a mask and positions.

The layout follows SANE's: a row of a weight matrix (of a convolution, a filter) is followed by its neuron's bias, cut
into chunks and padded with zeros. It differs from SANE in three tensors. ``cls_token`` is one row,
``position_embeddings`` has a row for each position, and a norm is one row, its weight before its bias, instead of a row
of two numbers for each channel. See `vitzoo.weights.index` for the order of tensors. numpy only.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from vitzoo.errors import RepresentationError
from vitzoo.tensors.dtypes import float_array
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.representations.base import Representation


@dataclass(frozen=True, slots=True)
class ModuleRows:
    """The number of a module's rows, before they are cut, and the columns of each tensor in a row."""

    module: str
    rows: int
    columns: dict[str, slice]

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return max(columns.stop for columns in self.columns.values())


def module_rows(index: WeightsIndex) -> list[ModuleRows]:
    """List the rows of every module, in the order of the network."""
    modules = []
    for module, entries in index.modules.items():
        first = entries[0]
        # A matrix has a row for each output, and a norm is one row. cls_token and position_embeddings, which are
        # neither weight nor bias, have a row for each token.
        rows = prod(first.shape[:-1]) if first.name == module else first.shape[0] if len(first.shape) > 1 else 1
        columns, start = {}, 0
        for entry in entries:
            columns[entry.name] = slice(start, start + entry.size // rows)
            start = columns[entry.name].stop
        modules.append(ModuleRows(module, rows, columns))
    return modules


def _widest(index: WeightsIndex) -> ModuleRows:
    """Return the first module with the widest rows."""
    if not index:
        raise RepresentationError("There are no tensors to make tokens of", value=index)
    return max(module_rows(index), key=lambda module: module.width)


@dataclass(frozen=True)
class Tokens(Representation):
    """Members as sequences of tokens: each row in chunks of ``token_size`` numbers, the last padded with zeros.

    Args:
        index: The tensors.
        token_size: Numbers in a token, from 1 to the width of the widest row; `recommend_token_sizes` finds sizes with
            little padding.

    Raises:
        RepresentationError: The token size is out of range, or there are no tensors.

    Source: Schürholt et al. 2024, Towards Scalable and Versatile Weight Space Learning (arXiv 2406.09997), section 3.

    Example:
        >>> tokens = Tokens(WeightsIndex({"classifier.weight": (2, 3), "classifier.bias": (2,)}), token_size=3)
        >>> tokens.encode(np.arange(1.0, 9.0)).tolist()
        [[1.0, 2.0, 3.0], [7.0, 0.0, 0.0], [4.0, 5.0, 6.0], [8.0, 0.0, 0.0]]
        >>> tokens.positions.tolist(), tokens.padding
        ([[0, 0, 0], [1, 0, 0], [2, 0, 1], [3, 0, 1]], 1.5)
    """

    token_size: int

    def __post_init__(self):
        widest = _widest(self.index)
        if type(self.token_size) is not int or not 1 <= self.token_size <= widest.width:
            raise RepresentationError(
                f"token_size is {self.token_size!r}",
                expected=f"an int from 1 to {widest.width}, the width of the widest row, of {widest.module}",
                fix="Choose one of recommend_token_sizes(index).",
                value=self.token_size,
            )

    def __reduce__(self):  # the arrays are made again in the other process
        return (Tokens, (self.index, self.token_size))

    def __len__(self) -> int:
        return sum(module.rows * self._chunks(module) for module in self.modules)

    @cached_property
    def modules(self) -> list[ModuleRows]:
        """The modules, in the order of their tokens."""
        return module_rows(self.index)

    @cached_property
    def mask(self) -> Bool[np.ndarray, "tokens token_size"]:
        """True for parameters and False for padding; the same for every member, read-only."""
        mask = np.zeros((len(self), self.token_size), bool)
        for module, rows in zip(self.modules, self._rows(mask), strict=True):
            rows[:, : module.width] = True
        mask.flags.writeable = False
        return mask

    @cached_property
    def positions(self) -> Int[np.ndarray, "tokens 3"]:
        """Number of each token, of its module, and of its row in the module, all from 0.

        The chunks of a row share the last two, as in SANE. The same for every member, read-only.
        """
        rows = [np.repeat(np.arange(module.rows), self._chunks(module)) for module in self.modules]
        modules = np.repeat(np.arange(len(rows)), [len(numbers) for numbers in rows])
        positions = np.stack([np.arange(len(self)), modules, np.concatenate(rows)], axis=1)
        positions.flags.writeable = False
        return positions

    def structure(self) -> dict[str, np.ndarray]:
        """Return ``mask`` and ``positions``, which belong to every member's tokens."""
        return {"mask": self.mask, "positions": self.positions}

    @property
    def padding(self) -> float:
        """Numbers in all tokens divided by the number of parameters: 1 without padding."""
        return len(self) * self.token_size / self.index.size

    def encode(self, vector: Shaped[Any, "params"]) -> Shaped[np.ndarray, "tokens token_size"]:
        """Encode a member as tokens of the vector's dtype."""
        vector = float_array(vector)
        tensors = self.index.unflatten(vector)
        values = np.zeros((len(self), self.token_size), vector.dtype)
        for module, rows in zip(self.modules, self._rows(values), strict=True):
            for name, columns in module.columns.items():
                rows[:, columns] = tensors[name].reshape(module.rows, -1)
        return values

    def decode(self, values: Shaped[Any, "tokens token_size"], /) -> Shaped[np.ndarray, "params"]:
        """Decode a member's tokens; padding is ignored."""
        values = float_array(values)
        if values.shape != (len(self), self.token_size):
            raise RepresentationError(
                f"The tokens have shape {list(values.shape)}",
                expected=f"{[len(self), self.token_size]} for {self.index}",
                value=values.shape,
            )
        vector = np.empty(self.index.size, values.dtype)
        tensors = self.index.unflatten(vector)
        for module, rows in zip(self.modules, self._rows(np.ascontiguousarray(values)), strict=True):
            for name, columns in module.columns.items():
                tensors[name].reshape(module.rows, -1)[...] = rows[:, columns]
        return vector

    def _chunks(self, module: ModuleRows) -> int:
        return int(-(-module.width // self.token_size))

    def _rows(self, tokens: np.ndarray) -> list[np.ndarray]:
        """Return for each module a view of its tokens with the chunks of a row side by side."""
        views, start = [], 0
        for module in self.modules:
            end = start + module.rows * self._chunks(module)
            views.append(tokens[start:end].reshape(module.rows, -1))
            start = end
        return views


@dataclass(frozen=True, slots=True)
class TokenSize:
    """A token size, its number of tokens for a member, and its `Tokens.padding`."""

    token_size: int
    tokens: int
    padding: float


def recommend_token_sizes(
    index: WeightsIndex, *, smallest: int = 64, largest: int = 2048, count: int = 10
) -> list[TokenSize]:
    """Find the token sizes with the least padding, best first; of equal padding the larger size first.

    A size is left out if a smaller one makes the same number of tokens, or if it is above the widest row.

    Args:
        index: The tensors.
        smallest: Least token size to consider, from 1.
        largest: Greatest token size to consider.
        count: Greatest number of sizes to return, from 1.

    Raises:
        RepresentationError: There is no size in the range, the count is less than 1, or there are no tensors.

    Example:
        >>> index = WeightsIndex({"classifier.weight": (10, 7), "classifier.bias": (10,)})
        >>> recommend_token_sizes(index, smallest=3, largest=5, count=2)
        [TokenSize(token_size=4, tokens=20, padding=1.0), TokenSize(token_size=3, tokens=30, padding=1.125)]
    """
    widest = _widest(index)
    if not 1 <= smallest <= min(largest, widest.width) or count < 1:
        raise RepresentationError(
            f"smallest is {smallest}, largest {largest} and count {count}",
            expected=f"1 <= smallest <= largest, smallest <= {widest.width} (the width of the widest row, of "
            f"{widest.module}) and count >= 1",
            value=(smallest, largest, count),
        )
    sizes = np.arange(smallest, min(largest, widest.width) + 1)
    tokens = sum((module.rows * -(-module.width // sizes) for module in module_rows(index)), np.zeros_like(sizes))
    padding = tokens * sizes / index.size
    smaller = np.flatnonzero(np.diff(tokens, prepend=-1))
    best = smaller[np.lexsort((-sizes[smaller], padding[smaller]))][:count]
    return [TokenSize(int(sizes[i]), int(tokens[i]), float(padding[i])) for i in best]
