"""Build trees from distances and costs: Ward's clusters and minimum arborescences. numpy only.

Of equal values, the first one counts. So the order of the rows decides ties.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int


def ward_merges(
    squares: Float64[np.ndarray, "members members"],
) -> tuple[Int[np.ndarray, "merges 2"], Float64[np.ndarray, " merges"]]:
    """Merge clusters, from single members to one cluster, so that the variance inside clusters grows least.

    Args:
        squares: Squared L2 distances.

    Returns:
        A member of each of the two merged clusters, and the height of each merge, which never falls.

    Source: Ward 1963, Hierarchical Grouping to Optimize an Objective Function; the update of Lance and Williams 1967.
    """
    count = len(squares)
    apart, sizes = squares.copy(), np.ones(count)
    np.fill_diagonal(apart, np.inf)
    merges, heights = np.empty((max(count - 1, 0), 2), np.int64), np.empty(max(count - 1, 0))
    for step in range(count - 1):
        one, two = np.unravel_index(np.argmin(apart), apart.shape)
        height = apart[one, two]
        merges[step], heights[step] = (one, two), np.sqrt(height)
        weights = sizes + sizes[one], sizes + sizes[two], sizes + sizes[one] + sizes[two]
        row = (weights[0] * apart[one] + weights[1] * apart[two] - sizes * height) / weights[2]
        row[[one, two]] = np.inf
        apart[one] = apart[:, one] = row
        apart[two] = apart[:, two] = np.inf
        sizes[one] += sizes[two]
    return merges, heights


def cut_merges(merges: Int[np.ndarray, "merges 2"], clusters: int) -> Int[np.ndarray, " members"]:
    """Return the cluster of each member after all merges but the last ``clusters - 1``, numbered by first members."""
    count = len(merges) + 1
    labels = np.arange(count)
    for one, two in merges[: count - clusters]:
        labels[labels == labels[two]] = labels[one]
    _, firsts, places = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[places]


def count_clusters(heights: Float64[np.ndarray, " merges"]) -> int:
    """Return the number of clusters before the largest rise of the merges' heights; 1 if all heights are 0.

    Two clusters are the fewest that it finds among different members, because nothing rises after the last merge.
    """
    if not len(heights) or heights[-1] == 0:
        return 1
    return len(heights) + 1 - int(np.argmax(np.diff(heights, prepend=0.0)))


def minimum_arborescence(costs: Float64[np.ndarray, "members members"]) -> Int[np.ndarray, " members"]:
    """Find the tree of the smallest total cost in which every member but one has a parent.

    Args:
        costs: Cost of the edge from parent (row) to child (column). The diagonal is ignored.

    Returns:
        The parent of each member, -1 for the root.

    Source: Edmonds 1967, Optimum Branchings.
    """
    count = len(costs)
    current = np.full((count + 1, count + 1), np.inf)
    current[:count, :count] = costs
    current[count, :count] = (
        1 + 2 * np.abs(costs[~np.eye(count, dtype=bool)]).sum()
    )  # so expensive that it is used once
    np.fill_diagonal(current, np.inf)
    levels = []
    while True:
        parents = np.where(np.isinf(current).all(axis=0), count, np.argmin(current, axis=0))
        cycle = _find_cycle(parents, count)
        if cycle is None:
            break
        saved = current[:, cycle] - current[parents[cycle], cycle]
        entered, left = cycle[np.argmin(saved, axis=1)], cycle[np.argmin(current[cycle], axis=0)]
        grown = np.full((len(current) + 1, len(current) + 1), np.inf)
        grown[:-1, :-1] = current
        grown[:-1, -1], grown[-1, :-1] = saved.min(axis=1), current[cycle].min(axis=0)
        grown[cycle] = grown[:, cycle] = np.inf
        levels.append((cycle, parents, entered, left))
        current = grown
    for cycle, before, entered, left in reversed(levels):
        merged = len(parents) - 1
        start = parents[merged]
        parents = np.where(parents == merged, np.append(left, merged), parents)[:-1]
        parents[cycle] = before[cycle]
        parents[entered[start]] = start
    return np.where(parents[:count] == count, -1, parents[:count])


def _find_cycle(parents: Int[np.ndarray, " nodes"], root: int) -> Int[np.ndarray, " some"] | None:
    """Return the nodes of a cycle; None if all paths lead to the root."""
    seen = np.zeros(len(parents), np.int64)
    seen[root] = -1
    for start in range(len(parents)):
        path, node = [], start
        while not seen[node]:
            seen[node] = start + 1
            path.append(node)
            node = int(parents[node])
        if seen[node] == start + 1 and path:
            return np.array(path[path.index(node) :])
    return None


def together(labels: Sequence[object] | Int[np.ndarray, " members"]) -> Bool[np.ndarray, "members members"]:
    """Return which pairs of members have equal labels."""
    values = np.unique(np.array([str(label) for label in labels]), return_inverse=True)[1]
    return values[:, None] == values
