"""The running loss of an epoch, and the first step at which it is NaN or infinite."""

import math

import pytest
import torch

from training.member import train
from training.member.report import Diverged
from training.member.train import Watch
from training.ranks import Ranks


def watch_of(reports: list[tuple[int, float]], *, first_step: int = 0) -> Watch:
    def note(steps: int, loss: float, speed: float) -> None:
        assert speed > 0
        reports.append((steps, loss))

    return Watch(torch.device("cpu"), first_step=first_step, units_per_step=8, ranks=Ranks(), on_progress=note)


def test_end_returns_the_mean_loss() -> None:
    epoch = watch_of([])
    for loss in (1.0, 2.0, 6.0):
        epoch.step(torch.tensor(loss))
    mean, seconds = epoch.end()
    assert mean == 3.0
    assert seconds > 0


def test_progress_is_reported_during_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_PROGRESS_SECONDS", 0.0)
    reports: list[tuple[int, float]] = []
    epoch = watch_of(reports)
    for loss in (1.0, 2.0, 6.0):
        epoch.step(torch.tensor(loss))
    assert reports == [(1, 1.0), (2, 1.5), (3, 3.0)]


@pytest.mark.parametrize(("bad", "place"), [(math.nan, 0), (math.inf, 1), (-math.inf, 2)])
def test_end_names_the_first_step_that_is_not_finite(bad: float, place: int) -> None:
    losses = [1.0, 2.0, 3.0, math.nan]
    losses[place] = bad
    epoch = watch_of([], first_step=30)
    for loss in losses:
        epoch.step(torch.tensor(loss))
    with pytest.raises(Diverged) as error:
        epoch.end()
    assert (error.value.what, error.value.step) == ("the loss", 30 + place)


def test_epoch_stops_at_a_loss_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_PROGRESS_SECONDS", 0.0)
    epoch = watch_of([])
    epoch.step(torch.tensor(1.0))
    with pytest.raises(Diverged) as caught:
        epoch.step(torch.tensor(math.nan))
    assert caught.value.step == 1
