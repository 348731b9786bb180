"""Prediction: tasks, baselines and scores equal scikit-learn's, and submissions that leak or do not fit are refused."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.preprocessing import StandardScaler

from tests.analysis.families import CONTRASTIVE_FROM, write_families
from tests.hub.server import Hub
from tests.published import REPO, plant
from tests.weights.checkpoints import map_tensors, rewrite
from vitzoo import Selection, Zoo, prediction
from vitzoo.analysis.networks import PROBES, PROJECTED, WIDTH, ProbeX
from vitzoo.analysis.prediction import INNER_FOLDS, PENALTIES, PredictionTask
from vitzoo.analysis.predictors import predict, read_moves, read_spectra, read_statistics
from vitzoo.analysis.submissions import COLUMNS, Entry
from vitzoo.errors import LeakError, MemberIdError, SelectionError


@pytest.fixture(scope="session")
def families_zoo(shared: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    return shared("families-zoo", write_families)


@pytest.fixture
def selection(families_zoo: Path) -> Selection:
    return Zoo(families_zoo).select(stage="finetuning", epoch=[1, 2])


@pytest.fixture
def task(selection: Selection) -> PredictionTask:
    return prediction(selection, "test_loss")


def parents_of(task: PredictionTask) -> np.ndarray:
    return np.array([name.split("/")[0] for name in task.checkpoints])


def by_row(task: PredictionTask, entry: Entry) -> np.ndarray:
    """Return an entry's predictions in the order of the checkpoints."""
    return entry.table.set_index("checkpoint").loc[list(task.checkpoints), "prediction"].to_numpy()


class TestTask:
    def test_targets_are_the_recorded_values(self, selection: Selection, task: PredictionTask) -> None:
        frame = selection.to_pandas()
        assert list(task.checkpoints) == frame["ref"].tolist()
        np.testing.assert_allclose(task.truth, frame["test_loss"], rtol=1e-6)
        gap = prediction(selection, "gap").truth
        np.testing.assert_allclose(gap, frame["train_accuracy"] - frame["test_accuracy"], atol=1e-6)
        assert prediction(selection, "head").truth.tolist() == frame["head_type"].tolist()
        objective = prediction(selection, "objective")
        assert objective.truth.tolist() == frame["pretraining_objective"].tolist()
        assert objective.classes == ("contrastive", "supervised")
        assert (objective.targets.argmax(axis=1) == (frame["pretraining_objective"] == "supervised")).all()
        assert prediction(selection, "init_seed").classes == tuple("012345")

    def test_final_weights_are_the_last_epoch(self, families_zoo: Path) -> None:
        final = prediction(Zoo(families_zoo).select(stage="finetuning"), "test_loss")
        assert final.checkpoints[:2] == ("pt-0/ft-0@2", "pt-0/ft-1@2")

    def test_divisions_keep_families(self, task: PredictionTask) -> None:
        parents = parents_of(task)
        assert [division.fold.name for division in task.divisions] == [f"pt-{number}" for number in range(6)]
        for division in task.divisions:
            assert set(parents[division.test]) == {division.fold.name}
            assert len(division.train) + len(division.test) == len(parents)
            assert len(division.inner) == INNER_FOLDS
            for train, val in division.inner:
                assert set(parents[train]).isdisjoint(parents[val])
                assert sorted([*train, *val]) == division.train.tolist()

    def test_tested_checkpoints_are_those_of_the_scheme(self, selection: Selection) -> None:
        """Each value of a factor inside families is tested in two shares of families."""
        task = prediction(selection, "test_loss", scheme="leave_one_factor_out", factor="head_type", folds=2)
        tested = np.concatenate([division.test for division in task.divisions])
        assert sorted(tested) == list(range(24))
        for division in task.divisions:
            value = division.fold.name.removeprefix("head_type=").split("/")[0]
            heads = selection.to_pandas()["head_type"].to_numpy()
            assert set(heads[division.test]) == {value} != set(heads[division.train])
        assert task.score({"same": task.baselines["mean"]})["checkpoints"].tolist() == [24] * 8
        shares = prediction(selection, "test_loss", scheme="by_parent", folds=2)
        assert [len(division.test) for division in shares.divisions] == [12, 12]

    def test_repr_is_short(self, task: PredictionTask) -> None:
        assert repr(task) == (
            "PredictionTask(target=test_loss, classes=none, checkpoints=24, folds=6, "
            "scheme=leave_one_parent_out, families=6)"
        )
        assert "pt-0/ft-0@1" in task._repr_html_()
        assert re.fullmatch(r"Entry\(predictions=24, seconds=\S+, parameters=1\)", repr(task.baselines["mean"]))

    @pytest.mark.parametrize(
        ("conditions", "target", "value"),
        [
            ({}, "accuracy_of_test", "accuracy_of_test"),
            ({}, "optimizer", "optimizer"),  # one value
            ({}, "head_width", "head_width"),  # linear heads have none
            ({"epoch": 0, "head_type": "mlp"}, "head_type", "head_type"),
        ],
    )
    def test_target_is_refused(self, families_zoo: Path, conditions: dict[str, Any], target: str, value: str) -> None:
        with pytest.raises(SelectionError) as raised:
            prediction(Zoo(families_zoo).select(stage="finetuning", **conditions), target)
        assert raised.value.value == value

    def test_members_without_the_target_are_refused(self, families_zoo: Path) -> None:
        with pytest.raises(SelectionError) as raised:
            prediction(Zoo(families_zoo).select(), "test_accuracy")  # embeddings have none
        assert raised.value.value == "test_accuracy"

    def test_selection_is_refused(self, selection: Selection) -> None:
        for refs in ((), selection.refs[:1] * 2):
            with pytest.raises(SelectionError) as raised:
                prediction(selection.with_refs(refs), "test_loss")
            assert raised.value.value == refs

    def test_two_families_have_no_inner_folds(self, tiny_zoo: Path) -> None:
        task = prediction(Zoo(tiny_zoo).select(stage="finetuning"), "test_loss")
        with pytest.raises(SelectionError) as raised:
            task.fit_ridge(np.zeros((8, 1)))
        assert raised.value.value == INNER_FOLDS


class TestRidge:
    def test_predictions_equal_scikit_learn_s(self, task: PredictionTask) -> None:
        features = np.random.default_rng(0).normal(size=(24, 30)) * np.arange(30)  # the first is constant
        entry = task.fit_ridge(features)
        predicted = by_row(task, entry)
        for division in task.divisions:
            errors = []
            for penalty in PENALTIES:
                residuals = [
                    oracle(features[train], task.truth[train], features[val], penalty) - task.truth[val]
                    for train, val in division.inner
                ]
                errors.append(np.square(np.concatenate(residuals)).sum())
            best = PENALTIES[int(np.argmin(errors))]
            assert entry.settings[division.fold.name] == f"penalty {best:g}"
            expected = oracle(features[division.train], task.truth[division.train], features[division.test], best)
            np.testing.assert_allclose(predicted[division.test], expected, rtol=1e-9)
        assert entry.parameters == 31

    def test_classes_are_the_largest_output(self, selection: Selection) -> None:
        task = prediction(selection, "head_type")
        signal = (task.truth == "mlp") * 1.0
        entry = task.fit_ridge(np.stack([signal, np.ones(24)], axis=1))
        assert by_row(task, entry).tolist() == task.truth.tolist()
        assert entry.parameters == 6
        opposite = task.entry(1 - task.targets)
        scores = task.score({"right": entry, "wrong": opposite}).set_index("entry")
        assert scores["estimate"].to_dict() == {"majority": 0.5, "right": 1.0, "wrong": 0.0}
        assert scores["difference_low"].to_dict() == {"majority": 0.0, "right": 0.5, "wrong": -0.5}

    @pytest.mark.parametrize(("features", "value"), [(np.zeros((3, 1)), 3), (np.full((24, 1), np.inf), "pt-0/ft-0@1")])
    def test_features_are_refused(self, task: PredictionTask, features: np.ndarray, value: object) -> None:
        with pytest.raises(SelectionError) as raised:
            task.fit_ridge(features)
        assert raised.value.value == value


def oracle(train: np.ndarray, targets: np.ndarray, test: np.ndarray, penalty: float) -> np.ndarray:
    scaler = StandardScaler().fit(train)
    return Ridge(alpha=penalty).fit(scaler.transform(train), targets).predict(scaler.transform(test))


class TestBaselines:
    def test_means_are_those_of_train(self, selection: Selection, task: PredictionTask) -> None:
        assert list(task.baselines) == ["mean", "objective and epoch", "recipe"]
        parents, truth = parents_of(task), task.truth
        epochs = np.array([ref.epoch for ref in selection])
        contrastive = np.isin(parents, [f"pt-{number}" for number in range(CONTRASTIVE_FROM, 6)])
        mean, cells = (by_row(task, task.baselines[name]) for name in ("mean", "objective and epoch"))
        for row, parent in enumerate(parents):
            train = parents != parent
            assert mean[row] == pytest.approx(truth[train].mean())
            alike = train & (contrastive == contrastive[row]) & (epochs == epochs[row])
            assert alike.sum() == (2 if contrastive[row] else 6)
            assert cells[row] == pytest.approx(truth[alike].mean())

    def test_recipe_is_ridge_on_its_settings(self, selection: Selection, task: PredictionTask) -> None:
        frame = selection.to_pandas()
        cells = frame["pretraining_objective"] + frame["epoch"].astype(str)
        columns = [frame["head_type"], frame["head_width"].fillna(0), frame["pretraining_objective"], frame["epoch"]]
        features = pd.concat([pd.get_dummies(column) for column in (*columns, cells)], axis=1)
        entry = task.fit_ridge(features.to_numpy(np.float64))
        recipe = task.baselines["recipe"]
        np.testing.assert_allclose(by_row(task, recipe), by_row(task, entry), rtol=1e-9)
        assert recipe.parameters == entry.parameters == 2 + 2 + 2 + 2 + 4 + 1

    def test_majority_is_the_most_frequent_class_of_train(self, selection: Selection) -> None:
        task = prediction(selection, "objective")
        (majority,) = task.baselines.values()
        assert set(majority.table["prediction"]) == {"supervised"}
        assert task.score({})["estimate"].tolist() == [pytest.approx(4 / 6)]


class TestScores:
    def test_intervals_equal_a_loop_over_draws(self, task: PredictionTask) -> None:
        generator, parents = np.random.default_rng(1), parents_of(task)
        guess = task.truth + generator.normal(size=24) * 0.1
        table = task.score({"mine": task.entry(guess[:, None])}, resamples=200, seed=3).set_index(["entry", "metric"])
        recipe = by_row(task, task.baselines["recipe"])
        names = np.unique(parents)
        counts = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=200)
        for metric, function in (("r2", r2_score), ("mean_absolute_error", mean_absolute_error)):
            own, gains = [], []
            for drawn in counts:
                weights = np.array([drawn[np.flatnonzero(names == parent)[0]] for parent in parents], float)
                own.append(function(task.truth, guess, sample_weight=weights))
                gains.append(own[-1] - function(task.truth, recipe, sample_weight=weights))
            row = table.loc["mine", metric]
            assert row["estimate"] == pytest.approx(function(task.truth, guess))
            assert row["difference"] == pytest.approx(row["estimate"] - function(task.truth, recipe))
            assert [row["low"], row["high"]] == pytest.approx(np.quantile(own, [0.025, 0.975]).tolist())
            limits = np.quantile(gains, [0.025, 0.975]).tolist()
            assert [row["difference_low"], row["difference_high"]] == pytest.approx(limits)
            assert (row["families"], row["checkpoints"]) == (6, 24)
            assert (table.loc["recipe", metric][["difference", "difference_low", "difference_high"]] == 0).all()

    def test_few_families_have_no_interval(self, families_zoo: Path) -> None:
        four = Zoo(families_zoo).select(stage="finetuning", objective="supervised", epoch=[1, 2])
        table = prediction(four, "test_loss").score({})
        limits = table[["low", "high", "difference_low", "difference_high"]]
        assert limits.isna().to_numpy().all()
        assert set(table["families"]) == {4}

    @pytest.mark.parametrize(("options", "value"), [({"resamples": 0}, 0), ({"level": 1.0}, 1.0)])
    def test_numbers_are_refused(self, task: PredictionTask, options: dict[str, Any], value: float) -> None:
        with pytest.raises(SelectionError) as raised:
            task.score({}, **options)
        assert raised.value.value == value

    def test_entry_with_the_name_of_a_baseline_is_refused(self, task: PredictionTask) -> None:
        with pytest.raises(SelectionError) as raised:
            task.score({"recipe": task.baselines["mean"]})
        assert raised.value.value == "recipe"


class TestSubmissions:
    def test_file_and_frame_are_read_in_any_order(self, task: PredictionTask, tmp_path: Path) -> None:
        table = task.baselines["recipe"].table
        shuffled = table.sample(frac=1, random_state=0).reindex(columns=["prediction", "fold", "checkpoint"])
        shuffled["checkpoint"] = [name.removesuffix("@2") for name in shuffled["checkpoint"]]  # the final weights
        shuffled.to_csv(tmp_path / "mine.csv", index=False)
        for submission in (shuffled, tmp_path / "mine.csv", str(tmp_path / "mine.csv")):
            np.testing.assert_allclose(task.read(submission), table["prediction"], rtol=1e-12)

    def test_numbers_may_be_classes_of_a_file(self, selection: Selection, tmp_path: Path) -> None:
        task = prediction(selection, "init_seed")
        task.entry(task.targets).table.to_csv(tmp_path / "mine.csv", index=False)
        assert task.read(tmp_path / "mine.csv").tolist() == task.truth.tolist()

    @pytest.mark.parametrize(
        ("column", "text", "error", "value"),
        [
            ("checkpoint", "pt-0/ft-0@9", SelectionError, "pt-0/ft-0@9"),
            ("checkpoint", "pt-9/ft-0@1", SelectionError, "pt-9/ft-0@1"),
            ("checkpoint", "pt-0@1", SelectionError, "pt-0@1"),
            ("checkpoint", "pt-0/ft-0@2", SelectionError, "pt-0/ft-0@2"),  # the second row's
            ("checkpoint", "first", MemberIdError, None),
            ("fold", "pt-9", SelectionError, "pt-9"),
            ("fold", "pt-1", LeakError, "pt-0/ft-0"),
            ("prediction", "much", SelectionError, "much"),
            ("prediction", float("nan"), SelectionError, None),
            ("prediction", float("inf"), SelectionError, float("inf")),
            ("prediction", None, SelectionError, None),
        ],
    )
    def test_row_is_refused(
        self, task: PredictionTask, column: str, text: object, error: type[Exception], value: object
    ) -> None:
        table = task.baselines["mean"].table.astype(object)
        table.loc[0, column] = text
        with pytest.raises(error) as raised:
            task.read(table)
        if value is not None:
            assert vars(raised.value)["value"] == value

    def test_leak_names_the_parts(self, task: PredictionTask) -> None:
        table = task.baselines["mean"].table
        table["fold"] = np.roll(table["fold"], 4)
        with pytest.raises(LeakError) as raised:
            task.score({"mine": table})
        assert (raised.value.kind, raised.value.parts) == ("member", ("train", "test"))

    def test_missing_row_or_column_is_refused(self, task: PredictionTask, tmp_path: Path) -> None:
        table = task.baselines["mean"].table
        with pytest.raises(SelectionError) as raised:
            task.read(table.iloc[2:])
        assert raised.value.value == ["pt-0/ft-0@1", "pt-0/ft-0@2"]
        for wrong in (table.drop(columns="fold"), table.assign(more=1), table.drop(columns=list(COLUMNS))):
            with pytest.raises(SelectionError) as raised:
                task.read(wrong)
            assert raised.value.value == list(wrong.columns)
        for content in (b"", b"\xff\xfe\x00", b"a,b\n1,2,3\n4,5\n6,7,8,9\n"):
            path = tmp_path / "mine.csv"
            path.write_bytes(content)
            with pytest.raises(SelectionError):
                task.read(path)

    def test_unknown_class_is_refused(self, selection: Selection) -> None:
        task = prediction(selection, "head_type")
        table = task.baselines["majority"].table
        table.loc[5, "prediction"] = "MLP"
        with pytest.raises(SelectionError) as raised:
            task.read(table)
        assert raised.value.value == "MLP"

    def test_columns_are_those_of_an_entry(self, task: PredictionTask) -> None:
        assert tuple(task.baselines["mean"].table.columns) == COLUMNS


class TestFeatures:
    def test_statistics_are_those_of_to_xy(self, selection: Selection) -> None:
        np.testing.assert_allclose(read_statistics(selection), selection.to_xy("test_loss").X, rtol=1e-6)

    def test_moves_are_norms_of_differences(self, families_zoo: Path, selection: Selection) -> None:
        zoo = Zoo(families_zoo)
        ends = zoo.weights(selection).matrix(dtype="float64")
        first = zoo.select(stage="finetuning", epoch=0)
        starts = dict(zip(first.ids, zoo.weights(first).matrix(dtype="float64").values, strict=True))
        moves = read_moves(selection)
        for row, ref in enumerate(selection):
            difference = ends.values[row] - starts[ref.member]
            norms = [np.linalg.norm(difference[entry.span]) for entry in ends.index.values()]
            np.testing.assert_allclose(np.exp(moves[row]), np.maximum(norms, 1e-12), rtol=1e-9)
        unmoved = read_moves(first)
        assert (unmoved == np.log(1e-12)).all()

    def test_spectra_are_those_of_the_singular_values(self, families_zoo: Path, selection: Selection) -> None:
        read = Zoo(families_zoo).weights(selection).matrix(dtype="float64")
        expected = []
        for name, tensor in read.index.unflatten(read.values[3]).items():
            if name.endswith("weight") and tensor.ndim > 1:
                singular = np.linalg.svd(tensor.reshape(len(tensor), -1), compute_uv=False)
                expected += [singular[0], (singular**2).sum() / singular[0] ** 2]
        np.testing.assert_allclose(np.exp(read_spectra(selection)[3]), expected, rtol=1e-9)

    @pytest.mark.parametrize("name", ["statistics", "moves", "spectra"])
    def test_entry_is_ridge_on_its_features(self, task: PredictionTask, name: str) -> None:
        read = {"statistics": read_statistics, "moves": read_moves, "spectra": read_spectra}[name]
        entry, expected = predict(task, name), task.fit_ridge(read(task.selection))
        assert entry.table.equals(expected.table)
        assert entry.parameters == expected.parameters
        assert entry.seconds > 0

    def test_unknown_entry_is_refused(self, task: PredictionTask) -> None:
        with pytest.raises(SelectionError) as raised:
            predict(task, "mvoes")
        assert raised.value.value == "mvoes"

    def test_language_models_and_the_hub(self, families_zoo: Path, hub: Hub, text_zoo: Path) -> None:
        """Both have the same features as a folder; the text zoo has too few families to be a task."""
        plant(hub, families_zoo)
        published = Zoo(REPO).select(stage="finetuning", epoch=2)
        local = Zoo(families_zoo).select(stage="finetuning", epoch=2)
        scores = [prediction(own, "test_loss") for own in (published, local)]
        assert predict(scores[0], "moves").table.equals(predict(scores[1], "moves").table)
        texts = Zoo(text_zoo).select(stage="finetuning")
        for read in (read_statistics, read_moves, read_spectra):
            assert np.isfinite(read(texts)).all()


class TestNetworks:
    def test_probex_is_the_formula_of_its_paper(self) -> None:
        """The head of sum_i M_i relu(V W u_i), with biases."""
        network = ProbeX((3, 5), 2)
        matrix = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
        encoders = network.encoder.weight.reshape(WIDTH, PROBES, PROJECTED)
        expected = network.encoder.bias
        for number, probe in enumerate(network.probes.weight):
            expected = expected + encoders[:, number] @ torch.relu(network.projection.weight @ (matrix @ probe))
        torch.testing.assert_close(network(matrix[None])[0], network.head(expected))

    @pytest.mark.slow
    def test_planted_layer_is_chosen_and_read(self, families_zoo: Path, tmp_path: Path) -> None:
        """One matrix, and the tokens of the moves, tell the type of the head after it is written into them."""
        root = Path(shutil.copytree(families_zoo, tmp_path / "zoo"))
        finals, name = Zoo(root).select(stage="finetuning"), "vit.encoder.layer.0.intermediate.dense.weight"
        for ref in finals:
            sign = 1.0 if finals.catalogue.member_record(ref.member).head_type == "mlp" else -1.0
            rewrite(
                root / str(ref.member),
                lambda tensors, sign=sign: tensors | {name: sign * torch.ones_like(tensors[name])},
            )
        task = prediction(Zoo(root).select(stage="finetuning"), "head")
        probex, transformer = predict(task, "probex"), predict(task, "transformer")
        assert set(probex.settings.values()) == {name}
        table = task.score({"probex": probex, "transformer": transformer}).set_index("entry")
        assert table["estimate"].to_dict() == {"majority": 0.5, "probex": 1.0, "transformer": 1.0}

    @pytest.mark.parametrize("name", ["probex", "transformer"])
    def test_entry_is_the_same_again_and_refuses_nan(
        self, families_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr("vitzoo.analysis.networks.PROBEX_STEPS", 5)
        monkeypatch.setattr("vitzoo.analysis.networks.STEPS", 5)
        task = prediction(Zoo(families_zoo).select(stage="finetuning"), "test_loss")
        state = torch.get_rng_state()
        first = predict(task, name)
        assert torch.equal(torch.get_rng_state(), state)
        assert predict(task, name).table.equals(first.table)
        assert len(task.read(first.table)) == 12
        root = Path(shutil.copytree(families_zoo, tmp_path / "zoo"))
        rewrite(root / "pt-1/ft-1", map_tensors(lambda tensor: tensor * torch.nan))
        broken = prediction(Zoo(root).select(stage="finetuning"), "test_loss")
        for entry in (name, "statistics", "moves", "spectra"):
            with pytest.raises(SelectionError) as raised:
                predict(broken, entry)
            assert raised.value.value == "pt-1/ft-1@2"


def test_prototype_of_the_digits_zoo(digits_zoo: Path) -> None:
    """No entry is better than the recipe."""
    task = prediction(Zoo(digits_zoo).select(stage="finetuning", epoch=[2, 4, 6, 8]), "test_accuracy")
    table = task.score({name: predict(task, name) for name in ("statistics", "moves", "spectra")})
    r2 = table[table["metric"] == "r2"].set_index("entry")
    assert r2.loc["statistics", "low"] < 0.536 < r2.loc["statistics", "high"]
    assert r2.loc["objective and epoch", "low"] < 0.632 < r2.loc["objective and epoch", "high"]
    assert r2.loc["recipe", "low"] < 0.651 < r2.loc["recipe", "high"]
    assert (r2.loc[["statistics", "moves", "spectra"], "difference_high"] < 0).all()
    assert set(r2["families"]) == {12}
