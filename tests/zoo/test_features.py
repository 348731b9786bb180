"""Selections as data frames, as features for scikit-learn, and as sets."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_score

from vitzoo import MemberRef, Selection, Zoo
from vitzoo.errors import RepresentationError, SelectionError


@pytest.fixture
def zoo(tiny_zoo: Path) -> Zoo:
    return Zoo(tiny_zoo)


def names(selection: Selection) -> list[str]:
    return [str(MemberRef(ref.member, None, ref.epoch)) for ref in selection]


class TestToPandas:
    """A data frame with a row for each checkpoint."""

    def test_rows_are_the_joined_tables_in_the_selection_s_order(self, zoo: Zoo) -> None:
        chosen = zoo.select(epoch=[0, 2])[::-1]
        found = chosen.to_pandas()
        assert found["ref"].tolist() == names(chosen)
        assert list(found)[:2] == ["ref", "id"]
        members, epochs = zoo.table("members").to_pandas(), zoo.table("epochs").to_pandas()
        shared = ["learning_rate", "bytes"]
        epochs = epochs.rename(columns={name: f"epoch_{name}" for name in shared})
        expected = members.merge(epochs, on="id").set_index(["id", "epoch"])
        again = found.drop(columns="ref").set_index(["id", "epoch"])
        pd.testing.assert_frame_equal(again.sort_index(), expected.loc[again.index].sort_index())

    def test_final_weights_have_the_last_epoch_and_none_is_an_empty_frame(self, zoo: Zoo) -> None:
        chosen = zoo.select(id="pt-0/ft-1")
        assert chosen.to_pandas()[["ref", "epoch"]].to_numpy().tolist() == [["pt-0/ft-1", 2]]
        empty = chosen[:0].to_pandas()
        assert (len(empty), list(empty)) == (0, list(chosen.to_pandas()))


class TestToXY:
    """Features, a target and groups."""

    def test_rows_are_those_of_the_selection(self, zoo: Zoo) -> None:
        chosen = zoo.select(stage="finetuning", epoch=[1, 2])[::-1]
        X, y, groups, ids = chosen.to_xy("test_accuracy")
        assert ids.tolist() == names(chosen)
        assert y.tolist() == np.float32(chosen.epochs_table["test_accuracy"].to_pylist()).tolist()
        # pt-0 and pt-1 share an initialisation
        family = {"pt-0": "pt-0", "pt-1": "pt-0", "pt-2": "pt-2"}
        assert groups.tolist() == [family[str(ref.member.parent_id)] for ref in chosen]
        matrix = zoo.weights(chosen).matrix()
        tensor = matrix.values[3, matrix.index["vit.layernorm.bias"].span].astype(np.float64)
        start = 7 * list(matrix.index).index("vit.layernorm.bias")
        expected = [tensor.mean(), tensor.var(), *np.quantile(tensor, [0, 0.25, 0.5, 0.75, 1])]
        np.testing.assert_allclose(X[3, start : start + 7], expected, rtol=1e-6)
        flat = chosen.to_xy("gap", representation="flat")
        assert np.array_equal(flat.X, matrix.values)
        assert repr(flat).startswith("FeaturesAndTarget(X=float32[16, ")

    def test_groups_keep_scikit_learn_s_folds_free_of_leaks(self, zoo: Zoo) -> None:
        X, y, groups, ids = zoo.select(stage="finetuning", epoch="all").to_xy("test_accuracy")
        folds = list(GroupKFold(2).split(X, y, groups))
        assert len(folds) == 2
        for train, test in folds:
            zoo.assert_no_leaks({"train": set_of(ids[train]), "test": set_of(ids[test])}, init_groups="apart")
        assert np.isfinite(cross_val_score(Ridge(), X, y, groups=groups, cv=GroupKFold(2))).all()

    def test_texts_and_whole_numbers_are_targets(self, zoo: Zoo) -> None:
        chosen = zoo.select()
        assert chosen.to_xy("optimizer").y.tolist() == chosen.to_pandas()["optimizer"].tolist()
        assert chosen.to_xy("head_seed").y.dtype == np.int64

    def test_checkpoints_without_a_value_are_refused_or_dropped(
        self, zoo: Zoo, caplog: pytest.LogCaptureFixture
    ) -> None:
        chosen = zoo.select()  # pt-2 is an embedding
        with pytest.raises(SelectionError) as caught:
            chosen.to_xy("test_accuracy")
        assert caught.value.problem.startswith("1 of 11 checkpoints")
        assert "pt-2" in caught.value.problem
        with caplog.at_level(logging.WARNING):
            found = chosen.to_xy("test_accuracy", missing="drop")
        assert found.ids.tolist() == [name for name in names(chosen) if name != "pt-2"]
        assert "1 of 11" in caplog.text
        with pytest.raises(SelectionError):
            zoo.select(id="pt-2").to_xy("test_accuracy", missing="drop")
        parents = zoo.select(stage="pretraining")
        with pytest.raises(SelectionError):
            parents.to_xy("parent", missing="drop")

    def test_other_arguments_are_refused(self, zoo: Zoo) -> None:
        chosen: Any = zoo.select(stage="finetuning")
        with pytest.raises(SelectionError):
            chosen.to_xy("test_acuracy")
        with pytest.raises(RepresentationError):
            chosen.to_xy("gap", representation="graph")
        with pytest.raises(SelectionError):
            chosen.to_xy("gap", missing="keep")
        with pytest.raises(SelectionError):
            chosen[:0].to_xy("gap")


def set_of(ids: np.ndarray) -> list[str]:
    return sorted({str(name).partition("@")[0] for name in ids})


class TestSets:
    """Unions, intersections and differences."""

    def test_results_are_python_s_sets_in_the_order_of_members_and_epochs(self, zoo: Zoo) -> None:
        one = zoo.select(parent="pt-0", epoch=[0, 1])[::-1]
        other = zoo.select(head_type="mlp", stage="finetuning", epoch=[1, 0])
        refs, others = set(one), set(other)
        for found, expected in (
            (one | other, refs | others),
            (one & other, refs & others),
            (one - other, refs - others),
            (one ^ other, refs ^ others),
        ):
            assert list(found) == sorted(expected, key=lambda ref: (ref.member, ref.epoch))
            assert 0 < len(found) < 16
        assert len(one - one) == 0
        assert (one | one) == one[::-1]

    def test_final_weights_and_the_last_epoch_are_one_checkpoint(self, zoo: Zoo) -> None:
        final, last = zoo.select(parent="pt-0"), zoo.select(parent="pt-0", epoch=2)
        assert final != last
        assert len(final | last) == len(final) == 4
        assert (final & last) == final
        assert (last & final) == last
        assert len(final ^ last) == len(final - last) == 0

    def test_other_zoo_and_other_types_are_refused(self, zoo: Zoo, text_zoo: Path, tiny_zoo: Path) -> None:
        chosen = zoo.select()
        with pytest.raises(SelectionError):
            _ = chosen | Zoo(text_zoo).select()
        with pytest.raises(TypeError):
            _ = chosen | [1]  # pyright: ignore[reportOperatorIssue]
        assert (chosen & Zoo(tiny_zoo).select(id="pt-0")) == chosen[:1]
