"""Paths between models: ends, barriers, one module for all points, and barriers by contrast."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.weights.checkpoints import map_tensors, rewrite
from vitzoo import VitZooModel, Zoo, path
from vitzoo.analysis.merging.paths import barrier_of, barriers
from vitzoo.errors import DatasetError, EpochNotFoundError, SelectionError, WeightsError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.0, 1.0], 0.0),
        ([0.0, 3.0, 2.0], 2.0),  # 3 - (0 + 2) / 2
        ([2.0, 0.5, 2.0], 0.0),  # a valley has no barrier
        ([1.0, 2.0, 4.0, 8.0, 1.0], 7.0),
    ],
)
def test_barrier_is_the_largest_height_above_the_line(values: list[float], expected: float) -> None:
    assert barrier_of(np.linspace(0, 1, len(values)), np.array(values)) == expected


def test_ends_have_the_recorded_metrics_and_points_are_between(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    one, two = zoo["pt-0/ft-0"], zoo["pt-1/ft-0"]
    found: Any = path(one, two, points=3)
    assert found.points["part"].unique().tolist() == ["train", "val", "test"]
    for part in ("train", "val", "test"):
        own: Any = found.points[found.points["part"] == part]
        assert own["position"].tolist() == [0.0, 0.5, 1.0]
        for row, member in ((0, one), (2, two)):
            recorded = member.metrics_at()
            assert own["loss"].iloc[row] == getattr(recorded, f"{part}_loss")
            assert own["error"].iloc[row] == 1 - getattr(recorded, f"{part}_accuracy")
    matrix = zoo.weights(zoo.select(id=["pt-0/ft-0", "pt-1/ft-0"])).matrix(part="all")
    middle = matrix.to_model(matrix.values.astype(np.float64).mean(axis=0).astype(np.float32))
    expected = one.evaluate_model(middle, one.load_part("test"))
    test: Any = found.points[found.points["part"] == "test"]
    assert test["loss"].iloc[1] == expected.loss
    height = test["loss"].iloc[1] - (test["loss"].iloc[0] + test["loss"].iloc[2]) / 2
    assert found.barrier.loc["test", "loss"] == pytest.approx(max(0.0, height))
    assert len(repr(found)) < 200


def test_25_points_build_one_module(tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = VitZooModel.__init__
    monkeypatch.setattr(
        VitZooModel, "__init__", lambda self, *args, **kwargs: built.append(build(self, *args, **kwargs))
    )
    zoo = Zoo(tiny_zoo)
    assert len(path(zoo["pt-0/ft-0"], zoo["pt-1/ft-0"], parts=["test"]).points) == 25
    assert len(built) == 1


def test_path_to_itself_is_flat(tiny_zoo: Path) -> None:
    member = Zoo(tiny_zoo)["pt-0/ft-0"]
    found: Any = path(member, member, points=5, parts=["test"])
    assert found.points["loss"].nunique() == 1
    assert found.barrier.to_numpy().tolist() == [[0.0, 0.0]]


def test_ends_may_be_ids_and_models(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    found: Any = path(f"{tiny_zoo}/pt-0/ft-0@1", zoo["pt-0/ft-0"].load(epoch=2), points=3, parts=["val"])
    expected = path(zoo.select(id="pt-0/ft-0", epoch=1)[0], zoo["pt-0/ft-0"], points=3, parts=["val"])
    assert found.points.equals(expected.points)
    # A model without a member, such as an aligned one, at the second end.
    weights = zoo.weights(zoo.select(id="pt-1/ft-0")).matrix(part="all")
    aligned = path(zoo["pt-0/ft-0"], weights.to_model(0), points=3, parts=["test"])
    assert aligned.points.equals(path(zoo["pt-0/ft-0"], zoo["pt-1/ft-0"], points=3, parts=["test"]).points)


def test_masked_models_have_a_path(text_zoo: Path, sentences: Path) -> None:
    zoo = Zoo(text_zoo)
    member = next(member for member in zoo if member.record.head_role == "masked")
    data = {str(member.record.dataset): sentences}
    found: Any = path(f"{text_zoo}/{member.id}@1", member, points=2, parts=["val"], data=data)
    assert found.points["loss"].iloc[1] == member.metrics_at().val_loss


def test_what_has_no_path_is_refused(tiny_copy: Path, text_zoo: Path) -> None:
    zoo = Zoo(tiny_copy)
    child, model = zoo["pt-0/ft-0"], zoo.weights(zoo.select(id="pt-0/ft-0")).matrix(part="all").to_model(0)
    for one, two in (
        (child, zoo["pt-0/ft-1"]),  # an MLP head
        (child, zoo["pt-0"]),  # other classes
        (child, Zoo(text_zoo)["pt-0"]),
        (model, model),
        (child, "bert-base-cased"),
    ):
        with pytest.raises(SelectionError):
            path(one, two)
    for points in (1, 0, True):
        with pytest.raises(SelectionError):
            path(child, child, points=points)
    with pytest.raises(EpochNotFoundError):
        path(child, f"{tiny_copy}/pt-0/ft-0@9")
    with pytest.raises(DatasetError):
        path(zoo["pt-2"], zoo["pt-2"])
    with pytest.raises(DatasetError):
        path(child, child, parts=["dev"])
    rewrite(tiny_copy / "pt-1/ft-0", map_tensors(lambda tensor: torch.full_like(tensor, torch.nan)))
    with pytest.raises(WeightsError):
        path(child, zoo["pt-1/ft-0"])


def test_barriers_are_means_over_the_pairs_of_a_contrast(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    found: Any = barriers(zoo.select(stage="finetuning", epoch=[1, 2]), points=3).set_index(["contrast", "measure"])
    assert found.loc[("epoch", "loss"), "pairs"] == 8
    ids = [(str(member.id), str(member.id)) for member in zoo if not member.id.is_parent]
    each = [path(f"{tiny_zoo}/{one}@1", f"{tiny_zoo}/{two}@2", points=3, parts=["test"]).barrier for one, two in ids]
    assert found.loc[("epoch", "loss"), "barrier"] == pytest.approx(np.mean([own.loc["test", "loss"] for own in each]))
    assert found["low"].isna().all()  # two families
    assert found.loc[("parent, one initialisation", "loss"), "families"] == 1
    assert not any("head_type" in contrast for contrast, _ in found.index)
    fewer: Any = barriers(zoo.select(stage="finetuning", epoch=[1, 2]), points=2, pairs=3)
    assert fewer["pairs"].max() == 3
    assert (fewer["barrier"] == 0).all()  # both ends alone


def test_barriers_refuse_what_cannot_be_compared(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    for conditions in ({}, {"id": "pt-0/ft-0"}):
        with pytest.raises(SelectionError):
            barriers(zoo.select(**conditions))
    with pytest.raises(DatasetError):
        barriers(zoo.select(stage="pretraining"))
    with pytest.raises(SelectionError):
        barriers(zoo.select(stage="finetuning"), pairs=0)
    with pytest.raises(SelectionError):
        barriers(zoo.select(stage="finetuning").with_refs(()))


def test_digits_barriers_grow_from_epochs_to_seeds_to_families(digits_zoo: Path) -> None:
    selection = Zoo(digits_zoo).select(stage="finetuning", epoch=[6, 8])
    table: Any = barriers(selection, pairs=12, points=5)
    loss: Any = table[table["measure"] == "loss"].set_index("contrast")["barrier"]
    assert loss["epoch"] < 0.02
    assert loss["epoch"] < loss["learning_rate"] < loss["parent"]
    assert 0.1 < loss["seeds"] < 0.9
    assert loss["parent"] > 0.5
