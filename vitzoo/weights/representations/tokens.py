"""Tokens: a member as a sequence of chunks of its rows, all of one size, with a mask and their positions.

The layout follows SANE's: a row of a weight matrix (of a convolution, a filter) is followed by its neuron's bias, cut
into chunks and padded with zeros. It differs where SANE drops or pads: ``cls_token`` is one row,
``position_embeddings`` one row a position, and a norm is one row, its weight before its bias, rather than a row of two
numbers a channel. Which tensors there are is `vitzoo.weights.index`'s business. numpy only.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from vitzoo.errors import RepresentationError
from vitzoo.tensors.floats import float_array, is_integer
from vitzoo.weights.index import WeightsIndex


@dataclass(frozen=True, slots=True)
class ModuleRows:
    """The rows of a module, before they are cut.

    Args:
        module: Its name, without ``.weight`` and ``.bias``.
        rows: How many rows it has.
        columns: Each tensor's columns of the rows, from left to right.
    """

    module: str
    rows: int
    columns: dict[str, slice]

    @property
    def width(self) -> int:
        """How long a row is."""
        return max(columns.stop for columns in self.columns.values())


def module_rows(index: WeightsIndex) -> list[ModuleRows]:
    """The rows of every module, in the order of the network."""
    found = []
    for module, entries in index.modules.items():
        first = entries[0]
        # A matrix has a row for each output, a norm is one row; cls_token and position_embeddings, which are
        # neither weight nor bias, end in the axis of a token's channels.
        rows = prod(first.shape[:-1]) if first.name == module else first.shape[0] if len(first.shape) > 1 else 1
        columns, start = {}, 0
        for entry in entries:
            columns[entry.name] = slice(start, start + entry.size // rows)
            start = columns[entry.name].stop
        found.append(ModuleRows(module, rows, columns))
    return found


def _widest(index: WeightsIndex) -> ModuleRows:
    """The module whose rows are the widest, the first of several."""
    if not index:
        raise RepresentationError("There is no tensor to make tokens of.", value=index)
    return max(module_rows(index), key=lambda module: module.width)


@dataclass(frozen=True)
class Tokens:
    """Members as sequences of tokens: of each row its chunks of ``token_size`` numbers, the last padded with zeros.

    Args:
        index: The tensors.
        token_size: Numbers in a token, from 1 to those of the widest row; `recommend_token_sizes` finds those with
            little padding.

    Raises:
        RepresentationError: The token size is out of range, or there is no tensor.

    Source: Schürholt et al. 2024, Towards Scalable and Versatile Weight Space Learning (arXiv 2406.09997), section 3.

    Example:
        >>> tokens = Tokens(WeightsIndex({"classifier.weight": (2, 3), "classifier.bias": (2,)}), token_size=3)
        >>> tokens.encode(np.arange(1.0, 9.0)).tolist()
        [[1.0, 2.0, 3.0], [7.0, 0.0, 0.0], [4.0, 5.0, 6.0], [8.0, 0.0, 0.0]]
        >>> tokens.positions.tolist(), tokens.padding
        ([[0, 0, 0], [1, 0, 0], [2, 0, 1], [3, 0, 1]], 1.5)
    """

    index: WeightsIndex
    token_size: int | np.integer

    def __post_init__(self):
        widest = _widest(self.index)
        if not is_integer(self.token_size) or not 1 <= self.token_size <= widest.width:
            raise RepresentationError(
                f"token_size is {self.token_size!r}",
                expected=f"a whole number from 1 to {widest.width}, the numbers in the widest row, of {widest.module}"
                ". recommend_token_sizes(index) lists those with little padding",
                value=self.token_size,
            )
        object.__setattr__(self, "token_size", int(self.token_size))  # of numpy's integers

    def __reduce__(self):  # the arrays are made again where they are needed
        return (Tokens, (self.index, self.token_size))

    def __len__(self) -> int:
        return sum(module.rows * self._chunks(module) for module in self.modules)

    @cached_property
    def modules(self) -> list[ModuleRows]:
        """The modules, in the order of their tokens."""
        return module_rows(self.index)

    @cached_property
    def mask(self) -> Bool[np.ndarray, "tokens token_size"]:
        """True where a token holds a parameter, False where it is padding; the same for every member, read-only."""
        mask = np.zeros((len(self), self.token_size), bool)
        for module, rows in zip(self.modules, self._rows(mask), strict=True):
            rows[:, : module.width] = True
        mask.flags.writeable = False
        return mask

    @cached_property
    def positions(self) -> Int[np.ndarray, "tokens 3"]:
        """Of each token its number, its module's number and its row's number in the module, all from 0.

        The chunks of a row share the last two, as SANE has it. The same for every member, read-only.
        """
        positions = np.empty((len(self), 3), np.int64)
        positions[:, 0] = np.arange(len(self))
        start = 0
        for number, module in enumerate(self.modules):
            rows = np.repeat(np.arange(module.rows), self._chunks(module))
            positions[start : start + len(rows), 1] = number
            positions[start : start + len(rows), 2] = rows
            start += len(rows)
        positions.flags.writeable = False
        return positions

    def structure(self) -> dict[str, np.ndarray]:
        """What goes with any member's tokens: ``mask`` and ``positions``."""
        return {"mask": self.mask, "positions": self.positions}

    @property
    def padding(self) -> float:
        """Numbers in all tokens for each parameter: 1 where nothing is padded."""
        return len(self) * self.token_size / self.index.size

    def encode(self, vector: Shaped[Any, "params"]) -> Shaped[np.ndarray, "tokens token_size"]:
        """A member's tokens, of the vector's dtype.

        Args:
            vector: The member's weights, numpy's or torch's on the CPU.

        Raises:
            WeightsError: The vector has another size than the index.
            RepresentationError: It is not of floats that numpy has.
        """
        vector = float_array(vector)
        tensors = self.index.unflatten(vector)
        values = np.zeros((len(self), self.token_size), vector.dtype)
        for module, rows in zip(self.modules, self._rows(values), strict=True):
            for name, columns in module.columns.items():
                rows[:, columns] = tensors[name].reshape(module.rows, -1)
        return values

    def decode(self, values: Shaped[Any, "tokens token_size"]) -> Shaped[np.ndarray, "params"]:
        """The weights of a member's tokens, bit for bit; what stands in the padding does not matter.

        Args:
            values: As many tokens as `encode` gives, of any floats, numpy's or torch's on the CPU.

        Raises:
            RepresentationError: They are of another number or size, or not of floats that numpy has.
        """
        values = float_array(values)
        if values.shape != (len(self), self.token_size):
            raise RepresentationError(
                f"Tokens of shape {list(values.shape)} are not those of {self.index}: expected "
                f"{[len(self), self.token_size]}.",
                value=values.shape,
            )
        vector = np.empty(self.index.size, values.dtype)
        tensors = self.index.unflatten(vector)
        for module, rows in zip(self.modules, self._rows(np.ascontiguousarray(values)), strict=True):
            for name, columns in module.columns.items():
                tensors[name].reshape(module.rows, -1)[...] = rows[:, columns]
        return vector

    def window(self, values: Shaped[Any, "tokens token_size"], *, start: int, length: int) -> dict[str, Any]:
        """Tokens that follow each other, with their masks and positions: what SANE is trained on.

        Args:
            values: A member's tokens, numpy's or torch's: the window is a view of them, the rest copies.
            start: Number of the first.
            length: How many.

        Raises:
            RepresentationError: They are not all in the sequence.
        """
        if not 0 <= start <= start + length <= len(self):
            raise RepresentationError(
                f"The window of {length} tokens from {start} leaves the sequence of {len(self)}.", value=start
            )
        window = slice(start, start + length)
        return {"values": values[window], "mask": self.mask[window].copy(), "positions": self.positions[window].copy()}

    def _chunks(self, module: ModuleRows) -> int:
        return int(-(-module.width // self.token_size))

    def _rows(self, tokens: np.ndarray) -> list[np.ndarray]:
        """For each module a view of its tokens that has the chunks of a row side by side."""
        views, start = [], 0
        for module in self.modules:
            end = start + module.rows * self._chunks(module)
            views.append(tokens[start:end].reshape(module.rows, -1))
            start = end
        return views


@dataclass(frozen=True, slots=True)
class TokenSize:
    """A token size and what it costs.

    Args:
        token_size: Numbers in a token.
        tokens: Tokens of a member.
        padding: Numbers in all tokens for each parameter, 1 at least.
    """

    token_size: int
    tokens: int
    padding: float


def recommend_token_sizes(
    index: WeightsIndex, *, smallest: int = 64, largest: int = 2048, count: int = 10
) -> list[TokenSize]:
    """The token sizes with the least padding, best first; of equal ones the larger first, which needs fewer tokens.

    A size is left out where a smaller one makes as many tokens, and so is each above the widest row.

    Args:
        index: The tensors.
        smallest: Least token size to look at, from 1.
        largest: Greatest token size to look at.
        count: How many to name at most, from 1.

    Raises:
        RepresentationError: There is no size in the range, the count is less than 1, or there is no tensor.

    Example:
        >>> index = WeightsIndex({"classifier.weight": (10, 7), "classifier.bias": (10,)})
        >>> recommend_token_sizes(index, smallest=3, largest=5, count=2)
        [TokenSize(token_size=4, tokens=20, padding=1.0), TokenSize(token_size=3, tokens=30, padding=1.125)]
    """
    if not 1 <= smallest <= largest:
        raise RepresentationError(
            f"Token sizes from {smallest} to {largest} are none",
            expected="a range that begins at 1 or later",
            value=(smallest, largest),
        )
    if count < 1:
        raise RepresentationError(f"count is {count}", expected="a number from 1", value=count)
    widest = _widest(index)
    if smallest > widest.width:
        raise RepresentationError(
            f"Token sizes from {smallest} are above the {widest.width} numbers in the widest row, of {widest.module}",
            fix=f"Say smallest={max(1, widest.width // 2)}, or less.",
            value=smallest,
        )
    sizes = np.arange(smallest, min(largest, widest.width) + 1)
    tokens = sum((module.rows * -(-module.width // sizes) for module in module_rows(index)), np.zeros_like(sizes))
    padding = tokens * sizes / index.size
    smaller = np.flatnonzero(np.diff(tokens, prepend=-1))
    best = smaller[np.lexsort((-sizes[smaller], padding[smaller]))][:count]
    return [TokenSize(int(sizes[i]), int(tokens[i]), float(padding[i])) for i in best]
