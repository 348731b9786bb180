"""Trackers are told what metrics.jsonl says."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny import tiny
from training.member.execution import Execution
from training.member.tracking import check_trackers
from training.member.train import train_member
from training.recipes.plan import plan_member
from training.workspace import Workspace
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId


def test_tensorboard_has_every_figure_of_every_epoch(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "zoo", tiny())
    for member in (MemberId(0), MemberId(2)):
        train_member(workspace, plan_member(tiny(), member), execution=Execution(track=("tensorboard",)))
        events = EventAccumulator(str(workspace.tracking_folder(member) / "zoo")).Reload()
        metrics = workspace.catalogue.epoch_records(member)
        for name in ("train_loss", "test_loss", "val_accuracy", "test_knn_accuracy", "weight_norm", "step"):
            known = [(record.epoch, getattr(record, name)) for record in metrics if getattr(record, name) is not None]
            if not known:
                assert name not in events.Tags()["scalars"]
                continue
            told = [(event.step, event.value) for event in events.Scalars(name)]
            assert told == [(epoch, pytest.approx(value, rel=1e-6)) for epoch, value in known]


def test_a_tracker_that_is_not_installed_is_named() -> None:
    with pytest.raises(TrainingError, match="wandb is not installed: pip install wandb, or leave out --track wandb"):
        check_trackers(("tensorboard", "wandb"))


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ValueError, match=r'track is "tensorbord"; expected .* Nearest: tensorboard'):
        Execution(track=("tensorbord",))
