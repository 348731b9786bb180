"""Measures of pairs equal published implementations and definitions, and are NaN where they are undefined."""

import krippendorff
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import cohen_kappa_score

from vitzoo.analysis.behaviour import pairs

CLASSES = 5


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(scale=2, size=(6, 300, CLASSES)).astype(np.float32)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, CLASSES, 300)


def every_pair(measure, rows) -> np.ndarray:
    return np.array([[measure(one, two) for two in rows] for one in rows])


def test_agreement_is_the_share_of_equal_predictions(logits: np.ndarray) -> None:
    predictions = logits.argmax(2).astype(np.uint16)
    expected = every_pair(lambda one, two: np.mean(one == two), predictions)
    assert np.array_equal(pairs.agreement(predictions), expected)


def test_kappa_is_scikit_learns(logits: np.ndarray) -> None:
    predictions = logits.argmax(2).astype(np.uint8)
    expected = every_pair(cohen_kappa_score, predictions)
    assert_allclose(pairs.kappa(predictions, classes=CLASSES), expected, rtol=0, atol=1e-12)


def test_error_consistency_is_kappa_of_right_and_wrong(logits: np.ndarray, labels: np.ndarray) -> None:
    correct = logits.argmax(2) == labels
    assert_allclose(pairs.error_consistency(correct), every_pair(cohen_kappa_score, correct), rtol=0, atol=1e-12)


def test_capa_follows_its_definition(logits: np.ndarray, labels: np.ndarray) -> None:
    def capa(one: np.ndarray, two: np.ndarray) -> float:
        observed = np.mean([(p * q).sum() for p, q in zip(one, two, strict=True)])
        right = [
            np.mean([row[label] for row, label in zip(probabilities, labels, strict=True)])
            for probabilities in (one, two)
        ]
        expected = right[0] * right[1] + (1 - right[0]) * (1 - right[1]) / (CLASSES - 1)
        return float((observed - expected) / (1 - expected))

    expected = every_pair(capa, pairs.softmax(logits.astype(np.float64)))
    assert_allclose(pairs.capa(logits, labels), expected, rtol=0, atol=2e-6)


def test_hellinger_follows_its_definition(logits: np.ndarray) -> None:
    def distance(one: np.ndarray, two: np.ndarray) -> float:
        return float(np.mean(((np.sqrt(one) - np.sqrt(two)) ** 2).sum(1) / 2))

    expected = every_pair(distance, pairs.softmax(logits.astype(np.float64)))
    assert_allclose(pairs.hellinger(logits), expected, rtol=0, atol=2e-6)


def test_samples_in_blocks_give_the_same(
    logits: np.ndarray, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pairs.capa(logits, labels)
    monkeypatch.setattr(pairs, "_BLOCK", 7 * logits.shape[0] * CLASSES)
    assert_allclose(pairs.capa(logits, labels), whole, rtol=0, atol=1e-6)


def test_alpha_is_the_krippendorff_package_s(logits: np.ndarray) -> None:
    predictions = logits.argmax(2)
    predictions[1:4] = predictions[0]
    expected = krippendorff.alpha(predictions, level_of_measurement="nominal", value_domain=list(range(CLASSES)))
    assert_allclose(pairs.krippendorff(predictions, classes=CLASSES), expected, rtol=0, atol=1e-12)


def test_undefined_measures_are_nan() -> None:
    constant, right = np.zeros((2, 50), dtype=np.uint8), np.ones((2, 50), dtype=bool)
    assert np.isnan(pairs.kappa(constant, classes=3)).all()
    assert np.isnan(pairs.error_consistency(right)).all()
    assert np.isnan(pairs.krippendorff(constant, classes=3))
    assert np.array_equal(pairs.agreement(constant), np.ones((2, 2)))


def test_kappa_grows_with_accuracy_and_error_consistency_does_not() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 4, 20_000)
    found = {}
    for accuracy in (0.5, 0.9):
        wrong = generator.random((2, len(labels))) > accuracy
        predictions = np.where(wrong, (labels + generator.integers(1, 4, wrong.shape)) % 4, labels)
        found[accuracy] = (
            pairs.kappa(predictions, classes=4)[0, 1],
            pairs.error_consistency(predictions == labels)[0, 1],
        )
    assert found[0.9][0] > found[0.5][0] + 0.5
    assert abs(found[0.5][1]) < 0.03 > abs(found[0.9][1])
