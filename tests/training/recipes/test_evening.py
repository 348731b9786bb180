"""The evening zoo: its plan and its cost, and a shrunken one on generated images."""

import re
from pathlib import Path

import pytest

from tests.shrunken import HELD_OUT, shrunken_evening, write_cifars
from training.member.execution import Execution
from training.member.train import train_member
from training.recipes.cost import estimate
from training.recipes.evening import evening, evening_self_supervised
from training.recipes.plan import plan_members
from training.recipes.retention import Retention
from training.workspace import Workspace
from vitzoo.data.known import KNOWN, complete
from vitzoo.tables.catalogue import write_tables
from vitzoo.zoo.zoo import Zoo

PLANNED = plan_members(evening())
RATE = 28_000  # images a second of a card, assumed


def test_evening_has_the_structure_of_the_paper() -> None:
    parents = [member for member in PLANNED if member.id.is_parent]
    assert [member.training.objective for member in parents] == ["supervised"] * 7 + ["contrastive"] * 3
    assert len(PLANNED) == 250
    for parent in parents:
        children = [member for member in PLANNED if member.id.parent_id == parent.id]
        grid = {(child.head, child.training.optimizer, child.replicate) for child in children}
        assert (len(children), len(grid)) == (24, 24)
        assert {child.init_group for child in children} == {parent.init_group}
    assert len({parent.init_group for parent in parents}) == 10


def test_evening_takes_four_hours_and_less_than_60_gb() -> None:
    assert all(4.5e6 < member.num_parameters < 5.5e6 for member in PLANNED)
    costs = [estimate(PLANNED, throughput=RATE, keep=Retention(keep)) for keep in ("every-3", "all", "last")]
    cost, sizes = costs[0], [cost.bytes / 1e9 for cost in costs]
    assert cost.hours == pytest.approx(4.0, abs=0.1)
    assert cost.bytes <= 60e9
    described = re.sub(r"\s+", " ", str(evening.__doc__))
    assert f"one H200 at {RATE:,} images/s" in described
    assert f"{cost.hours:.1f} hours. {sizes[0]:.0f} GB with every third epoch" in described
    assert f"{sizes[1]:.0f} GB with all, {sizes[2]:.1f} GB with the last alone" in described
    assert "--keep every-3 --members-per-gpu auto``" in described


def test_self_supervised_evening_has_other_parents_and_equal_children() -> None:
    planned = plan_members(evening_self_supervised())
    objectives = [member.training.objective for member in planned if member.id.is_parent]
    assert objectives == ["autoencoding"] * 5 + ["distillation"] * 5
    children = [member for member in planned if not member.id.is_parent]
    assert [child.training for child in children] == [child.training for child in PLANNED if not child.id.is_parent]
    assert all(4.5e6 < member.num_parameters < 5.5e6 for member in planned)


def test_evening_saves_the_last_epoch_in_the_row_of_the_others() -> None:
    assert {member.training.epochs % 3 for member in PLANNED} == {0}


def test_data_sets_of_evening_are_known_by_name() -> None:
    known = {entry.alias: entry.spec for entry in KNOWN}
    assert {member.training.dataset.name for member in PLANNED if member.id.is_parent} == {known["cifar10"].name}
    assert {member.training.dataset.name for member in PLANNED if not member.id.is_parent} == {known["cifar100"].name}
    for member in PLANNED:
        spec = member.training.dataset.images
        assert complete(spec) == spec
        assert member.training.dataset.n_train + spec.held_out == 50_000


def test_shrunken_evening_is_trained(tmp_path: Path) -> None:
    folders, workspace = write_cifars(tmp_path), Workspace(tmp_path / "zoo", shrunken_evening())
    for planned in plan_members(shrunken_evening()):
        train_member(workspace, planned, execution=Execution(data=folders, keep=Retention("every-3")))
    write_tables(workspace.source)
    zoo = Zoo(tmp_path / "zoo")
    rows = zoo.table("members").to_pylist()
    assert [row["status"] for row in rows] == ["completed"] * 10
    assert [row["objective"] for row in rows if row["stage"] == "pretraining"] == ["supervised", "contrastive"]
    assert {(row["stage"], row["dataset"]) for row in rows} == {
        ("pretraining", "uoft-cs/cifar10"),
        ("finetuning", "uoft-cs/cifar100"),
    }
    assert {(row["precision"], row["n_val"]) for row in rows} == {("bf16", HELD_OUT)}
    assert {(row["head_type"], row["optimizer"]) for row in rows if row["stage"] == "finetuning"} == {
        (head, optimizer) for head in ("linear", "mlp") for optimizer in ("adamw", "sgd")
    }
    assert zoo["pt-1/ft-3"].epochs == [0, 3]
    again = zoo["pt-1/ft-3"].evaluate(data=folders)
    assert again.accuracy == zoo["pt-1/ft-3"].metrics_at().test_accuracy
    assert again.loss == zoo["pt-1/ft-3"].metrics_at().test_loss
