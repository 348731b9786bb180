"""Merged models beside their baselines, over many groups."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitzoo import Zoo, merge
from vitzoo.analysis.merging.soups import compare_soups
from vitzoo.errors import SelectionError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_groups_have_the_numbers_of_single_merges(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    found: Any = compare_soups(zoo.select(stage="finetuning", epoch=[1, 2]), by=("id",), methods=("uniform", "greedy"))
    assert len(found.groups) == 8
    for row in found.groups.to_dict("records"):
        member = zoo[row["id"]]
        soup = merge(zoo.select(id=row["id"], epoch=[1, 2]))
        assert row["uniform"] == member.evaluate_model(soup.to_model(), member.load_part("test")).accuracy
        accuracies: list[Any] = [member.metrics_at(epoch).test_accuracy for epoch in (1, 2)]
        assert row["mean"] == pytest.approx(np.mean(accuracies))
        assert row["last"] == accuracies[1]
        records: list[Any] = [member.metrics_at(epoch) for epoch in (1, 2)]
        best = max(records, key=lambda record: (record.val_accuracy, -record.val_loss))
        assert row["best"] == best.test_accuracy
    differences: Any = found.differences.set_index(["model", "against"])
    expected = (found.groups["uniform"] - found.groups["best"]).mean()
    assert differences.loc[("uniform", "best"), "difference"] == pytest.approx(expected)
    assert differences.loc[("uniform", "best"), "families"] == 2
    assert differences["low"].isna().all()  # fewer than five families
    assert len(repr(found)) < 200


def test_unknown_and_single_groups_are_refused(tiny_zoo: Path) -> None:
    selection = Zoo(tiny_zoo).select(stage="finetuning")
    refused: list[Any] = [{"by": ("id",)}, {"by": ("heads",)}, {"methods": ("median",)}]
    for options in refused:
        with pytest.raises(SelectionError):
            compare_soups(selection, **options)
    grouped: Any = compare_soups(selection, by=("head_type", "head_seed"), methods=("uniform",))
    assert grouped.left_out + len(grouped.groups) == 4


@pytest.mark.filterwarnings("ignore:.*negative cosine")
def test_digits_soups_lose_and_averages_of_epochs_gain(digits_zoo: Path) -> None:
    zoo = Zoo(digits_zoo)
    found: Any = compare_soups(zoo.select(stage="finetuning"), methods=("uniform", "greedy", "stock"))
    assert len(found.groups) == 32
    differences: Any = found.differences.set_index(["model", "against"])
    best: Any = differences.xs("best", level="against")["difference"]
    assert -0.25 < best["uniform"] < -0.08
    assert -0.25 < best["stock"] < -0.08
    assert -0.02 < best["greedy"] < 0.015
    assert -0.005 < best["ensemble"] < 0.03
    assert (differences["families"] == 12).all()
    assert (differences["low"] < differences["high"]).all()
    epochs: Any = compare_soups(zoo.select(stage="finetuning", epoch=[6, 7, 8]), by=("id",), methods=("uniform",))
    gain: Any = epochs.differences.set_index(["model", "against"]).loc[("uniform", "last")]
    assert -0.005 < gain["difference"] < 0.025
