"""Ancestry: measures equal numpy's and scipy's, and methods give hand-computed parents of points in a plane."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import kurtosis

from tests.weights.checkpoints import map_tensors, rewrite, weights_of
from vitzoo.analysis.lineage.ancestry import (
    chain,
    find_clusters,
    match_digests,
    measure,
    mother,
    nearest_root,
    normalised_maxima,
    star,
)

# Two families: a root and two children each, and a child that goes on from another one.
POINTS = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [6.0, 1.0], [50.0, 0.0], [50.0, 2.0], [53.0, 0.0]])
FAMILIES = np.array([0, 0, 0, 0, 1, 1, 1])
SQUARES = cdist(POINTS, POINTS, "sqeuclidean")
SIGNAL = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])


def test_measures_equal_numpy_s_and_scipy_s(tiny_zoo: Path) -> None:
    weights = weights_of(tiny_zoo)
    found = measure(weights)
    matrix = weights.matrix(dtype="float64")
    np.testing.assert_allclose(found.squares, cdist(matrix.values, matrix.values, "sqeuclidean"), rtol=1e-9, atol=1e-12)
    tensors = {name: matrix.values[:, entry.span] for name, entry in matrix.index.items()}
    biases = np.hstack([values for name, values in tensors.items() if name.endswith(".bias")])
    gains = np.hstack([values for name, values in tensors.items() if "layernorm" in name and name.endswith(".weight")])
    (outputs,) = [values for name, values in tensors.items() if name.endswith("attention.output.dense.weight")]
    assert biases.shape[1] == 16 * 9 + 32
    assert gains.shape[1] == 16 * 3
    expected = {
        "bias_norm": np.linalg.norm(biases, axis=1),
        "gain_distance": np.linalg.norm(gains - 1, axis=1),
        "backbone_norm": np.linalg.norm(matrix.values, axis=1),
        "kurtosis": kurtosis(outputs, axis=1, fisher=False),
    }
    assert found.signals.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found.signals[name], values, rtol=1e-9, err_msg=name)


def test_measures_of_nan_weights_are_nan_for_that_member_alone(tiny_copy: Path) -> None:
    before = measure(weights_of(tiny_copy))
    rewrite(tiny_copy / "pt-1", map_tensors(lambda tensor: tensor * float("nan")))
    weights = weights_of(tiny_copy)
    row = [str(ref.member) for ref in weights.refs].index("pt-1")
    found = measure(weights)
    assert np.flatnonzero(~found.finite).tolist() == [row]
    assert np.isnan(found.squares[row]).all()
    others = np.delete(np.arange(len(weights)), row)
    np.testing.assert_allclose(found.take(others).squares, before.take(others).squares, rtol=1e-9, atol=1e-12)


def test_constant_matrices_have_no_kurtosis(tiny_copy: Path) -> None:
    rewrite(tiny_copy / "pt-1", map_tensors(lambda tensor: tensor * 0))
    found = measure(weights_of(tiny_copy, stage="pretraining"))
    assert {name: values[1] for name, values in found.signals.items()} == {
        "bias_norm": 0.0,
        "gain_distance": pytest.approx(48**0.5),
        "backbone_norm": 0.0,
        "kurtosis": 0.0,
    }


def test_nearest_root_is_the_parent() -> None:
    found = nearest_root(SQUARES, np.array([True, False, False, False, True, False, False]))
    assert found.parents.tolist() == [-1, 0, 0, 0, -1, 4, 4]
    assert found.clusters.tolist() == FAMILIES.tolist()
    assert found.costs[0, 1] == 3
    assert found.costs[4, 1] == 47
    assert np.isinf(found.costs[1]).all()


def test_two_equally_near_roots_are_a_tie() -> None:
    points = np.array([[0.0], [2.0], [1.0], [1.5]])
    found = nearest_root(cdist(points, points, "sqeuclidean"), np.array([True, True, False, False]))
    assert found.parents.tolist() == [-1, -1, -1, 1]
    assert found.tied.tolist() == [False, False, True, False]
    assert len(set(found.clusters[[0, 1, 2]])) == 3


def test_star_roots_each_cluster_by_the_signal() -> None:
    clusters = find_clusters(SQUARES, None)
    assert clusters.tolist() == FAMILIES.tolist()
    assert star(SQUARES, clusters, SIGNAL, "smallest").parents.tolist() == [-1, 0, 0, 0, -1, 4, 4]
    found = star(SQUARES, clusters, SIGNAL, "largest")
    assert found.parents.tolist() == [3, 3, 3, -1, 6, 6, -1]
    assert np.flatnonzero(np.isfinite(found.costs[:, 0])).tolist() == [3, 6]


def test_equal_members_are_a_tie_and_not_an_edge() -> None:
    equal = np.zeros((3, 3))
    clusters = find_clusters(equal, None)
    assert clusters.tolist() == [0, 0, 0]
    rooted = star(equal, clusters, np.ones(3), "smallest")
    for found in (rooted, chain(equal, rooted), mother(equal, equal, clusters, np.ones(3), "smallest")):
        assert found.parents.tolist() == [-1, -1, -1]
        assert found.tied.sum() == 2
    assert nearest_root(equal, np.array([True, True, False])).tied.tolist() == [False, False, True]


def test_chain_finds_the_nearest_ancestor() -> None:
    rooted = star(SQUARES, FAMILIES, SIGNAL, "smallest")
    found = chain(SQUARES, rooted)
    # Member 3 moved by (6, 1) and kept all of member 1's (3, 0): 18 >= .9 * 9. Of (0, 4) it kept 4 of 16.
    assert found.parents.tolist() == [-1, 0, 0, 1, -1, 4, 4]
    assert found.costs[1, 3] == pytest.approx(10**0.5)
    assert found.costs[0, 3] == pytest.approx(37**0.5)
    assert np.isinf(found.costs[2, 3])


def test_mother_costs_edges_against_the_signal_more() -> None:
    points = np.array([[0.0], [1.0], [2.5]])
    squares = cdist(points, points, "sqeuclidean")
    one = np.zeros(3, int)
    # Edges of 1 and 1.5 are in every tree; only a direction with the signal has no penalty.
    for signal, parents in (
        ([1.0, 2.0, 3.0], [-1, 0, 1]),
        ([3.0, 2.0, 1.0], [1, 2, -1]),
        ([2.0, 1.0, 2.0], [1, -1, 1]),
    ):
        assert mother(squares, np.sqrt(squares), one, np.array(signal), "smallest").parents.tolist() == parents
    found = mother(squares, np.sqrt(squares), one, np.array([1.0, 2.0, 3.0]), "largest")
    assert found.parents.tolist() == [1, 2, -1]
    assert found.costs[1, 0] == 1
    assert found.costs[0, 1] == pytest.approx(1 + 0.3 * 10 / 9)
    assert found.costs[2, 1] == 1.5


def test_normalised_maxima_equal_a_loop_and_do_not_depend_on_the_order(tiny_zoo: Path) -> None:
    weights = weights_of(tiny_zoo)
    clusters = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    found = normalised_maxima(weights, clusters)
    names = [name for name in weights.index() if ".attention." in name and name.endswith(".weight")]
    assert len(names) == 4
    expected = np.zeros((11, 11))
    for name in names:
        rows = weights.tensor(name).reshape(11, -1)
        apart = abs(rows[:, None] - rows).max(axis=2)
        for cluster in range(3):
            pairs = [(i, j) for i in range(11) for j in range(11) if i != j and clusters[i] == clusters[j] == cluster]
            values = [apart[pair] for pair in pairs]
            for pair in pairs:
                scaled = (apart[pair] - min(values)) / (max(values) - min(values))
                expected[pair] = max(expected[pair], scaled)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    flipped = normalised_maxima(weights_of(tiny_zoo)[::-1], clusters[::-1])
    assert np.array_equal(flipped[::-1, ::-1], found)


def test_digests_lead_to_the_only_equal_backbone() -> None:
    own = ["a", "b", "c", "d", "a2", None, "s", "e", "e"]
    starts = ["x", "a", "b", "b", None, "a", "s", "s", "x"]
    found = match_digests(own, starts)
    assert found.parents.tolist() == [-1, 0, 1, 1, -1, 0, -1, 6, -1]
    assert found.clusters.tolist() == [0, 0, 0, 0, 1, 0, 2, 2, 3]
    assert not found.tied.any()


def test_two_equal_backbones_are_a_tie() -> None:
    found = match_digests(["a", "a", "c", "a"], ["x", "y", "a", "a"])
    assert found.parents.tolist() == [-1, -1, -1, -1]
    assert found.tied.tolist() == [False, False, True, True]
