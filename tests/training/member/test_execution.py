"""Choices of a machine are checked when they are made, and trackers log the metrics of metrics.jsonl."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny import tiny
from training.member.execution import Execution, check_trackers, prepare_process
from training.member.train import train_member
from training.recipes.plan import plan_member
from training.workspace import Workspace
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId
from vitzoo.records.fields import FieldError


def test_compile_mode_is_none_on_a_cpu_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Execution(compile="default").compile_mode == "default"
    assert Execution(compile="none").compile_mode == "none"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Execution().compile_mode == "none"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Execution().compile_mode == "default"


@pytest.mark.parametrize(
    ("field", "value"), [("compile", "fast"), ("accumulation", 0), ("loader_workers", -1), ("track", ("mlflow",))]
)
def test_execution_refuses_field_out_of_range(field: str, value: object) -> None:
    execution = Execution()
    object.__setattr__(execution, field, value)  # past the constructor, whose types beartype checks
    with pytest.raises(FieldError) as caught:
        execution.__post_init__()
    assert caught.value.field == field


def test_ranks_share_the_cores_for_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Execution(loader_workers=3).decoders == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    assert Execution().decoders == 16
    assert [Execution().decoders_among(workers) for workers in (1, 4, 8, 100)] == [16, 16, 8, 1]
    assert Execution(loader_workers=3).decoders_among(8) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert Execution().decoders == 8
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert Execution().decoders == 1


def test_process_on_a_cpu_has_one_thread() -> None:
    prepare_process(Execution())
    assert torch.get_num_threads() == 1


def test_driver_of_a_run_does_not_import_torch() -> None:
    program = "import sys, training.population.run, training.recipes\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_tensorboard_has_every_metric_of_every_epoch(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "zoo", tiny())
    for member in (MemberId(0), MemberId(2)):
        train_member(workspace, plan_member(tiny(), member), execution=Execution(track=("tensorboard",)))
        events = EventAccumulator(str(workspace.tracking_folder(member) / "zoo")).Reload()
        metrics = workspace.catalogue.epoch_records(member)
        for name in ("train_loss", "test_loss", "val_accuracy", "test_knn_accuracy", "weight_norm", "step"):
            recorded = [
                (record.epoch, getattr(record, name)) for record in metrics if getattr(record, name) is not None
            ]
            if not recorded:
                assert name not in events.Tags()["scalars"]
                continue
            logged = [(event.step, event.value) for event in events.Scalars(name)]
            assert logged == [(epoch, pytest.approx(value, rel=1e-6)) for epoch, value in recorded]


def test_members_are_tracked_in_a_folder_of_their_parent(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "zoo", tiny())
    folders = [workspace.tracking_folder(MemberId.parse(member)) for member in ("pt-1", "pt-1/ft-0")]
    assert [folder.relative_to(tmp_path / "zoo/.training/tracking").as_posix() for folder in folders] == [
        "pt-1",
        "pt-1/ft-0",
    ]


def test_missing_tracker_is_named() -> None:
    with pytest.raises(TrainingError) as error:
        check_trackers(("tensorboard", "wandb"))
    assert error.value.problem == "wandb is not installed"
    assert "pip install wandb" in (error.value.fix or "")
