"""Debiased CKA equals the sum over quadruples of samples, and is near 0 for unrelated features."""

from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from vitzoo.analysis.behaviour.cka import cka
from vitzoo.errors import DatasetError


def by_quadruples(one: np.ndarray, two: np.ndarray) -> float:
    """Return the unbiased estimate of HSIC by its definition, Song et al. 2012, equation 5."""
    terms = [one[i, j] * (two[i, j] + two[q, r] - 2 * two[i, q]) for i, j, q, r in permutations(range(len(one)), 4)]
    return float(np.mean(terms))


def test_equals_the_sum_over_quadruples() -> None:
    generator = np.random.default_rng(0)
    features = [generator.normal(size=(8, width)) for width in (5, 3)]
    features.append(features[0] @ generator.normal(size=(5, 4)))
    grams = [member @ member.T for member in features]
    own = [by_quadruples(gram, gram) for gram in grams]
    expected = [
        [by_quadruples(one, two) / np.sqrt(own[i] * own[j]) for j, two in enumerate(grams)]
        for i, one in enumerate(grams)
    ]
    assert_allclose(cka(features), expected, rtol=0, atol=1e-12)


def test_unrelated_features_are_near_0() -> None:
    features = np.random.default_rng(1).normal(size=(2, 143, 384)).astype(np.float32)
    assert abs(cka(features)[0, 1]) < 0.02  # the biased estimate is .73


def test_rotation_scale_and_a_large_mean_change_nothing() -> None:
    generator = np.random.default_rng(2)
    features = generator.normal(size=(50, 20))
    rotation = np.linalg.qr(generator.normal(size=(20, 20)))[0]
    moved = (1000 + 3 * features @ rotation).astype(np.float32)
    assert_allclose(cka([features.astype(np.float32), moved])[0, 1], 1.0, rtol=0, atol=1e-5)


def test_constant_features_are_nan() -> None:
    features = [np.full((10, 3), 0.1, dtype=np.float32), np.random.default_rng(3).normal(size=(10, 3))]
    values = cka(features)
    assert np.isnan(values[0]).all()
    assert values[1, 1] == 1.0


@pytest.mark.parametrize(
    ("sizes", "problem"), [((3, 3), "CKA of 3 samples"), ((10, 9), "Features of 9 and of 10 samples")]
)
def test_few_or_unequal_samples_are_refused(sizes: tuple[int, int], problem: str) -> None:
    with pytest.raises(DatasetError) as caught:
        cka(np.ones((size, 2)) * np.arange(size)[:, None] for size in sizes)
    assert caught.value.problem == problem
