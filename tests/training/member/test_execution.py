"""Choices of a machine: checked when they are made; trackers log the metrics of metrics.jsonl."""

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


def test_on_a_cpu_nothing_is_compiled_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
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
    object.__setattr__(execution, field, value)  # past the constructor, where the tests' own type checks would be first
    with pytest.raises(FieldError) as caught:
        execution.__post_init__()
    assert caught.value.field == field


def test_decoders_share_the_cores_between_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Execution(loader_workers=3).decoders == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    assert Execution().decoders == 16
    assert [Execution().decoders_among(workers) for workers in (1, 4, 8, 100)] == [16, 16, 8, 1]
    assert Execution(loader_workers=3).decoders_among(8) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert Execution().decoders == 8
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert Execution().decoders == 1


def test_a_process_on_a_cpu_has_one_thread() -> None:
    prepare_process(Execution())
    assert torch.get_num_threads() == 1


def test_the_driver_of_a_run_imports_no_torch() -> None:
    program = "import sys, training.population.run, training.recipes\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


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
