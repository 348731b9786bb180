"""Language models on both engines, compiled and in bf16."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.text.tiny import MASKED, execution, tiny_text
from tests.training.population.folders import check_whole
from tests.training.population.processes import begin, end, kill_all, output_of
from training.member.train import train_member
from training.recipes.plan import plan_members
from training.workspace import Workspace
from vitzoo import Zoo
from vitzoo.records import load_epoch_records


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_two_workers_train_the_bytes_of_one_process(
    engine: str, text_zoo: Path, sentences: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "zoo"
    run = begin("tiny_text", folder, "--engine", engine, "--workers", "2", "--data", f"animals={sentences}")
    try:
        assert end(run) == 0, output_of(run)
    finally:
        kill_all(run)
    check_whole(folder, text_zoo)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")  # torch's own, at its import
def test_compiled_training_is_the_eager_one_to_rounding(
    sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    recipe = tiny_text()
    plain = replace(recipe.parents[0], training=replace(MASKED, dropout=0.0))  # compiled dropout draws other numbers
    recipe = replace(recipe, parents=(plain, recipe.parents[1]))
    planned, metrics = plan_members(recipe)[0], {}
    for mode in ("none", "default"):
        options = replace(execution(sentences), compile=mode)
        record = train_member(Workspace(tmp_path / mode, recipe), planned, execution=options)
        assert (record.compile, record.status) == (mode, "completed")
        metrics[mode] = load_epoch_records(tmp_path / mode / "pt-0" / "metrics.jsonl")
    for ours, theirs in zip(metrics["default"], metrics["none"], strict=True):
        for name in ("train_loss", "val_loss", "weight_norm", "distance_from_start"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-4), name
    torch.compiler.reset()


def test_bf16_members_are_measured_as_recorded(sentences: Path, tmp_path: Path) -> None:
    recipe = tiny_text()
    parents = tuple(
        replace(parent, training=replace(parent.training, precision="bf16", epochs=1)) for parent in recipe.parents
    )
    recipe = replace(recipe, parents=parents)
    root, data = tmp_path / "zoo", {"animals": sentences}
    for planned in (planned for planned in plan_members(recipe) if planned.id.is_parent):
        train_member(Workspace(root, recipe), planned, execution=execution(sentences))
    members = list(Zoo(root))
    assert len(members) == 2
    for member in members:
        assert member.record.precision == "bf16"
        evaluation = member.evaluate(part="val", data=data)
        assert (evaluation.loss, evaluation.accuracy) == (
            member.metrics_at().val_loss,
            member.metrics_at().val_accuracy,
        )
