"""Trees: clusters equal scipy's, arborescences networkx's, and ties go to the first row."""

import networkx
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import adjusted_rand_score

from vitzoo.analysis.lineage.trees import count_clusters, cut_merges, minimum_arborescence, ward_merges


@pytest.mark.parametrize("count", [2, 3, 40])
def test_ward_merges_equal_scipy_s(count: int) -> None:
    points = np.random.default_rng(count).normal(size=(count, 5))
    merges, heights = ward_merges(squareform(pdist(points)) ** 2)
    expected = linkage(points, "ward")
    np.testing.assert_allclose(heights, expected[:, 2], rtol=1e-10)
    for clusters in range(1, count + 1):
        labels = cut_merges(merges, clusters)
        assert len(set(labels)) == clusters
        assert labels[0] == 0
        assert adjusted_rand_score(labels, fcluster(expected, clusters, "maxclust")) == 1


def test_clusters_are_counted_at_the_largest_rise() -> None:
    assert count_clusters(np.array([1.0, 1.0, 2.0, 9.0, 10.0])) == 3  # from 2 to 9: two merges are left
    assert count_clusters(np.array([8.0, 9.0, 10.0])) == 4  # no two belong together
    assert count_clusters(np.array([0.0, 0.0])) == 1
    assert count_clusters(np.empty(0)) == 1


@pytest.mark.parametrize("seed", range(30))
def test_arborescence_costs_as_much_as_networkx_s(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(2, 14))
    costs = generator.exponential(size=(count, count)) - (0.5 if seed % 3 == 0 else 0)
    graph = networkx.DiGraph()
    graph.add_weighted_edges_from((i, j, costs[i, j]) for i in range(count) for j in range(count) if i != j)
    expected = set(networkx.minimum_spanning_arborescence(graph).edges)
    parents = minimum_arborescence(costs)
    assert (parents == -1).sum() == 1
    assert {(parent, child) for child, parent in enumerate(parents.tolist()) if parent >= 0} == expected


def test_arborescence_of_one_member_is_its_root() -> None:
    assert minimum_arborescence(np.zeros((1, 1))).tolist() == [-1]
