"""How far the members of a population lie from each other, streamed from their files.

The files are read in slices of all members at once, and a Gram matrix of the slices' differences from one member, the
reference, is summed in float64. Members so near to each other that this loses their distance (below a hundred
thousandth of their distance from the reference) are looked at again, each group of them by itself and from a reference
of its own. A cosine is had from the distance of the vectors at norm 1, which takes one pass more, for the norms.

Memory: a slice of at most 96 MiB, whatever the number of members, and about four times one matrix that is returned.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from vitzoo.errors import WeightsError, did_you_mean
from vitzoo.ids import MemberRef
from vitzoo.tensors.dtypes import NUMPY, as_floats
from vitzoo.tensors.header import DTYPE_BYTES
from vitzoo.weights.files import WeightsFiles
from vitzoo.weights.index import IndexEntry, WeightsIndex
from vitzoo.weights.reader import WeightsReader

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
            the diagonal. l2: 0 and up; cosine: 0 (same direction) to 2, nan where a tensor is all zeros. Both are nan
            of members with weights that are no finite numbers.
        names: The layers or tensors; None by model.
        refs: The checkpoints.
    """

    values: Float[np.ndarray, "..."]
    names: tuple[str, ...] | None
    refs: tuple[MemberRef, ...]


def compute_distances(
    files: WeightsFiles,
    index: WeightsIndex,
    metric: Literal["l2", "cosine"],
    *,
    by: Literal["model", "layer", "tensor"],
) -> Distances:
    """Compute all pairwise distances. See `vitzoo.weights.population.PopulationWeights.distances`.

    Args:
        files: The checkpoints' files.
        index: The tensors to compare.
        metric: ``l2`` or ``cosine``.
        by: Over whole models, each layer, or each tensor.
    """
    for name, value, known in (("metric", metric, ("l2", "cosine")), ("by", by, ("model", "layer", "tensor"))):
        if value not in known:
            raise WeightsError(f'{name} "{value}" is none.{did_you_mean(value, known)}')
    groups = {
        "model": {"model": list(index.values())},
        "layer": index.layers,
        "tensor": {name: [entry] for name, entry in index.items()},
    }[by]
    values = np.empty((len(groups), len(files), len(files)))
    with contextlib.ExitStack() as stack:
        slices = _Slices(files, stack)
        for place, entries in enumerate(groups.values()):
            values[place] = _distances_of(slices, entries, metric)
    if by == "model":
        return Distances(values[0], None, files.refs)
    return Distances(values, tuple(groups), files.refs)


def _distances_of(
    slices: "_Slices", entries: Sequence[IndexEntry], metric: str
) -> Float[np.ndarray, "members members"]:
    everyone = np.arange(len(slices.files))
    finite, squares_of_norms = np.ones(len(everyone), bool), np.zeros(len(everyone))
    if metric == "cosine":
        for rows in slices.read(entries, everyone, finite):
            squares_of_norms += np.einsum("ij,ij->i", rows, rows)
        norms = np.sqrt(squares_of_norms)
        found = _squares(slices, entries, everyone, finite, np.where(norms > 0, norms, 1.0))
        found *= 0.5  # |a - b|^2 = 2 - 2 cos, at norm 1
        np.minimum(found, 2, out=found)
        found[norms == 0] = found[:, norms == 0] = np.nan
    else:
        found = _squares(slices, entries, everyone, finite, np.ones(len(everyone)))
        np.sqrt(found, out=found)
    found[~finite] = found[:, ~finite] = np.nan
    np.fill_diagonal(found, 0.0)
    return found


def _squares(
    slices: "_Slices",
    entries: Sequence[IndexEntry],
    members: np.ndarray,
    finite: Bool[np.ndarray, "members"],
    divisors: Float[np.ndarray, "members"],
) -> Float[np.ndarray, "some some"]:
    """Squares of the distances between some members, each divided by its number; `finite` learns whose are none."""
    squares, scaled = np.zeros((len(members), len(members))), bool((divisors != 1).any())
    for rows in slices.read(entries, members, finite):
        if scaled:
            rows /= divisors[members, None]
        rows -= rows[np.argmax(finite[members])].copy()
        squares += rows @ rows.T  # numpy sees that it is symmetric and does half the work
    own = np.diag(squares).copy()
    scale = own[:, None] + own[None, :]
    squares *= -2
    squares += scale
    np.maximum(squares, 0, out=squares)
    near = (squares <= _NEAR * scale) & (scale > 0) & finite[members][:, None] & finite[members][None, :]
    np.fill_diagonal(near, val=False)
    del scale
    for group in _connected(near):  # the reference is never among them, so each is smaller
        squares[np.ix_(group, group)] = _squares(slices, entries, members[group], finite, divisors)
    return squares


def _connected(near: Bool[np.ndarray, "some some"]) -> Iterator[np.ndarray]:
    """The groups of members that are near to each other, directly or over others; those that are alone are left out."""
    left = near.any(axis=1)
    while left.any():
        group = np.zeros(len(near), bool)
        reached = np.flatnonzero(left)[:1]
        while len(reached):
            group[reached] = True
            reached = np.flatnonzero(near[reached].any(axis=0) & ~group)
        left &= ~group
        yield np.flatnonzero(group)


def _open_file_limit() -> int:
    """Return how many files this process may open; Windows has no such limit to ask for."""
    try:
        import resource
    except ImportError:
        return 512
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class _Slices:
    """Slices of tensors of many members, as float64."""

    def __init__(self, files: WeightsFiles, stack: contextlib.ExitStack):
        self.files = files
        files.fetch()
        self._open: Callable[[int], contextlib.AbstractContextManager[WeightsReader]]
        if len(files) <= min(_MAX_OPEN, _open_file_limit() // 4):
            readers = [stack.enter_context(files.open(row, whole=False)) for row in range(len(files))]
            self._open = lambda row: contextlib.nullcontext(readers[row])
        else:  # a process may hold some thousand files, shared with all else that it does
            self._open = lambda row: files.open(row, whole=False)

    def read(
        self, entries: Sequence[IndexEntry], members: np.ndarray, finite: Bool[np.ndarray, "members"]
    ) -> Iterator[Float[np.ndarray, "some slice"]]:
        """The tensors piece by piece, each overwriting the last; members that are not finite, as it learns, are 0."""
        width = max(_SLICE_BYTES // (8 * len(members)), min(_MIN_WIDTH, _MAX_SLICE_BYTES // (8 * len(members))), 1)
        width = min(width, max(entry.size for entry in entries))
        memory = np.empty((len(members), width))
        for entry in entries:
            for begin in range(0, entry.size, width):
                end = min(entry.size, begin + width)
                rows = memory[:, : end - begin]
                for place, row in enumerate(members):
                    rows[place] = self._read(int(row), entry.name, begin, end)
                with np.errstate(over="ignore", invalid="ignore"):
                    suspect = ~np.isfinite(rows.sum(axis=1))
                if suspect.any():
                    finite[members] &= np.isfinite(rows).all(axis=1)
                    rows[~finite[members]] = 0
                yield rows

    def _read(self, row: int, name: str, begin: int, end: int) -> np.ndarray:
        with self._open(row) as reader:
            entry = reader.entries[name]
            size = DTYPE_BYTES[entry.dtype]
            numbers = np.empty(end - begin, NUMPY[entry.dtype])
            reader.read_bytes([(entry.start + begin * size, numbers.view(np.uint8).data)])
        return as_floats(numbers, entry.dtype)
