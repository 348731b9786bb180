"""Lineage of zoos: digits, images, texts and the Hub; zoos on which the root signals fail; bad input."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.hub.server import Hub
from tests.published import REPO, plant
from tests.tiny import tiny, train_here
from tests.weights.checkpoints import map_tensors, rewrite
from training.recipes.training import Training
from vitzoo import Zoo, lineage
from vitzoo.analysis.lineage.lineage import Lineage
from vitzoo.architectures.architecture import FirstValue
from vitzoo.architectures.vit import VIT
from vitzoo.errors import ConflictingArgumentsError, SelectionError, WeightsError

Shared = Callable[[str, Callable[[Path], None]], Path]


def edges(found: Lineage) -> dict[str, str]:
    return dict(zip(found.edges["child"], found.edges["parent"], strict=True))


def accuracies(found: Lineage) -> dict[str, float]:
    return dict(zip(found.signals["signal"], found.signals["accuracy"], strict=True))


def parents_of(zoo: Path | str) -> dict[str, str]:
    return {str(id_): str(id_.parent_id) for id_ in Zoo(zoo).select().ids if not id_.is_parent}


def test_lineage_of_the_digits_zoo(digits_zoo: Path) -> None:
    selection = Zoo(digits_zoo).select()
    truth = parents_of(digits_zoo)
    assert edges(lineage(selection, method="nearest")) == edges(lineage(selection, method="digest")) == truth
    known = lineage(selection, families=13)
    assert edges(known) == truth
    assert [str(ref.member) for ref in known.roots] == [f"pt-{number}" for number in range(13)]
    assert known.score()["adjusted_rand"] == 1
    assert {name: value for name, value in accuracies(known).items() if name != "kurtosis"} == {
        "bias_norm": 1.0,
        "gain_distance": 1.0,
        "backbone_norm": 1.0,
    }
    assert 0.3 < accuracies(known)["kurtosis"] < 0.6
    found = lineage(selection)
    score = found.score()
    assert len(found.clusters) == 12
    assert score.merged == (("pt-0", "pt-1"),)
    assert (score["edges"], score["roots"]) == (112 / 128, 12 / 13)
    row = score.table.set_index("measure").loc["edges"]
    assert row["families"] == 12
    assert row["low"] < 112 / 128 <= row["high"]
    mother = lineage(selection, method="mother", families=13).score()
    assert 0.04 < mother["edges"] < 0.25  # .109 of one digits zoo
    assert mother["roots"] < 0.3


def test_evidence_has_the_best_and_the_second_best_parent(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    selection = zoo.select()
    found = lineage(selection, method="nearest")
    assert edges(found) == parents_of(tiny_zoo)
    assert [str(ref.member) for ref in found.roots] == ["pt-0", "pt-1", "pt-2"]
    assert [len(cluster) for cluster in found.clusters] == [5, 3, 3]
    distances = zoo.weights(selection).distances().values
    names = [str(ref.member) for ref in selection]
    evidence = found.evidence.set_index("checkpoint")
    assert list(evidence.index) == names
    for child, parent in edges(found).items():
        row, own = evidence.loc[child], distances[names.index(child)]
        others = sorted((own[names.index(other)], other) for other in ("pt-0", "pt-1", "pt-2"))
        assert row["parent"] == parent == others[0][1]
        assert row["distance"] == pytest.approx(others[0][0], rel=1e-9)
        assert row["second"] == others[1][1]
        assert row["second_distance"] == pytest.approx(others[1][0], rel=1e-9)
        assert row["margin"] == pytest.approx(others[1][0] / others[0][0], rel=1e-9)
    assert evidence.loc["pt-0", "parent"] == ""
    assert np.isnan(evidence.loc["pt-0", "distance"])
    table = found.score().table.set_index("measure")
    assert table.loc["edges", "random"] == pytest.approx(1 / 3)
    assert table.loc["roots", "random"] == 1
    assert repr(found) == "Lineage(method=nearest, checkpoints=11, clusters=3, roots=3, edges=8)"
    assert "pt-0/ft-3" in found._repr_html_()


@pytest.mark.parametrize("method", ["nearest", "cluster-root-star", "cluster-root-chain", "mother", "digest"])
def test_answers_do_not_depend_on_the_order(method: str, tiny_zoo: Path) -> None:
    selection = Zoo(tiny_zoo).select()
    expected = lineage(selection, method=method)
    order = np.random.default_rng(3).permutation(len(selection)).tolist()
    shuffled = lineage(selection.with_refs([selection[place] for place in order]), method=method)
    assert edges(shuffled) == edges(expected)
    again = shuffled.evidence.set_index("checkpoint").loc[expected.evidence["checkpoint"]].reset_index()
    pd.testing.assert_frame_equal(again.drop(columns="cluster"), expected.evidence.drop(columns="cluster"), rtol=0)
    together = {frozenset(cluster) for cluster in expected.clusters}
    assert {frozenset(cluster) for cluster in shuffled.clusters} == together
    assert shuffled.score().table.equals(expected.score().table)


def _without_decay(training: Training) -> Training:
    return replace(training, optimizer=replace(training.optimizer, weight_decay=0.0))


def test_a_norm_does_not_point_to_the_parent_without_weight_decay(undecayed_zoo: Path) -> None:
    found = lineage(Zoo(undecayed_zoo).select(), signal="backbone_norm", families=3)
    assert accuracies(found)["backbone_norm"] == 0  # it grows; on the digits zoo it shrinks on all edges
    assert found.score()["edges"] == found.score()["roots"] == 0
    other = lineage(Zoo(undecayed_zoo).select(), signal="backbone_norm", root="smallest", families=2).score()
    assert other["roots"] == 2 / 3  # pt-0 or pt-1 and pt-2


@pytest.fixture(scope="module")
def undecayed_zoo(shared: Shared) -> Path:
    recipe = tiny()
    parents = tuple(replace(parent, training=_without_decay(parent.training)) for parent in recipe.parents)
    children = replace(recipe.children, training=_without_decay(recipe.children.training))
    recipe = replace(recipe, name="without-decay", parents=parents, children=children)
    return shared("zoo-without-decay", lambda folder: train_here(recipe, folder))


@pytest.mark.slow
def test_signals_fail_with_other_starting_values_and_the_score_says_so(
    tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = type(VIT).first_value

    def first_value(*arguments: object) -> FirstValue:
        first = original(*arguments)  # pyright: ignore[reportArgumentType]
        return FirstValue("constant", 2.0 if first.value == 1 else 0.5) if first.rule == "constant" else first

    assert accuracies(lineage(Zoo(tiny_zoo).select()))["gain_distance"] == 1
    monkeypatch.setattr(type(VIT), "first_value", first_value)
    train_here(tiny(), tmp_path / "other")
    selection = Zoo(tmp_path / "other").select()
    found = lineage(selection)
    assert accuracies(found)["gain_distance"] == 0  # gains of 2 that shrink come nearer to 1
    assert found.score()["edges"] == found.score()["roots"] == 0
    assert found.score()["adjusted_rand"] > 0.4
    assert lineage(selection, root="largest").score()["edges"] >= 0.5
    assert lineage(selection, method="nearest").score()["edges"] == 1


def test_lineage_of_texts(text_zoo: Path) -> None:
    selection = Zoo(text_zoo).select()
    truth = parents_of(text_zoo)
    assert len(truth) >= 4
    assert edges(lineage(selection, method="nearest")) == truth
    found = lineage(selection)
    assert len(found.evidence) == len(selection)
    assert set(accuracies(found)) == {"bias_norm", "gain_distance", "backbone_norm", "kurtosis"}


def test_lineage_of_a_hub_zoo_downloads_only_the_weights_that_it_reads(hub: Hub, tiny_zoo: Path) -> None:
    plant(hub, tiny_zoo)
    selection = Zoo(REPO).select(init_group="init-2")
    with hub.recorded() as requests:
        by_digest = lineage(selection, method="digest")
    assert not requests.of(path="safetensors")
    assert edges(by_digest) == {"pt-2/ft-0": "pt-2", "pt-2/ft-1": "pt-2"}
    with hub.recorded() as requests:
        found = lineage(selection, method="nearest")
    asked = {request.path for request in requests.of(path="safetensors")}
    assert {path.split("resolve/")[-1].partition("/")[2] for path in asked if "resolve/" in path} == {
        f"{member}/model.safetensors" for member in selection.ids
    }
    local = lineage(Zoo(tiny_zoo).select(init_group="init-2"), method="nearest")
    pd.testing.assert_frame_equal(found.evidence, local.evidence, rtol=0)


def test_lineage_of_a_copy_without_a_parent(tiny_copy: Path) -> None:
    zoo = Zoo(tiny_copy)
    selection = zoo.select(stage="finetuning")
    found = lineage(selection, families=2)
    assert sorted(len(cluster) for cluster in found.clusters) == [2, 6]
    score = found.score()
    assert np.isnan(score["edges"])
    assert score.merged == (("pt-0", "pt-1"),)
    assert score.table.set_index("measure").loc["roots", "total"] == 8
    with pytest.raises(SelectionError):
        lineage(selection, method="nearest")
    assert lineage(selection, method="digest").edges.empty


def test_epoch_0_alone_is_ties(tiny_zoo: Path) -> None:
    """Children of one parent have its backbone at epoch 0, so nothing tells which one is the parent."""
    selection = Zoo(tiny_zoo).select(stage="finetuning", epoch=0)
    for found in (lineage(selection, families=3), lineage(selection, method="digest")):
        assert found.edges.empty
        assert found.evidence["tied"].sum() in (5, 8)
    assert len(lineage(selection).clusters) <= 3
    one = lineage(selection[:1])
    assert (len(one.roots), len(one.clusters), len(one.edges)) == (1, 1, 0)
    assert lineage(selection[:1], method="mother").roots == one.roots == tuple(selection[:1])


def test_nan_weights_are_left_out(tiny_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewrite(tiny_copy / "pt-1/ft-0", map_tensors(lambda tensor: tensor * float("nan")))
    found = lineage(Zoo(tiny_copy).select(), method="nearest")
    assert dict(found.left_out) == {"pt-1/ft-0": "its weights are NaN or infinite"}
    assert "pt-1/ft-0" in caplog.text
    assert len(found.refs) == len(found.evidence) == 10
    assert found.score()["edges"] == 1
    assert repr(found).endswith(", left_out=1)")
    with pytest.raises(SelectionError):
        lineage(Zoo(tiny_copy).select(stage="finetuning")[4:5])


def test_zero_weights_and_gains_have_an_answer(tiny_copy: Path) -> None:
    for member in ("pt-1", "pt-1/ft-0", "pt-1/ft-1"):
        rewrite(tiny_copy / member, map_tensors(lambda tensor: tensor * 0))
    found = lineage(Zoo(tiny_copy).select(), families=3)
    assert found.evidence["tied"].tolist().count(True) == 2
    assert found.evidence["backbone_norm"].tolist().count(0.0) == 3


def test_backbones_of_other_shapes_are_refused(tiny_zoo: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_zoo, tmp_path / "zoo")
    rewrite(tmp_path / "zoo/pt-1", lambda tensors: {n: t for n, t in tensors.items() if n != "vit.layernorm.bias"})
    with pytest.raises(WeightsError):
        lineage(Zoo(tmp_path / "zoo").select())


@pytest.mark.parametrize(
    ("arguments", "error", "value"),
    [
        ({"method": "nearst"}, SelectionError, "nearst"),
        ({"signal": "bias"}, SelectionError, "bias"),
        ({"root": "small"}, SelectionError, "small"),
        ({"families": 0}, SelectionError, 0),
        ({"families": 12}, SelectionError, 12),
        ({"families": True}, SelectionError, True),
        ({"method": "nearest", "families": 3}, ConflictingArgumentsError, None),
        ({"method": "digest", "signal": "bias_norm"}, ConflictingArgumentsError, None),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, error: type[Exception], value: object, tiny_zoo: Path) -> None:
    with pytest.raises(error) as raised:
        lineage(Zoo(tiny_zoo).select(), **arguments)
    assert getattr(raised.value, "value", None) == value


def test_an_empty_selection_is_refused(tiny_zoo: Path) -> None:
    with pytest.raises(SelectionError):
        lineage(Zoo(tiny_zoo).select()[:0])
