"""The running loss of an epoch, and the first step at which it was not finite."""

import math

import pytest
import torch

from training.member import train
from training.member.report import Diverged
from training.member.train import Watch
from training.ranks import Ranks


def watch_of(looks: list[tuple[int, float]], *, first_step: int = 0) -> Watch:
    def look(steps: int, loss: float, speed: float) -> None:
        assert speed > 0
        looks.append((steps, loss))

    return Watch(torch.device("cpu"), first_step=first_step, images_per_step=8, ranks=Ranks(), look=look)


def test_the_mean_of_the_steps() -> None:
    epoch = watch_of([])
    for loss in (1.0, 2.0, 6.0):
        epoch.step(torch.tensor(loss))
    mean, seconds = epoch.end()
    assert mean == 3.0
    assert seconds > 0


def test_it_looks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_SECONDS_BETWEEN_LOOKS", 0.0)
    looks: list[tuple[int, float]] = []
    epoch = watch_of(looks)
    for loss in (1.0, 2.0, 6.0):
        epoch.step(torch.tensor(loss))
    assert looks == [(1, 1.0), (2, 1.5), (3, 3.0)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_first_step_that_is_not_finite_is_named(bad: float, place: int) -> None:
    losses = [1.0, 2.0, 3.0, math.nan]
    losses[place] = bad
    epoch = watch_of([], first_step=30)
    for loss in losses:
        epoch.step(torch.tensor(loss))
    with pytest.raises(Diverged, match=f"the loss is not finite after step {30 + place}") as caught:
        epoch.end()
    assert caught.value.step == 30 + place


def test_an_epoch_is_not_trained_to_its_end_with_a_loss_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_SECONDS_BETWEEN_LOOKS", 0.0)
    epoch = watch_of([])
    epoch.step(torch.tensor(1.0))
    with pytest.raises(Diverged) as caught:
        epoch.step(torch.tensor(math.nan))
    assert caught.value.step == 1
