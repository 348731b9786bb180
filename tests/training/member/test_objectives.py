"""Losses against cases done by hand, and nearest neighbours against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from training.member.objectives import info_nce, knn_accuracy, soft_cross_entropy


def test_soft_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    targets = torch.tensor([[0.3, 0.7], [0.5, 0.5]])
    # log 2 for the first; 1/2 log 4/3 + 1/2 log 4 for the second
    expected = (math.log(2) + 0.5 * math.log(4 / 3) + 0.5 * math.log(4)) / 2
    assert soft_cross_entropy(logits, targets).item() == pytest.approx(expected, rel=1e-6)


def test_soft_cross_entropy_is_computed_in_float32() -> None:
    assert soft_cross_entropy(torch.zeros(2, 3, dtype=torch.bfloat16), torch.full((2, 3), 1 / 3)).dtype == torch.float32


def test_info_nce_by_hand() -> None:
    # Two images along two axes, their second views alike but longer: cosine 1 with the pair, 0 with both others.
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 0.0], [0.0, 7.0]])
    for temperature in (0.5, 1.0):
        expected = -math.log(math.exp(1 / temperature) / (math.exp(1 / temperature) + 2))
        assert info_nce(embeddings, temperature=temperature).item() == pytest.approx(expected, rel=1e-6)


def test_info_nce_is_its_definition() -> None:
    views = torch.randn(10, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms = []
    for i in range(10):
        cosines = [torch.cosine_similarity(views[i], views[k], dim=0).item() / 0.2 for k in range(10)]
        others = sum(math.exp(cosine) for k, cosine in enumerate(cosines) if k != i)
        terms.append(-math.log(math.exp(cosines[(i + 5) % 10]) / others))
    assert info_nce(views, temperature=0.2).item() == pytest.approx(sum(terms) / 10, rel=1e-5)


def test_info_nce_at_chance() -> None:
    assert info_nce(torch.ones(8, 3), temperature=0.07).item() == pytest.approx(math.log(7), rel=1e-6)


def test_info_nce_has_a_gradient_everywhere() -> None:
    views = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    info_nce(views, temperature=0.1).backward()
    assert views.grad is not None
    assert (views.grad.abs().sum(1) > 0).all()
    assert torch.allclose((views.grad * views).sum(1), torch.zeros(8), atol=1e-5)  # length does not matter


@pytest.mark.parametrize("views", [0, 2, 3, 5])
def test_info_nce_refuses_views_that_are_not_pairs(views: int) -> None:
    with pytest.raises(ValueError, match=f"{views} views; expected an even number from 4 on"):
        info_nce(torch.randn(views, 4), temperature=0.1)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_info_nce_refuses_temperatures_that_are_not_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature is {temperature}; expected a number above 0"):
        info_nce(torch.randn(4, 4), temperature=temperature)


@pytest.mark.parametrize("neighbours", [1, 5, 20])
def test_knn_accuracy_is_scikit_learns(neighbours: int) -> None:
    pixels, digits = load_digits(return_X_y=True)
    features, labels = np.asarray(pixels, dtype=np.float32), np.asarray(digits)
    classifier = KNeighborsClassifier(neighbours, metric="cosine").fit(features[:500], labels[:500])
    votes = classifier.predict_proba(features[500:])
    untied = (votes == votes.max(1, keepdims=True)).sum(1) == 1  # scikit-learn breaks ties by the smaller label
    expected = classifier.score(features[500:][untied], labels[500:][untied])
    found = knn_accuracy(
        torch.from_numpy(features[:500]),
        torch.from_numpy(labels[:500]),
        torch.from_numpy(features[500:][untied]),
        torch.from_numpy(labels[500:][untied]),
        neighbours=neighbours,
    )
    assert untied.sum() > 1200  # more than one chunk
    assert found == pytest.approx(expected, abs=1e-9)


def test_ties_go_to_the_nearer_class() -> None:
    degrees = torch.tensor([2.0, 5.0, 6.0, 9.0, 60.0]).deg2rad()
    train = torch.stack((degrees.cos(), degrees.sin()), dim=1) * torch.tensor([[3.0], [1], [1], [1], [1]])
    labels = torch.tensor([4, 7, 7, 4, 1])
    test = torch.tensor([[1.0, 0.0]])
    assert knn_accuracy(train, labels, test, torch.tensor([4]), neighbours=4) == 1.0  # two each, class 4 nearest
    assert knn_accuracy(train, labels, test, torch.tensor([7]), neighbours=3) == 1.0  # two against one
    assert knn_accuracy(train, labels, test, torch.tensor([1]), neighbours=1) == 0.0


@pytest.mark.parametrize("neighbours", [0, 4])
def test_knn_accuracy_refuses_neighbours_that_are_not_there(neighbours: int) -> None:
    features, labels = torch.eye(3), torch.arange(3)
    with pytest.raises(ValueError, match=f"neighbours is {neighbours}; expected 1 to 3"):
        knn_accuracy(features, labels, features, labels, neighbours=neighbours)


def test_knn_accuracy_refuses_an_empty_test() -> None:
    features, labels = torch.eye(3), torch.arange(3)
    with pytest.raises(ValueError, match="0 test features; expected at least 1"):
        knn_accuracy(features, labels, features[:0], labels[:0], neighbours=1)
