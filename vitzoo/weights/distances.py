"""How far the members of a population lie from each other, streamed from their files.

The files are read in slices of all members at once, and a Gram matrix of the slices' differences from the first member
is summed in float64. Pairs that lie so near to each other that even this loses their distance (below a hundred
thousandth of their distance from the first member) are looked at again, as differences.

Memory: a slice of at most 96 MiB, whatever the number of members, and the matrices that are returned.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from vitzoo.errors import WeightsError, did_you_mean
from vitzoo.ids import MemberRef
from vitzoo.weights.dtypes import NUMPY, as_floats
from vitzoo.weights.header import DTYPE_BYTES
from vitzoo.weights.index import IndexEntry
from vitzoo.weights.reader import WeightsReader

if TYPE_CHECKING:
    from vitzoo.weights.population import Part, PopulationWeights

_SLICE_BYTES = 8 * 2**20  # of float64: what the processor's cache holds
_MAX_SLICE_BYTES = 96 * 2**20  # where members are so many that reads would become too small
_MIN_WIDTH = 8192  # numbers of one read
_MAX_OPEN = 256  # files at once
_NEAR = 1e-10  # of the squares: below, float64 has fewer than six digits of the distance left


@dataclass(frozen=True, eq=False, slots=True)
class Distances:
    """Distances between the checkpoints of a selection.

    Args:
        values: ``[members, members]``, or ``[names, members, members]`` by layer or tensor; symmetric, with zeros on
            the diagonal. l2: 0 and up; cosine: 0 (same direction) to 2.
        names: The layers or tensors; None by model.
        refs: The checkpoints.
    """

    values: Float[np.ndarray, "..."]
    names: tuple[str, ...] | None
    refs: tuple[MemberRef, ...]


def compute_distances(
    weights: "PopulationWeights",
    metric: Literal["l2", "cosine"],
    *,
    by: Literal["model", "layer", "tensor"],
    part: "Part",
) -> Distances:
    """See `PopulationWeights.distances`."""
    for name, value, known in (("metric", metric, ("l2", "cosine")), ("by", by, ("model", "layer", "tensor"))):
        if value not in known:
            raise WeightsError(f'{name} "{value}" is none.{did_you_mean(value, known)}', path=None)
    index = weights.index(part)
    groups = {
        "model": {"model": list(index.values())},
        "layer": index.layers,
        "tensor": {name: [entry] for name, entry in index.items()},
    }[by]
    with contextlib.ExitStack() as stack:
        slices = _Slices(weights, stack)
        values = np.stack([_distances_of(slices, entries, metric) for entries in groups.values()])
    if by == "model":
        return Distances(values[0], None, weights.refs)
    return Distances(values, tuple(groups), weights.refs)


def _distances_of(
    slices: "_Slices", entries: Sequence[IndexEntry], metric: str
) -> Float[np.ndarray, "members members"]:
    members = len(slices.weights)
    gram, with_first, first_square = np.zeros((members, members)), np.zeros(members), 0.0
    for rows, first in slices.read(entries):
        gram += rows @ rows.T  # numpy sees that it is symmetric and does half the work
        if metric == "cosine":
            with_first += rows @ first
            first_square += float(first @ first)
    squares = np.diag(gram)
    if metric == "cosine":
        dots = gram + (with_first[:, None] + with_first[None, :]) + first_square
        norms = np.sqrt(np.diag(dots))
        with np.errstate(invalid="ignore"):  # of all zeros there is no direction: nan
            found = 1 - dots / (norms[:, None] * norms[None, :])
        found = np.clip(found, 0, 2)
        np.fill_diagonal(found, 0.0)
        return found
    found = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)
    first_rows, others = np.nonzero(np.triu(found <= _NEAR * (squares[:, None] + squares[None, :]), 1))
    if len(first_rows):
        found[first_rows, others] = found[others, first_rows] = _looked_at_again(slices, entries, first_rows, others)
    np.fill_diagonal(found, 0.0)
    return np.sqrt(found)


def _looked_at_again(
    slices: "_Slices", entries: Sequence[IndexEntry], some: np.ndarray, others: np.ndarray
) -> Float[np.ndarray, "pairs"]:
    """Squares of the distances of pairs, by their differences."""
    found = np.zeros(len(some))
    needed = np.unique(np.concatenate([some, others]))
    places = np.searchsorted(needed, some), np.searchsorted(needed, others)
    for rows, _ in slices.read(entries, members=needed):
        for pair, (one, other) in enumerate(zip(*places, strict=True)):
            difference = rows[one] - rows[other]
            found[pair] += difference @ difference
    return found


class _Slices:
    """Slices of tensors of all members, as float64."""

    def __init__(self, weights: "PopulationWeights", stack: contextlib.ExitStack):
        self.weights = weights
        weights.fetch()
        self._open: Callable[[int], contextlib.AbstractContextManager[WeightsReader]]
        if len(weights) <= _MAX_OPEN:
            readers = [stack.enter_context(weights.open(row, whole=False)) for row in range(len(weights))]
            self._open = lambda row: contextlib.nullcontext(readers[row])
        else:  # a process may hold some thousand files, shared with all else that it does
            self._open = lambda row: weights.open(row, whole=False)

    def read(
        self, entries: Sequence[IndexEntry], *, members: np.ndarray | None = None
    ) -> Iterator[tuple[Float[np.ndarray, "members slice"], Float[np.ndarray, "slice"]]]:
        """The tensors piece by piece: differences from the first of the members, and that one.

        Both are the reader's own until the next piece.
        """
        chosen = range(len(self.weights)) if members is None else members
        width = max(_SLICE_BYTES // (8 * len(chosen)), min(_MIN_WIDTH, _MAX_SLICE_BYTES // (8 * len(chosen))), 1)
        width = min(width, max(entry.size for entry in entries))
        memory = np.empty((len(chosen), width))
        for entry in entries:
            for begin in range(0, entry.size, width):
                end = min(entry.size, begin + width)
                rows = memory[:, : end - begin]
                first = self._read(int(chosen[0]), entry.name, begin, end).astype(np.float64)
                for place, row in enumerate(chosen):
                    np.subtract(self._read(int(row), entry.name, begin, end), first, out=rows[place])
                yield rows, first

    def _read(self, row: int, name: str, begin: int, end: int) -> np.ndarray:
        with self._open(row) as reader:
            entry = reader.entries[name]
            size = DTYPE_BYTES[entry.dtype]
            numbers = np.empty(end - begin, NUMPY[entry.dtype])
            reader.read_bytes([(entry.start + begin * size, numbers.view(np.uint8).data)])
        return as_floats(numbers, entry.dtype)
