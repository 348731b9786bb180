"""Scaling compared with numpy on the stacked matrix, fitted on train alone, saved and read again."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.weights.checkpoints import Tensors, map_tensors, rewrite, weights_of
from vitzoo import Zoo
from vitzoo.errors import (
    FormatVersionError,
    LeakError,
    RecordError,
    RepresentationError,
    SelectionError,
    WeightsError,
)
from vitzoo.records import layout
from vitzoo.splits.folds import Fold
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.learning.scaling import Scaling, fit_scaling
from vitzoo.weights.population import PopulationWeights
from vitzoo.weights.representations.statistics import LayerStatistics

NORM = "vit.layernorm.weight"
GROUP = Scaling(
    names=("classifier.weight", "classifier.bias"),
    sizes=(3, 1),
    mean=(1.0, -2.0),
    std=(0.5, 4.0),
    fitted_on=("pt-0@1", "pt-0/ft-2"),
    scheme="by_parent",
    fold="0",
    parts={"pt-0": "train", "pt-0/ft-2": "train", "pt-1": "test"},
)


@pytest.fixture
def zoo(tiny_zoo: Path) -> Zoo:
    return Zoo(tiny_zoo)


@pytest.fixture
def fold(zoo: Zoo) -> Fold:
    return zoo.splits("by_parent", folds=2)[0]


def change_weights(root: Path, members: Sequence[str], change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for member in members:
        rewrite(root / member, map_tensors(change))


def stacked(weights: PopulationWeights) -> np.ndarray:
    return weights.matrix(dtype="float64").values


class TestFit:
    def test_groups_are_tensors(self, zoo: Zoo) -> None:
        weights = zoo.weights(zoo.select(epoch="all"))
        scaling, index, values = fit_scaling(weights), weights.index(), stacked(weights)
        assert (scaling.names, scaling.sizes) == (tuple(index), tuple(entry.size for entry in index.values()))
        for entry, mean, std in zip(index.values(), scaling.mean, scaling.std, strict=True):
            np.testing.assert_allclose(mean, values[:, entry.span].mean(), rtol=1e-12, atol=1e-16)
            np.testing.assert_allclose(std, values[:, entry.span].std() or 1.0, rtol=1e-12)
        assert len(scaling.fitted_on) == 33
        assert scaling.fitted_on[:2] == ("pt-0@0", "pt-0@1")

    def test_groups_are_the_tensors_of_a_part(self, zoo: Zoo) -> None:
        weights = zoo.weights(zoo.select(head_type="mlp"))
        scaling, matrix = fit_scaling(weights, "tokens", part="head"), weights.matrix(part="head", dtype="float64")
        assert scaling.names == tuple(matrix.index)
        last = matrix.values[:, matrix.index[scaling.names[-1]].span]
        np.testing.assert_allclose(scaling.mean[-1], last.mean())

    def test_groups_are_the_features_of_statistics(self, zoo: Zoo) -> None:
        weights = zoo.weights(zoo.select())
        statistics = LayerStatistics(weights.index())
        values = np.stack([statistics.encode(vector) for _, vector in weights.iter_vectors()])
        scaling = fit_scaling(weights, "statistics")
        assert (scaling.names, set(scaling.sizes)) == (tuple(statistics.names), {1})
        np.testing.assert_allclose(scaling.mean, values.mean(0), rtol=1e-12, atol=1e-15)
        spread = values.std(0)
        constant = (values == values[0]).all(0)
        np.testing.assert_allclose(np.array(scaling.std)[~constant], spread[~constant], rtol=1e-9)
        assert set(np.array(scaling.std)[constant].tolist()) <= {1.0}
        standard = scaling.scale(values)
        np.testing.assert_allclose(standard.mean(0), 0, atol=1e-7)
        np.testing.assert_allclose(standard.std(0)[~constant], 1, rtol=1e-9)

    def test_a_large_offset_loses_no_digits(self, tiny_copy: Path) -> None:
        generator = torch.Generator().manual_seed(0)

        def change(tensor: torch.Tensor) -> torch.Tensor:
            return 1e4 + 1e-3 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)

        members = ["pt-0", "pt-1", "pt-0/ft-0"]
        change_weights(tiny_copy, members, change)
        weights = weights_of(tiny_copy, id=members)
        scaling, values = fit_scaling(weights), stacked(weights).astype(np.longdouble)
        for entry, mean, std in zip(weights.index().values(), scaling.mean, scaling.std, strict=True):
            group = values[:, entry.span]
            np.testing.assert_allclose(mean, float(group.mean()), rtol=1e-15)
            np.testing.assert_allclose(std, float(group.std()), rtol=1e-9)
        standard = scaling.scale(stacked(weights))
        assert abs(standard.mean()) < 1e-8
        np.testing.assert_allclose(standard.std(), 1, rtol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_files_of_mixed_dtypes(self, tiny_copy: Path, dtype: torch.dtype) -> None:
        change_weights(tiny_copy, ["pt-0", "pt-2"], lambda tensor: tensor.to(dtype))
        files = [load_file(tiny_copy / member / "model.safetensors") for member in ("pt-0", "pt-1", "pt-2")]
        scaling = fit_scaling(weights_of(tiny_copy, id=["pt-0", "pt-1", "pt-2"]))
        for name, mean, std in zip(scaling.names, scaling.mean, scaling.std, strict=True):
            numbers = torch.stack([tensors[name].double() for tensors in files]).numpy()
            np.testing.assert_allclose([mean, std], [numbers.mean(), numbers.std() or 1], rtol=1e-12, atol=1e-16)

    @pytest.mark.parametrize("members", [["pt-0"], ["pt-0", "pt-1", "pt-2"]])
    def test_equal_numbers_have_deviation_1(self, tiny_copy: Path, members: list[str]) -> None:
        """0.1 is not a binary fraction: its mean, as numpy sums it, is another number."""
        change_weights(tiny_copy, members, lambda tensor: torch.full_like(tensor, 0.1, dtype=torch.float64))
        weights = weights_of(tiny_copy, id=members)
        scaling = fit_scaling(weights)
        assert max(np.full(size, 0.1).std() for size in scaling.sizes) > 0
        assert set(scaling.std) == {1.0}
        assert set(scaling.mean) == {0.1}
        assert not scaling.scale(stacked(weights)).any()

    def test_one_member(self, zoo: Zoo) -> None:
        weights = zoo.weights(zoo.select(id="pt-1"))
        scaling, tensor = fit_scaling(weights), weights.tensor(NORM, dtype="float64")
        place = scaling.names.index(NORM)
        np.testing.assert_allclose([scaling.mean[place], scaling.std[place]], [tensor.mean(), tensor.std()], rtol=1e-12)
        features = fit_scaling(weights, "statistics")
        assert set(features.std) == {1.0}
        assert not features.scale(LayerStatistics(weights.index()).encode(weights.vector(0))).any()
        assert features.fitted_on == ("pt-1",)

    @pytest.mark.parametrize(("representation", "value"), [("flat", np.nan), ("flat", -np.inf), ("statistics", np.inf)])
    def test_a_diverged_member_is_refused(self, tiny_copy: Path, representation: str, value: float) -> None:
        def change(tensors: Tensors) -> Tensors:
            tensors[NORM][3] = value
            return tensors

        rewrite(tiny_copy / "pt-1", change)
        with pytest.raises(WeightsError, match=rf'"{NORM}.*" of .*/pt-1 has NaN') as error:
            fit_scaling(weights_of(tiny_copy, id=["pt-0", "pt-1", "pt-2"]), representation)
        assert 'status="completed"' in str(error.value.fix)

    def test_unknown_representations_and_other_tensors_are_refused(self, zoo: Zoo) -> None:
        with pytest.raises(RepresentationError) as error:
            fit_scaling(zoo.weights(), "statistic")
        assert error.value.value == "statistic"
        with pytest.raises(WeightsError, match="different tensors"):
            fit_scaling(zoo.weights(), part="all")


class TestScale:
    def test_by_hand(self) -> None:
        values = np.array([1.0, 1.5, 0.0, 6.0])
        assert GROUP.scale(values).tolist() == [0.0, 1.0, -2.0, 2.0]
        assert GROUP.unscale(np.array([0.0, 1.0, -2.0, 2.0])).tolist() == values.tolist()
        assert GROUP.scale(np.stack([values, values + 4])).tolist() == [[0, 1, -2, 2], [8, 9, 6, 3]]
        assert values.tolist() == [1.0, 1.5, 0.0, 6.0]

    @pytest.mark.parametrize(("dtype", "rounding"), [("f2", 2e-3), ("f4", 3e-7), ("f8", 1e-15)])
    def test_inverse_to_rounding(self, zoo: Zoo, dtype: str, rounding: float) -> None:
        weights = zoo.weights()
        scaling = fit_scaling(weights)
        values = weights.matrix().values.astype(dtype)
        there = scaling.scale(values)
        back = scaling.unscale(there)
        assert there.dtype == back.dtype == values.dtype
        np.testing.assert_allclose(back, values, rtol=rounding, atol=rounding * np.abs(values).max())

    def test_a_float32_far_from_0_is_scaled_in_float64(self) -> None:
        one = replace(GROUP, names=("a",), sizes=(2,), mean=(10000.0004,), std=(0.001,))
        scaled = one.scale(np.array([10000, 10000.001], np.float32))
        np.testing.assert_allclose(scaled, [-0.4, (float(np.float32(10000.001)) - 10000.0004) / 0.001], rtol=1e-6)

    def test_infinite_values_stay_infinite_without_a_warning(self) -> None:
        scaled = GROUP.scale(np.array([np.nan, np.inf, 3e38, -np.inf], np.float32))
        assert np.isnan(scaled[0])
        assert scaled[1:].tolist() == [np.inf, np.inf, -np.inf]

    @pytest.mark.parametrize("shape", [(3,), (4, 1), (0,)])
    def test_values_of_another_number_are_refused(self, shape: tuple[int, ...]) -> None:
        values: Any = np.zeros(shape)
        for change in (GROUP.scale, GROUP.unscale):
            with pytest.raises(WeightsError) as error:
                change(values)
            assert str(list(shape)) in error.value.problem
            assert str(error.value.expected).startswith("4,")

    @pytest.mark.parametrize(
        ("shapes", "says"),
        [
            ({"classifier.weight": (3, 1)}, '"classifier.bias" has 1 numbers, here none'),
            ({"classifier.weight": (1, 1), "classifier.bias": (3,)}, '"classifier.weight" has 3 numbers, here 1'),
            (
                {"vit.layernorm.bias": (1,), "classifier.weight": (3, 1), "classifier.bias": (1,)},
                '"vit.layernorm.bias" has no numbers, here 1',
            ),
        ],
    )
    def test_another_index_is_refused(self, shapes: dict[str, tuple[int, ...]], says: str) -> None:
        own = WeightsIndex({"classifier.weight": (1, 3), "classifier.bias": (1,)})
        GROUP.check_fits(own)
        with pytest.raises(WeightsError, match=says):
            GROUP.check_fits(WeightsIndex(shapes))
        reverse = replace(GROUP, names=GROUP.names[::-1], sizes=GROUP.sizes[::-1])
        with pytest.raises(WeightsError, match="another order"):
            reverse.check_fits(own)


class TestTrainAlone:
    def test_with_a_fold(self, zoo: Zoo, fold: Fold) -> None:
        parts = fold.of(zoo.select(epoch="all"))
        scaling = fit_scaling(zoo.weights(parts["train"]), fold=fold)
        assert (scaling.scheme, scaling.fold, scaling.parts) == ("by_parent", fold.name, dict(fold.parts))
        zoo.assert_no_leaks({"train": scaling.fitted_on, "test": parts["test"]})
        with pytest.raises(LeakError):
            zoo.assert_no_leaks({"train": scaling.fitted_on, "test": parts["train"]})

    def test_members_outside_train_are_refused(self, zoo: Zoo, fold: Fold) -> None:
        moved = replace(fold, parts={**fold.parts, "pt-0/ft-1": "val"})
        with pytest.raises(LeakError) as error:
            fit_scaling(zoo.weights(zoo.select(id=["pt-0", "pt-0/ft-1"], epoch="all")), fold=moved)
        assert (error.value.kind, error.value.value) == ("member", "pt-0/ft-1")
        assert error.value.members == ("pt-0/ft-1", "pt-0/ft-1")
        assert error.value.parts == ("train", "val")
        train = fold.of(zoo.select())["train"]
        others = {member: part for member, part in fold.parts.items() if member != str(train[0].member)}
        with pytest.raises(LeakError) as error:
            fit_scaling(zoo.weights(train), fold=replace(fold, parts=others))
        assert error.value.parts == ("train", None)
        with pytest.raises(SelectionError, match=f"{train[0].member}"):
            fit_scaling(zoo.weights(train), fold=replace(fold, groups=others))

    def test_other_members_do_not_matter(self, tiny_copy: Path, zoo: Zoo, fold: Fold) -> None:
        """The scaling stays equal to the last bit when val and test change."""
        before = fit_scaling(zoo.weights(fold.of(zoo.select())["train"]), fold=fold)
        change_weights(tiny_copy, [*fold.ids("val"), *fold.ids("test")], lambda tensor: tensor * 3 + 1)
        changed = Zoo(tiny_copy)
        assert fit_scaling(changed.weights(fold.of(changed.select())["train"]), fold=fold) == before


class TestFile:
    @pytest.mark.parametrize("representation", ["graph", "statistics"])
    def test_a_saved_scaling_is_read_back_equal(
        self, zoo: Zoo, fold: Fold, tmp_path: Path, representation: str
    ) -> None:
        train = zoo.weights(fold.of(zoo.select(epoch="all"))["train"])
        for scaling in (fit_scaling(train, representation, fold=fold), fit_scaling(train, representation)):
            scaling.save(tmp_path / "scaling.json")
            assert Scaling.load(str(tmp_path / "scaling.json")) == scaling
        assert json.loads((tmp_path / "scaling.json").read_text())["format"] == 1

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"mean": [1.0]}, "not one size, mean and deviation for each"),
            ({"names": [], "sizes": [], "mean": [], "std": []}, "no groups"),
            ({"names": ["a", "a"]}, "two of one name"),
            ({"sizes": [3, 0]}, r"`int` >= 1 - at `\$\.sizes\[1\]`"),
            ({"std": [0.5, 0.0]}, r"`float` > 0.0 - at `\$\.std\[1\]`"),
            ({"std": [0.5, "1"]}, r"got `str` - at `\$\.std\[1\]`"),
            ({"mean": [0.5, None]}, r"got `null` - at `\$\.mean\[1\]`"),
            ({"mean": [0.5, float("nan")]}, "JSON is malformed"),
            ({"fitted_on": ["pt-0", "pt-x"]}, 'fitted_on has "pt-x"'),
            ({"fitted_on": []}, "fitted_on has"),
            ({"fitted_on": ["pt-1"]}, "members that are not in train"),
            ({"fitted_on": ["pt-2"]}, "members that are not in train"),
            ({"scheme": None}, "only some of scheme, fold and parts"),
            ({"parts": None}, "only some of scheme, fold and parts"),
            ({"parts": {"pt-0": "trian"}}, "Invalid enum value 'trian'"),
            ({"format": 0}, "format is 0; expected 1"),
            ({"format": None}, "got `null` - at `\\$\\.format`"),
            ({"var": [1]}, "unknown field `var`"),
        ],
    )
    def test_a_damaged_file_is_refused(self, tmp_path: Path, change: dict[str, object], says: str) -> None:
        GROUP.save(tmp_path / "scaling.json")
        assert Scaling.load(tmp_path / "scaling.json") == GROUP
        value = json.loads((tmp_path / "scaling.json").read_text()) | change
        (tmp_path / "scaling.json").write_text(json.dumps(value))
        with pytest.raises(RecordError, match=says) as error:
            Scaling.load(tmp_path / "scaling.json")
        assert error.value.path == tmp_path / "scaling.json"

    def test_newer_and_other_files_are_refused(self, tmp_path: Path, tiny_zoo: Path) -> None:
        GROUP.save(tmp_path / "scaling.json")
        text = (tmp_path / "scaling.json").read_text()
        (tmp_path / "newer.json").write_text(text.replace('"format": 1', '"format": 2'))
        with pytest.raises(FormatVersionError) as error:
            Scaling.load(tmp_path / "newer.json")
        assert (error.value.found, error.value.supported) == (2, 1)
        (tmp_path / "cut.json").write_text(text[:-9])
        for file in (tmp_path / "cut.json", tmp_path / "none.json", tiny_zoo / "pt-0" / layout.MEMBER_JSON):
            with pytest.raises(RecordError):
                Scaling.load(file)
