"""Guess parents from weights alone: measures of backbones, and the methods on them. Nothing here knows an id.

Rows are in an order that contents decide, so ties do not depend on names. See `vitzoo.analysis.lineage.lineage` for
selections and `vitzoo.analysis.lineage.trees` for clusters and arborescences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int

from vitzoo.analysis.lineage.trees import count_clusters, cut_merges, minimum_arborescence, ward_merges
from vitzoo.weights.distances import compute_squares
from vitzoo.weights.index import IndexEntry
from vitzoo.weights.population import PopulationWeights

_ANCESTOR = 0.9  # share of an ancestor's move from the root that its descendant has kept
_PENALTY = 0.3  # of the mean distance, for an edge against the signal: `mother`'s


@dataclass(frozen=True, kw_only=True, slots=True)
class RootSignal:
    """A number of one backbone that may tell a parent from its children.

    Args:
        meaning: Definition.
        root: Side on which the root of a family is expected.
        chosen_on: Population on which the signal and its side were chosen.
    """

    meaning: str
    root: Literal["smallest", "largest"]
    chosen_on: str


_DIGITS = "digits zoo, 128 edges of 12 families, after a look at six signals"
SIGNALS = {
    "bias_norm": RootSignal(meaning="L2 norm of all biases", root="smallest", chosen_on=_DIGITS),
    "gain_distance": RootSignal(
        meaning="L2 distance of the gains of all LayerNorms from 1", root="smallest", chosen_on=_DIGITS
    ),
    "backbone_norm": RootSignal(meaning="L2 norm of all weights", root="largest", chosen_on=_DIGITS),
    "kurtosis": RootSignal(
        meaning="sum of the kurtoses of the square attention outputs",
        root="smallest",
        chosen_on="other models: MoTHer (Horwitz et al. 2025)",
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Measures:
    """Measures of backbones that the methods read. Made by `measure`.

    Args:
        squares: Squared L2 distances; NaN for a member with NaN or infinite weights.
        signals: The values of `SIGNALS`.
    """

    squares: Float64[np.ndarray, "members members"]
    signals: dict[str, Float64[np.ndarray, " members"]]

    @property
    def finite(self) -> Bool[np.ndarray, " members"]:
        """True for a member whose weights are finite."""
        return ~np.isnan(self.squares.diagonal())

    def take(self, rows: np.ndarray) -> "Measures":
        """Return the measures of some members."""
        return Measures(
            squares=self.squares[np.ix_(rows, rows)],
            signals={name: values[rows] for name, values in self.signals.items()},
        )


def measure(weights: PopulationWeights) -> Measures:
    """Compute the measures in one pass over the files.

    Raises:
        WeightsError: Two backbones have different tensors, or a file is damaged.
    """
    index, count = weights.index(), len(weights)
    biases, gains, norms, kurtosis = np.zeros((4, count))
    moments = {name: np.zeros((4, count)) for name in _square_matrices(index.shapes, "output.dense")}

    def observe(entry: IndexEntry, rows: np.ndarray) -> None:
        squares = np.vecdot(rows, rows)
        norms.__iadd__(squares)
        if entry.name.endswith(".bias"):
            biases.__iadd__(squares)
        elif entry.name.endswith(".weight") and len(entry.shape) == 1:
            gains.__iadd__(((rows - 1) ** 2).sum(axis=1))
        elif entry.name in moments:
            squared = rows * rows
            powers = rows.sum(axis=1), squares, np.vecdot(squared, rows), np.vecdot(squared, squared)
            moments[entry.name] += np.stack(powers) / entry.size

    distances = compute_squares(weights.files, index, observe)
    for m1, m2, m3, m4 in moments.values():
        variance = m2 - m1**2
        fourth = m4 - 4 * m3 * m1 + 6 * m2 * m1**2 - 3 * m1**4
        kurtosis += np.divide(fourth, variance**2, out=np.zeros(count), where=variance > 0)
    signals = (np.sqrt(biases), np.sqrt(gains), np.sqrt(norms), kurtosis)
    return Measures(squares=distances, signals=dict(zip(SIGNALS, signals, strict=True)))


def _square_matrices(shapes: dict[str, tuple[int, ...]], word: str) -> list[str]:
    """Return the square matrices of the attention whose names have a word."""
    return [
        name
        for name, shape in shapes.items()
        if ".attention." in name and word in name and len(shape) == 2 and shape[0] == shape[1]
    ]


def normalised_maxima(
    weights: PopulationWeights, clusters: Int[np.ndarray, " members"]
) -> Float64[np.ndarray, "members members"]:
    """Compute the distance of MoTHer for full fine-tuning, by cluster; zeros elsewhere.

    The largest absolute difference of a square matrix of the attention is scaled to 0..1 over the pairs of the cluster.
    The distance is the largest of all matrices. It reads each matrix of all members at once, and compares each pair.

    Source: Horwitz et al. 2025, Unsupervised Model Tree Heritage Recovery, with the deviations of `MOTHER_DEVIATIONS`.
    """
    result = np.zeros((len(weights), len(weights)))
    for name in _square_matrices(weights.index().shapes, ""):
        values = weights.tensor(name, dtype="float32").reshape(len(weights), -1)
        for own in (np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)):
            largest = np.zeros((len(own), len(own)))
            for place, row in enumerate(own[:-1]):
                apart = np.abs(values[own[place + 1 :]] - values[row]).max(axis=1)
                largest[place, place + 1 :] = largest[place + 1 :, place] = apart
            pairs = largest[~np.eye(len(own), dtype=bool)]
            low, high = (pairs.min(), pairs.max()) if len(pairs) else (0.0, 0.0)
            scaled = (largest - low) / (high - low) if high > low else np.zeros_like(largest)
            result[np.ix_(own, own)] = np.maximum(result[np.ix_(own, own)], scaled)
    return result


MOTHER_DEVIATIONS = (
    "differences are absolute: the published maximum of a signed difference depends on the order of the models",
    "families are clusters by Ward's linkage of L2 distances, not of sums of mean absolute differences",
    "the side of the root is an argument: the published code expects one side for each stage of training",
    "ties are decided by the content of the files, not by their order",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Forest:
    """Guessed parents of some members.

    Args:
        parents: Row of the parent; -1 for none.
        clusters: Cluster of each member, from 0.
        tied: True where two answers fit equally well, so that none is given.
        costs: Cost of a parent (row) for a child (column): the L2 distance, or as the method defines it. Infinite
            where the method does not consider the pair.
    """

    parents: Int[np.ndarray, " members"]
    clusters: Int[np.ndarray, " members"]
    costs: Float64[np.ndarray, "members members"]
    tied: Bool[np.ndarray, " members"]


def nearest_root(squares: Float64[np.ndarray, "members members"], is_root: Bool[np.ndarray, " members"]) -> Forest:
    """Choose the nearest root for each other member. Two equally near roots are a tie."""
    roots, count = np.flatnonzero(is_root), len(squares)
    costs = np.full((count, count), np.inf)
    costs[np.ix_(roots, ~is_root)] = np.sqrt(squares[np.ix_(roots, ~is_root)])
    parents = np.where(is_root, -1, np.argmin(costs, axis=0))
    tied = ~is_root & ((costs == costs.min(axis=0)).sum(axis=0) > 1)
    parents[tied] = -1
    owners = np.where(parents < 0, np.arange(count), parents)
    return Forest(parents=parents, clusters=np.unique(owners, return_inverse=True)[1], costs=costs, tied=tied)


def find_clusters(squares: Float64[np.ndarray, "members members"], families: int | None) -> Int[np.ndarray, " members"]:
    """Cluster members by Ward's linkage; None counts the families at the largest rise of the heights."""
    merges, heights = ward_merges(squares)
    return cut_merges(merges, count_clusters(heights) if families is None else families)


def star(
    squares: Float64[np.ndarray, "members members"],
    clusters: Int[np.ndarray, " members"],
    signal: Float64[np.ndarray, " members"],
    side: str,
) -> Forest:
    """Root each cluster by a signal. The root is the parent of all others of its cluster.

    A member whose weights equal the root's is a tie.
    """
    signal = signal if side == "smallest" else -signal
    roots = np.array([own[np.argmin(signal[own])] for own in _members(clusters)])
    parents = roots[clusters]
    costs = np.full(squares.shape, np.inf)
    costs[roots] = np.sqrt(squares[roots])
    rows = np.arange(len(squares))
    tied = (squares[parents, rows] == 0) & (parents != rows)
    parents = np.where(tied | (parents == rows), -1, parents)
    costs[:, roots] = np.inf
    return Forest(parents=parents, clusters=clusters, costs=costs, tied=tied)


def chain(squares: Float64[np.ndarray, "members members"], rooted: Forest) -> Forest:
    """Replace the root, as parent, by the nearest ancestor of the same cluster.

    With moves d from the root, j is an ancestor of i if <d_i, d_j> is at least .9 |d_j|^2, and if d_j is shorter.
    Siblings share less of their moves.
    """
    parents, costs = rooted.parents.copy(), np.full(squares.shape, np.inf)
    for own in _members(rooted.clusters):
        root = next((row for row in own if rooted.parents[row] < 0 and not rooted.tied[row]), own[0])
        moves = squares[root, own]
        products = (moves[:, None] + moves - squares[np.ix_(own, own)]) / 2
        is_ancestor = (products >= _ANCESTOR * moves[:, None]) & (moves[:, None] < moves)
        costs[np.ix_(own, own)] = np.where(is_ancestor, np.sqrt(squares[np.ix_(own, own)]), np.inf)
    known = parents >= 0
    parents[known] = np.argmin(costs[:, known], axis=0)
    costs[:, ~known] = np.inf
    return replace(rooted, parents=parents, costs=costs)


def mother(
    squares: Float64[np.ndarray, "members members"],
    distances: Float64[np.ndarray, "members members"],
    clusters: Int[np.ndarray, " members"],
    signal: Float64[np.ndarray, " members"],
    side: str,
) -> Forest:
    """Find a minimum arborescence in each cluster. Edges against the signal cost .3 of the mean distance more.

    An edge between equal weights is a tie.
    """
    signal = signal if side == "smallest" else -signal
    parents, costs = np.full(len(clusters), -1), np.full(distances.shape, np.inf)
    for own in _members(clusters):
        apart = distances[np.ix_(own, own)]
        own_costs = apart + _PENALTY * apart.mean() * (signal[own][:, None] > signal[own])
        found = minimum_arborescence(own_costs)
        parents[own] = np.where(found < 0, -1, own[found])
        np.fill_diagonal(own_costs, np.inf)
        costs[np.ix_(own, own)] = np.where(found < 0, np.inf, own_costs)
    tied = (parents >= 0) & (squares[parents, np.arange(len(parents))] == 0)
    return Forest(parents=np.where(tied, -1, parents), clusters=clusters, costs=costs, tied=tied)


def match_digests(own: Sequence[str | None], starts: Sequence[str | None]) -> Forest:
    """Choose the member whose backbone equals the backbone at the child's epoch 0.

    Members without a digest have no parent. A member that still has the backbone of its epoch 0 has no parent either.
    Two equal backbones are a tie.
    """
    count = len(own)
    places: dict[str, list[int]] = {}
    for row, digest in enumerate(own):
        places.setdefault(digest or "", []).append(row)
    parents, tied, costs = np.full(count, -1), np.zeros(count, bool), np.full((count, count), np.inf)
    for row, start in enumerate(starts):
        candidates = [] if not start else [place for place in places.get(start, []) if place != row]
        costs[candidates, row] = 0.0
        if len(candidates) == 1 and own[row] != start:
            parents[row] = candidates[0]
        tied[row] = bool(candidates) and parents[row] < 0
    clusters = np.arange(count)
    for _ in range(count):  # as many steps as the longest chain
        above = np.where(parents < 0, clusters, clusters[parents])
        if np.array_equal(above, clusters):
            break
        clusters = above
    return Forest(parents=parents, clusters=np.unique(clusters, return_inverse=True)[1], costs=costs, tied=tied)


def _members(clusters: Int[np.ndarray, " members"]) -> list[Int[np.ndarray, " some"]]:
    return [np.flatnonzero(clusters == cluster) for cluster in range(int(clusters.max()) + 1)]
