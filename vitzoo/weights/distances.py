"""Compute the distances between the members of a population, streamed from their files.

The files are read in slices of all members. A Gram matrix of the slices' differences from one member, the reference, is
summed in float64. It loses the distances between near members (below a hundred thousandth of their distance from the
reference). Each group of near members is read again, with a reference of its own. A cosine is computed from the
distance of the vectors at norm 1, after one more pass for the norms.

Memory: a slice of at most 96 MiB for any number of members, and about four times one matrix of the result.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64

from vitzoo.errors import WeightsError
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown
from vitzoo.weights.files import WeightsFiles
from vitzoo.weights.index import IndexEntry, WeightsIndex

_SLICE_BYTES = 8 * 2**20  # of float64, to fit the processor's cache
_MAX_SLICE_BYTES = 96 * 2**20  # with many members, so that reads do not become too small
_MIN_WIDTH = 8192  # numbers of one read, at least
_NEAR = 1e-10  # of the squares: below, float64 has fewer than six digits of the distance

Observer = Callable[[IndexEntry, Float[np.ndarray, "members slice"]], None]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Distances(Shown):
    """Distances between the checkpoints of a selection.

    Args:
        values: ``[members, members]``, or ``[names, members, members]`` by layer or tensor; symmetric, with zeros on
            the diagonal. l2: from 0; cosine: 0 (same direction) to 2, NaN for a tensor of zeros. Both are NaN for
            members with NaN or infinite weights.
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
    """Compute all pairwise distances. See `vitzoo.weights.population.PopulationWeights.distances`."""
    for name, value, known in (("metric", metric, ("l2", "cosine")), ("by", by, ("model", "layer", "tensor"))):
        if value not in known:
            raise WeightsError(f'{name} is "{value}"', expected=f"one of {', '.join(known)}")
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


def compute_squares(
    files: WeightsFiles, index: WeightsIndex, observe: Observer
) -> Float64[np.ndarray, "members members"]:
    """Compute squared L2 distances over whole models, and show every slice to an observer in the same pass.

    Args:
        files: The weights files.
        index: The compared tensors.
        observe: Function of a tensor and a slice of it, ``[members, numbers]``. The next slice overwrites the array.
            Members with NaN or infinite weights have zeros from there on.

    Returns:
        Zeros on the diagonal. Rows and columns of members with NaN or infinite weights are NaN, diagonal included.
    """
    everyone, finite = np.arange(len(files)), np.ones(len(files), bool)
    with contextlib.ExitStack() as stack:
        slices = _Slices(files, stack)
        squares = _squares(slices, list(index.values()), everyone, finite, np.ones(len(files)), observe)
    np.fill_diagonal(squares, 0.0)
    squares[~finite] = squares[:, ~finite] = np.nan
    return squares


def _distances_of(
    slices: "_Slices", entries: Sequence[IndexEntry], metric: str
) -> Float[np.ndarray, "members members"]:
    members = np.arange(len(slices.files))
    finite, squares_of_norms = np.ones(len(members), bool), np.zeros(len(members))
    if metric == "cosine":
        for _, rows in slices.read(entries, members, finite):
            squares_of_norms += np.einsum("ij,ij->i", rows, rows)
        norms = np.sqrt(squares_of_norms)
        distances = _squares(slices, entries, members, finite, np.where(norms > 0, norms, 1.0))
        distances *= 0.5  # |a - b|^2 = 2 - 2 cos, at norm 1
        np.minimum(distances, 2, out=distances)
        distances[norms == 0] = distances[:, norms == 0] = np.nan
    else:
        distances = _squares(slices, entries, members, finite, np.ones(len(members)))
        np.sqrt(distances, out=distances)
    distances[~finite] = distances[:, ~finite] = np.nan
    np.fill_diagonal(distances, 0.0)
    return distances


def _squares(
    slices: "_Slices",
    entries: Sequence[IndexEntry],
    members: np.ndarray,
    finite: Bool[np.ndarray, "members"],
    divisors: Float[np.ndarray, "members"],
    observe: Observer | None = None,
) -> Float[np.ndarray, "some some"]:
    """Compute squared distances between some members, each vector divided by its divisor.

    Members with NaN or infinite weights become False in ``finite``.
    """
    squares, scaled = np.zeros((len(members), len(members))), bool((divisors != 1).any())
    for entry, rows in slices.read(entries, members, finite):
        if observe is not None:
            observe(entry, rows)
        if scaled:
            rows /= divisors[members, None]
        rows -= rows[np.argmax(finite[members])].copy()
        squares += rows @ rows.T  # numpy detects the symmetry and does half the work
    own = np.diag(squares).copy()
    scale = own[:, None] + own[None, :]
    squares *= -2
    squares += scale
    np.maximum(squares, 0, out=squares)
    near = (squares <= _NEAR * scale) & (scale > 0) & finite[members][:, None] & finite[members][None, :]
    np.fill_diagonal(near, val=False)
    del scale
    for group in _connected(near):  # none has the reference, so each is smaller
        squares[np.ix_(group, group)] = _squares(slices, entries, members[group], finite, divisors)
    return squares


def _connected(near: Bool[np.ndarray, "some some"]) -> Iterator[np.ndarray]:
    """Iterate over the connected components with at least two members."""
    remaining = near.any(axis=1)
    while remaining.any():
        group = np.zeros(len(near), bool)
        reached = np.flatnonzero(remaining)[:1]
        while len(reached):
            group[reached] = True
            reached = np.flatnonzero(near[reached].any(axis=0) & ~group)
        remaining &= ~group
        yield np.flatnonzero(group)


class _Slices:
    """Slices of tensors of many members, as float64."""

    def __init__(self, files: WeightsFiles, stack: contextlib.ExitStack):
        self.files = files
        self._open = files.keep_open(stack)

    def read(
        self, entries: Sequence[IndexEntry], members: np.ndarray, finite: Bool[np.ndarray, "members"]
    ) -> Iterator[tuple[IndexEntry, Float[np.ndarray, "some slice"]]]:
        """Iterate over tensors and their slices; each overwrites the last, and members that are not finite become 0."""
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
                yield entry, rows

    def _read(self, row: int, name: str, begin: int, end: int) -> np.ndarray:
        with self._open(row) as reader:
            return reader.read_slice(name, begin, end)
