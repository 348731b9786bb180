"""Diversity: rows of contrasts are means over the listed pairs, on zoos of images, texts, the Hub and an import."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from msgspec import structs
from safetensors.numpy import save_file

from tests.hub.server import Hub
from tests.interop.imported import import_tiny, short_release
from tests.published import REPO, plant
from vitzoo import Selection, Zoo, behaviour, diversity
from vitzoo.analysis.behaviour.behaviour import Behaviour
from vitzoo.analysis.behaviour.pairs import agreement
from vitzoo.analysis.diversity.diversity import Diversity
from vitzoo.errors import SelectionError
from vitzoo.records import load_member_record
from vitzoo.records.json_files import write_json

MEASURES = {"agreement", "kappa", "error_consistency", "capa", "hellinger", "cka_cls", "cka_mean"} | {
    "l2",
    "relative_l2",
    "cosine",
    "move_l2",
    "move_cosine",
    "norm_gap",
    "move_gap",
    "spectral_norm_gap",
    "stable_rank_gap",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("behaviour")


def children(zoo: Path | str, **conditions: Any) -> Selection:
    return Zoo(zoo).select(stage="finetuning", **conditions)


def of_whole(d: Diversity, measure: str, *, common: bool = False) -> pd.DataFrame:
    """Return the rows of a measure of whole models, by contrast."""
    return d.contrasts.query("measure == @measure and layer == '' and common == @common").set_index("contrast")


def answers(
    selection: Selection, predictions: np.ndarray, labels: np.ndarray, folder: Path, **logits: Any
) -> Behaviour:
    """Make the behaviour of given predictions of two classes, as if it were read from its cache."""
    files = []
    for number, row in enumerate(predictions.astype(np.uint16)):
        files.append(folder / f"{number}.safetensors")
        save_file({"predictions": row, **{name: values[number] for name, values in logits.items()}}, files[-1])
    return Behaviour(
        refs=selection.refs,
        classes=("even", "odd"),
        labels=labels,
        part="test",
        kept=frozenset({"predictions", *logits}),
        files=tuple(files),
    )


def test_rows_are_means_over_the_listed_pairs(tiny_zoo: Path, cache: Path) -> None:
    selection = children(tiny_zoo)
    outputs = behaviour(selection, keep=("logits", "features"), cache=cache, progress=False)
    d = diversity(selection, behaviour=outputs)
    assert set(d.contrasts.measure) == MEASURES
    assert of_whole(d, "agreement").pairs.to_dict() == {
        "head_type": 4,  # 2 of pt-0, which has two replicates, and 1 of the others
        "seeds": 2,
        "parent, one initialisation": 2,
        "parent and pretraining_objective": 4,
    }
    assert of_whole(d, "agreement").families.tolist() == [2, 1, 1, 2]  # pt-0 and pt-1 share an initialisation
    assert of_whole(d, "l2", common=True).pairs.to_dict() == {"head_type": 2, "seeds": 2}
    places = {ref: place for place, ref in enumerate(selection)}
    weights = Zoo(tiny_zoo).weights(selection)
    matrices = {
        **{(name, ""): outputs.pairs(name).values for name in ("agreement", "kappa", "capa", "hellinger")},
        ("l2", ""): weights.distances("l2").values,
        ("cosine", ""): weights.distances("cosine").values,
        ("cka_cls", "layer.0"): outputs.cka("layer.0").values,
    }
    checked = [row for row in d.contrasts.to_dict("records") if (row["measure"], row["layer"]) in matrices]
    assert len(checked) == 7 * 6  # 4 contrasts, and 2 again inside common families
    for row in checked:
        pairs = d.pairs(row["contrast"], common=row["common"])
        matrix = matrices[row["measure"], row["layer"]]
        assert row["pairs"] == len(pairs)
        assert row["estimate"] == pytest.approx(np.mean([matrix[places[one], places[two]] for one, two in pairs]))
    assert d.contrasts.low.isna().all()  # two families have no interval
    assert d.contrasts.pairs.dtype == d.contrasts.families.dtype == np.int64
    assert repr(d).startswith("Diversity(members=8, families=2, contrasts=4, measures=16")
    assert "parent, one initialisation" in d._repr_html_()


def test_factors_say_what_varies_together(tiny_zoo: Path) -> None:
    d = diversity(children(tiny_zoo), weights=False)
    assert d.contrasts.empty
    assert d.weights.empty
    head, seeds, objective = d.factors.to_dict("records")
    assert head == {
        "factor": "head_type",
        "columns": "head_type, head_width",
        "scope": "within",
        "nested_in": "",
        "values": 2,
        "pairs": 4,
    }
    assert (seeds["factor"], seeds["columns"].split(", ")[0], seeds["pairs"]) == ("seeds", "head_seed", 2)
    assert (objective["factor"], objective["scope"]) == ("pretraining_objective", "across")
    assert d.pairs("replicate") == d.pairs("seeds")
    assert d.left_out == {}


def test_accuracies_are_compared_by_the_values_of_a_factor(tiny_zoo: Path, cache: Path) -> None:
    selection = children(tiny_zoo)
    d = diversity(selection, behaviour=behaviour(selection, cache=cache, progress=False), weights=False)
    table = selection.members_table.to_pandas().assign(test=selection.epochs_table.column("test_accuracy").to_numpy())
    table["family"] = ["pt-2" if parent == "pt-2" else "pt-0" for parent in table.parent]
    rows = d.accuracy.set_index(["factor", "value", "part"])
    assert set(rows.index.get_level_values("factor")) == {"", "head_type", "pretraining_objective"}
    for head in ("linear", "mlp"):
        own = table[table.head_type == head]
        row = rows.loc["head_type", head, "test"]
        assert row["mean"] == pytest.approx(own.groupby("family").test.mean().mean(), abs=1e-12)
        assert [row.sd, row["min"], row["max"]] == pytest.approx([own.test.std(), own.test.min(), own.test.max()])
        assert row["range"] == row["max"] - row["min"]
        assert (row.members, row.families, row.resampled) == (4, 2, "families and samples")
    assert rows.loc["", "", "val"].resampled == "families"
    assert rows.loc["", "", "val"].members == 8
    (difference,) = d.differences.query("factor == 'head_type' and part == 'test'").to_dict("records")
    accuracy = dict(zip(selection, table.test, strict=True))
    linear = set(table[table.head_type == "linear"].id)
    gains: dict[str, list[float]] = {"pt-0": [], "pt-2": []}
    for pair in d.pairs("head_type"):
        one, two = sorted(pair, key=lambda ref: str(ref.member) not in linear)
        gains["pt-2" if str(one.member.parent_id) == "pt-2" else "pt-0"].append(accuracy[one] - accuracy[two])
    assert difference["difference"] == pytest.approx(np.mean([np.mean(own) for own in gains.values()]), abs=1e-12)
    assert (difference["value"], difference["other"], difference["pairs"]) == ("linear", "mlp", 4)
    across = d.differences.query("factor == 'pretraining_objective' and part == 'val'").iloc[0]
    objectives = rows.xs("pretraining_objective", level="factor").xs("val", level="part")["mean"]
    assert across.difference == pytest.approx(objectives["contrastive"] - objectives["supervised"], abs=1e-12)
    assert np.isnan(across.low)


def test_trajectories_are_the_recorded_distances(tiny_zoo: Path) -> None:
    selection = children(tiny_zoo)
    d = diversity(selection, weights=False)
    epochs = Zoo(tiny_zoo).table("epochs").to_pandas()
    epochs = epochs[epochs.id.isin([str(member) for member in selection.ids])]
    epochs["family"] = ["pt-2" if member.startswith("pt-2") else "pt-0" for member in epochs.id]
    start = epochs[epochs.epoch == 0].set_index("id").weight_norm
    epochs["relative_distance"] = epochs.distance_from_start / epochs.id.map(start)
    for measure, column in (("distance", "distance_from_start"), ("relative_distance", "relative_distance")):
        found = d.trajectories[d.trajectories.measure == measure]
        assert found.epoch.tolist() == [0, 1, 2]
        assert found.members.tolist() == [8, 8, 8]
        expected = epochs.groupby(["epoch", "family"])[column].mean().groupby("epoch").mean()
        assert found["mean"].tolist() == pytest.approx(expected.tolist())
        assert found.sd.tolist() == pytest.approx(epochs.groupby("epoch")[column].std().tolist())


def test_weights_have_a_row_a_layer(tiny_zoo: Path) -> None:
    selection = children(tiny_zoo)
    d = diversity(selection)
    assert d.weights.layer.tolist() == ["", "embeddings", "layer.0", "layernorm"] * 8
    assert (d.weights.epoch == 2).all()
    whole, layers = d.weights[d.weights.layer == ""], d.weights[d.weights.layer != ""]
    assert whole.norm.tolist() == pytest.approx((layers.groupby("id", sort=False).norm.apply(np.linalg.norm)).tolist())


def test_equal_checkpoints_agree_exactly(tiny_copy: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_copy / "pt-0/ft-0", tiny_copy / "pt-0/ft-4")
    path = tiny_copy / "pt-0/ft-4/member.json"
    write_json(path, structs.replace(load_member_record(path), id="pt-0/ft-4", learning_rate=0.5))
    selection = children(tiny_copy, parent="pt-0")
    outputs = behaviour(selection, keep=("logits", "features"), cache=tmp_path / "cache", progress=False)
    d = diversity(selection, behaviour=outputs)
    rows = d.contrasts.query("contrast == 'learning_rate' and not common")
    assert (rows.pairs[rows.estimate.notna()] == 1).all()
    exact = rows.query("layer == ''").set_index("measure").estimate
    for measure in ("l2", "relative_l2", "cosine", "move_l2", "norm_gap", "move_gap", "hellinger"):
        assert exact[measure] == 0
    assert exact["agreement"] == exact["kappa"] == 1
    assert exact["move_cosine"] == pytest.approx(1, abs=1e-12)
    assert rows.query("measure == 'cka_mean'").estimate.tolist() == pytest.approx([1.0] * 3, abs=1e-6)
    assert d._repr_html_().count("<tr") >= 3


def test_one_class_has_agreement_and_no_kappa(tiny_zoo: Path, tmp_path: Path) -> None:
    selection = children(tiny_zoo)
    labels = np.arange(6) % 2
    d = diversity(selection, behaviour=answers(selection, np.ones((8, 6)), labels, tmp_path), weights=False)
    assert (of_whole(d, "agreement").estimate == 1).all()
    kappa = of_whole(d, "kappa")
    assert kappa.estimate.isna().all()
    assert (kappa.pairs == 0).all()
    assert (kappa.families == 0).all()
    assert set(d.contrasts.measure) == {"agreement", "kappa", "error_consistency"}  # no logits were kept
    assert d.accuracy.query("part == 'test'")["mean"].tolist() == [0.5] * 5


def test_values_that_are_nan_are_left_out(tiny_zoo: Path, tmp_path: Path) -> None:
    selection = children(tiny_zoo)
    labels = np.arange(6) % 2
    predictions = np.random.default_rng(0).integers(0, 2, (8, 6))
    predictions[0] = labels  # one perfect member: error consistency is 0, or NaN with another perfect one
    predictions[1] = labels
    d = diversity(selection, behaviour=answers(selection, predictions, labels, tmp_path), weights=False)
    row = of_whole(d, "error_consistency").loc["head_type"]
    assert selection[0].member.parent_id == selection[1].member.parent_id
    assert row.pairs == 3
    matrix = agreement(predictions.astype(np.uint8))
    places = {ref: place for place, ref in enumerate(selection)}
    expected = np.mean([matrix[places[one], places[two]] for one, two in d.pairs("head_type")])
    assert of_whole(d, "agreement").estimate["head_type"] == pytest.approx(expected)


def test_one_family_and_one_member(tiny_zoo: Path) -> None:
    d = diversity(children(tiny_zoo, parent="pt-0"))
    assert set(d.contrasts.scope) == {"within"}
    assert (d.contrasts.families == 1)[d.contrasts.estimate.notna()].all()
    assert d.contrasts.low.isna().all()
    alone = diversity(Zoo(tiny_zoo).select(id="pt-0/ft-0"))
    assert alone.contrasts.empty
    assert list(alone.contrasts.columns) == list(d.contrasts.columns)
    assert alone.accuracy[["members", "families"]].drop_duplicates().to_numpy().tolist() == [[1, 1]]
    assert np.isnan(alone.accuracy.sd).all()
    assert "contrasts=0" in repr(alone)


def test_parents_are_compared_with_each_other(tiny_zoo: Path) -> None:
    d = diversity(Zoo(tiny_zoo).select(stage="pretraining"))
    assert of_whole(d, "move_cosine").pairs.to_dict() == {
        "parent, one initialisation": 1,
        "parent and pretraining_objective": 2,
    }
    shared, other = of_whole(d, "move_cosine").estimate
    assert shared > other  # pt-0 and pt-1 start from the same weights


def test_own_factors_count_and_metrics_can_be_ignored(tiny_copy: Path) -> None:
    for number, rows in enumerate(sorted((tiny_copy / "pt-0").glob("ft-*/member.json"))):
        record = load_member_record(rows)
        extra = {"site": "<b>basel</b>" if number < 2 else "bern", "score": 0.25 if number else 0.5}
        write_json(rows, structs.replace(record, extra=extra))
    selection = children(tiny_copy, parent="pt-0")
    d = diversity(selection, ignore=("score",))
    head, site = d.factors.to_dict("records")
    assert (head["factor"], head["pairs"]) == ("head_type", 2)
    assert site["factor"] == "site"  # it changes with the seeds, so they are one contrast
    assert site["columns"] == "head_seed, order_seed, augmentation_seed, replicate, site"
    assert len(d.pairs("site")) == 2
    assert len(diversity(selection, weights=False).pairs("site")) == 1  # of the two with equal scores
    assert "bern" in d.accuracy.value.tolist()
    assert "<b>basel" not in d._repr_html_()
    with pytest.raises(SelectionError) as caught:
        diversity(selection, ignore=("scores",))
    assert caught.value.value == "scores"
    assert "score" in (caught.value.fix or "")


def test_bad_selections_are_refused(tiny_zoo: Path, cache: Path) -> None:
    zoo = Zoo(tiny_zoo)
    selection = children(tiny_zoo)
    outputs = behaviour(selection, cache=cache, progress=False)
    cases: list[tuple[Any, Any]] = [
        (zoo.select(stage="finetuning", epoch=[1, 2]), "pt-0/ft-0"),
        (zoo.select(), "pt-0"),
        (selection.with_refs([]), selection.with_refs([])),
    ]
    for bad, value in cases:
        with pytest.raises(SelectionError) as caught:
            diversity(bad)
        assert caught.value.value == value
        assert caught.value.expected is not None
    with pytest.raises(SelectionError) as others:
        diversity(selection[1:], behaviour=outputs)
    assert others.value.value is outputs
    with pytest.raises(SelectionError) as function:
        diversity(selection, behaviour=behaviour)  # pyright: ignore[reportArgumentType]
    assert function.value.value is behaviour
    d = diversity(selection, weights=False)
    for name in ("optimizer", "max_length", "lerning_rate", "pretraining_objective"):
        with pytest.raises(SelectionError) as caught:
            d.pairs(name)
        assert caught.value.value == name


def test_texts(text_zoo: Path, sentences: Path, cache: Path) -> None:
    selection = children(text_zoo)
    outputs = behaviour(selection, data={"animals": sentences}, cache=cache, progress=False, keep=("features",))
    d = diversity(selection, behaviour=outputs)
    assert of_whole(d, "l2").pairs.to_dict() == {"head_type": 2, "parent and pretraining_objective": 2}
    assert d.pairs("head_width") == d.pairs("head_type")
    assert set(d.weights.layer) == {"", "embeddings", "layer.0"}
    assert of_whole(d, "l2").estimate["parent and pretraining_objective"] > of_whole(d, "l2").estimate["head_type"]


def test_hub_zoo_downloads_the_weights_that_it_says(hub: Hub, tiny_zoo: Path, tmp_path: Path) -> None:
    plant(hub, tiny_zoo)
    selection = children(REPO)
    with hub.recorded() as requests:
        records = diversity(selection, weights=False)
    assert not requests.of(path="safetensors")
    with hub.recorded() as requests:
        d = diversity(selection)
    asked = {request.path.partition("/main/")[2] or request.path for request in requests.of(path="safetensors")}
    assert {path.split("resolve/")[-1].partition("/")[2] for path in asked if "resolve/" in path} == {
        f"{member.id}/model.safetensors" for member in Zoo(tiny_zoo)
    }
    local = diversity(children(tiny_zoo))
    pd.testing.assert_frame_equal(d.contrasts, local.contrasts)
    selection.download(tmp_path / "copy", progress=False)  # without the parents' weights and epoch 0
    copied = diversity(children(tmp_path / "copy"))
    assert copied.left_out == {
        f"{member} (move)": "the weights that it started from do not exist" for member in selection.ids
    }
    assert not {"move_l2", "move_cosine", "move_gap"} & set(copied.contrasts.measure)
    pd.testing.assert_series_equal(of_whole(copied, "l2").estimate, of_whole(d, "l2").estimate)
    pd.testing.assert_frame_equal(records.accuracy, local.accuracy)


def test_import_with_unknown_factors(tmp_path: Path) -> None:
    import_tiny(short_release(tmp_path), tmp_path / "zoo")
    whole = diversity(children(tmp_path / "zoo"))
    assert whole.left_out == {}
    (head, _) = whole.factors.to_dict("records")
    assert {"head_type", "optimizer", "learning_rate", "epochs"} <= set(head["columns"].split(", "))
    assert of_whole(whole, "move_l2").pairs.to_dict() == {"head_type": 1}
    for path in (tmp_path / "zoo").glob("pt-*/ft-*/member.json"):  # as a release that does not say its settings
        record = load_member_record(path)
        rate = None if record.parent == "pt-0" and record.optimizer == "adamw" else record.learning_rate
        write_json(path, structs.replace(record, batch_size=None, learning_rate=rate))
    d = diversity(children(tmp_path / "zoo"))
    assert d.left_out == {
        "batch_size": "null for all members",
        "pt-0/ft-0": "learning_rate is unknown, so it is in no pair",
    }
    assert "left_out=2" in repr(d)
    assert set(d.contrasts.scope) == {"across"}  # pt-0/ft-0 was in the only pair inside a family
    assert len(d.accuracy.query("factor == '' and part == 'test'")) == 1
    with pytest.raises(SelectionError) as caught:
        d.pairs("batch_size")
    assert caught.value.value == "batch_size"


def test_contrasts_of_the_digits_zoo(digits_zoo: Path, cache: Path) -> None:
    """The margins are below half of the differences that docs/guides/behaviour.md reports."""
    selection = children(digits_zoo)
    d = diversity(selection, behaviour=behaviour(selection, keep=("logits",), cache=cache, progress=False))
    counts = {"head_type": 64, "optimizer": 128, "learning_rate": 64, "seeds": 24}
    across = {"parent, one initialisation": 16, "parent": 376, "parent and pretraining_objective": 256}
    shown, common = of_whole(d, "agreement"), of_whole(d, "agreement", common=True)
    assert shown.pairs.to_dict() == counts | across
    assert common.pairs.to_dict() == {"head_type": 24, "optimizer": 48, "learning_rate": 24, "seeds": 24}
    assert shown.families.to_dict() == dict.fromkeys(counts | across, 12) | {
        "seeds": 2,
        "parent, one initialisation": 1,
    }
    assert shown.nested_in.to_dict() == dict.fromkeys(counts | across, "") | {"learning_rate": "optimizer"}
    for row in shown.to_dict("records"):
        if row["families"] < 5:
            assert np.isnan([row["low"], row["high"]]).all()
        else:
            assert row["low"] < row["estimate"] < row["high"]
    agree, consistent, l2, cosine, direction = (
        of_whole(d, measure).estimate for measure in ("agreement", "error_consistency", "l2", "cosine", "move_cosine")
    )
    within = list(counts)
    assert agree["parent, one initialisation"] > agree[within].max() + 0.03
    assert agree["parent"] > agree["parent and pretraining_objective"] + 0.05
    assert consistent[within].min() > consistent["parent and pretraining_objective"] + 0.06
    assert common.estimate.max() - common.estimate.min() < 0.06  # inside the same families, factors are alike
    assert l2["parent, one initialisation"] > l2[within].max() + 1
    assert l2["parent"] > 4 * l2["parent, one initialisation"]
    assert cosine[within].max() < 0.02
    assert cosine["parent"] > 0.7
    assert direction["learning_rate"] > direction["optimizer"] + 0.08
    assert direction["optimizer"] > direction["head_type"] + 0.06
    assert max(abs(direction[name]) for name in ("parent", "parent and pretraining_objective")) < 0.05
    mean = {row["value"]: row["mean"] for row in d.accuracy.query("part == 'test'").to_dict("records")}
    assert mean["supervised"] > mean["contrastive"] + 0.06
    (gain,) = d.differences.query("value == 'adamw' and part == 'test'").to_dict("records")
    assert gain["low"] > 0
    assert (gain["families"], gain["pairs"]) == (12, 128)
    moved = d.trajectories.query("measure == 'distance'")
    assert sorted(moved["mean"]) == list(moved["mean"])
    assert moved.families.tolist() == [12] * 9


def test_children_of_digits_are_equal_before_training(digits_zoo: Path, cache: Path) -> None:
    """At epoch 0, members that differ in the optimizer alone have the same weights and head."""
    selection = children(digits_zoo, epoch=0)
    d = diversity(selection, behaviour=behaviour(selection, cache=cache, progress=False))
    for contrast in ("optimizer", "learning_rate"):
        assert of_whole(d, "agreement").loc[contrast, ["estimate", "low", "high"]].tolist() == [1, 1, 1]
        assert of_whole(d, "l2").loc[contrast, ["estimate", "low", "high"]].tolist() == [0, 0, 0]
    assert of_whole(d, "agreement").estimate["head_type"] < 1
