"""Test losses against hand-computed cases."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import SUPERVISED
from training.batch import Batch
from training.objectives import info_nce, training_loss


def supervised_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of a model that gives these logits."""
    model = nn.Module()
    model.forward = lambda pixel_values: SimpleNamespace(logits=logits)
    batch = Batch(inputs={"pixel_values": torch.zeros(len(logits), 3, 8, 8)}, targets=targets)
    return training_loss(model, batch, SUPERVISED)


def test_supervised_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    targets = torch.tensor([[0.3, 0.7], [0.5, 0.5]])
    # log 2 for the first; 1/2 log 4/3 + 1/2 log 4 for the second
    expected = (math.log(2) + 0.5 * math.log(4 / 3) + 0.5 * math.log(4)) / 2
    assert supervised_loss(logits, targets).item() == pytest.approx(expected, rel=1e-6)


def test_supervised_loss_is_computed_in_float32() -> None:
    assert supervised_loss(torch.zeros(2, 3, dtype=torch.bfloat16), torch.full((2, 3), 1 / 3)).dtype == torch.float32


def test_info_nce_by_hand() -> None:
    # Two images along two axes, their second views alike but longer: cosine 1 with the pair, 0 with both others.
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 0.0], [0.0, 7.0]])
    for temperature in (0.5, 1.0):
        expected = -math.log(math.exp(1 / temperature) / (math.exp(1 / temperature) + 2))
        assert info_nce(embeddings, temperature=temperature).item() == pytest.approx(expected, rel=1e-6)


def test_info_nce_agrees_with_the_definition() -> None:
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
