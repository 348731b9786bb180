"""Targets of a data set compared with the members' own records and metrics."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vitzoo import Zoo
from vitzoo.errors import SelectionError
from vitzoo.weights.learning.dataset import WeightsDataset


@pytest.fixture
def zoo(tiny_zoo: Path) -> Zoo:
    return Zoo(tiny_zoo)


def test_metrics_are_those_of_the_checkpoint(zoo: Zoo) -> None:
    columns = ("test_accuracy", "test_loss", "epoch", "step", "train_accuracy", "gap")
    data = WeightsDataset(zoo.weights(zoo.select(epoch="all")), targets=columns)
    assert data.classes == {}
    without = []
    for row, ref in enumerate(data.weights.refs):
        record = zoo[ref.member].metrics_at(ref.epoch)
        for name in columns[:-1]:
            value = getattr(record, name)
            expected = torch.tensor(np.nan if value is None else value, dtype=data.targets[name].dtype)
            torch.testing.assert_close(data[row][name], expected, rtol=0, atol=0, equal_nan=True)
        if record.test_accuracy is None:
            assert data[row]["gap"].isnan()
            without.append(str(ref.member))
        else:
            assert record.train_accuracy is not None
            assert data[row]["gap"] == np.float32(record.train_accuracy - record.test_accuracy)
    assert {name: values.dtype for name, values in data.targets.items()} == {
        **dict.fromkeys(columns, torch.float32),
        **dict.fromkeys(("epoch", "step"), torch.int64),
    }
    assert without == ["pt-2"] * 3  # an embedding has no accuracy
    assert torch.equal(torch.stack([data[row]["test_loss"] for row in range(33)]), data.targets["test_loss"])


def test_metrics_of_final_weights_are_those_of_the_last_epoch(zoo: Zoo) -> None:
    data = WeightsDataset(zoo.weights(), targets=["epoch", "gap", "final_test_loss", "test_loss"])
    assert data.targets["epoch"].tolist() == [2.0] * 11
    assert torch.equal(data.targets["test_loss"], data.targets["final_test_loss"])
    rows = zoo.select().members_table["gap"].to_pylist()
    assert data.targets["gap"][0] == np.float32(rows[0])


def test_whole_numbers_are_not_rounded(tiny_copy: Path) -> None:
    for member, seed in (("pt-0", 20261123), ("pt-1", 20261124)):
        for file in (tiny_copy / member).rglob("member.json"):
            record = json.loads(file.read_text())
            file.write_text(json.dumps(record | {"init_seed": seed}))
    zoo = Zoo(tiny_copy)
    columns = ("init_seed", "head_width", "learning_rate")
    found = WeightsDataset(zoo.weights(zoo.select(id=["pt-0", "pt-1"])), targets=columns).targets
    assert found["init_seed"].dtype == torch.int64
    assert found["init_seed"].tolist() == [20261123, 20261124]
    assert found["learning_rate"].dtype == torch.float32
    assert found["head_width"].dtype == torch.float64  # a linear head has none
    assert found["head_width"].isnan().all()
    mlp = WeightsDataset(zoo.weights(zoo.select(head_type="mlp")), targets=columns).targets
    assert mlp["head_width"].dtype == torch.int64


def test_factors_are_those_of_the_member(zoo: Zoo) -> None:
    factors = ("learning_rate", "head_width", "head_seed", "replicate", "momentum", "batch_size")
    data = WeightsDataset(zoo.weights(zoo.select(epoch=[0, 2])), targets=factors)
    for row, ref in enumerate(data.weights.refs):
        for name in factors:
            value = zoo[ref.member].factors[name]
            expected = torch.tensor(np.nan if value is None else value, dtype=data.targets[name].dtype)
            torch.testing.assert_close(data[row][name], expected, rtol=0, atol=0, equal_nan=True)
    assert sorted(set(data.targets["learning_rate"].tolist())) == pytest.approx([0.003, 0.05])


def test_classes_mean_the_same_in_every_part(zoo: Zoo) -> None:
    columns = ("optimizer", "parent", "pretraining_objective", "objective", "head_role", "id", "init_group")
    everything = WeightsDataset(zoo.weights(), targets=columns)
    assert everything.classes["optimizer"] == ["adamw", "sgd"]
    assert everything.classes["parent"] == ["pt-0", "pt-1", "pt-2"]
    assert everything.classes["objective"] == ["contrastive", "supervised"]
    assert everything.classes["id"] == [str(member.id) for member in zoo]
    for part in zoo.splits("by_parent", folds=2)[0].of(zoo.select()).values():
        data = WeightsDataset(zoo.weights(part), targets=columns)
        assert data.classes == everything.classes
        for row, ref in enumerate(part):
            record, item = zoo[ref.member].record, data[row]
            origin = zoo[ref.member].parent or zoo[ref.member]
            named = {name: classes[item[name]] for name, classes in data.classes.items() if item[name] >= 0}
            assert named == {
                "optimizer": record.optimizer,
                **({} if record.parent is None else {"parent": record.parent}),
                "pretraining_objective": origin.record.objective,
                "objective": origin.record.objective,  # as Zoo.select and Zoo.splits mean it
                "head_role": record.head_role,
                "id": record.id,
                "init_group": record.init_group,
            }
            assert (item["parent"] == -100) == (record.parent is None)


def test_a_loss_ignores_members_without_a_class(zoo: Zoo) -> None:
    batch = next(iter(DataLoader(WeightsDataset(zoo.weights(), targets="parent"), batch_size=11)))
    loss = torch.nn.functional.cross_entropy(torch.zeros(11, 3), batch["parent"], reduction="sum")
    torch.testing.assert_close(loss, torch.tensor(8 * np.log(3)).float())


def test_ids_are_in_the_order_of_their_numbers(tiny_copy: Path) -> None:
    for old, new in (("pt-1", "pt-10"), ("pt-2", "pt-9")):
        (tiny_copy / old).rename(tiny_copy / new)
        for file in (tiny_copy / new).rglob("member.json"):
            file.write_text(file.read_text().replace(f'"{old}', f'"{new}'))
    zoo = Zoo(tiny_copy)
    assert WeightsDataset(zoo.weights(), targets="parent").classes["parent"] == ["pt-0", "pt-9", "pt-10"]


def test_unknown_targets_are_refused(zoo: Zoo) -> None:
    with pytest.raises(SelectionError, match="test_accuracy") as error:
        WeightsDataset(zoo.weights(), targets=["accuracy"])
    assert error.value.value == "accuracy"
    with pytest.raises(SelectionError, match="lists"):
        WeightsDataset(zoo.weights(), targets=["classes"])
    assert sorted(WeightsDataset(zoo.weights(), targets=())[0]) == ["ref", "weights"]
