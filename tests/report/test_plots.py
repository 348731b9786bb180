"""Pictures: the numbers that they draw, compared with tables and with other ways to compute them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.conftest import edit
from tests.test_cli import diverge
from vitzoo import Zoo, behaviour, lineage
from vitzoo.analysis.diversity.diversity import diversity
from vitzoo.errors import SelectionError
from vitzoo.report import plots
from vitzoo.report.rows import find_factors
from vitzoo.weights.distances import Distances


def layer(chart: Any, number: int) -> list[dict[str, Any]]:
    """Return the rows of a layer's data."""
    specification = chart.to_dict()
    data = specification["layer"][number].get("data") or specification["data"]
    return specification["datasets"][data["name"]] if "name" in data else data["values"]


def test_components_are_those_of_the_centred_weights(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    weights = zoo.weights()
    places, shares = plots.principal_components(weights.distances().values)
    matrix = weights.matrix(dtype="float64").values
    left, values, _ = np.linalg.svd(matrix - matrix.mean(0), full_matrices=False)
    assert np.allclose(np.abs(places), np.abs(left[:, :2] * values[:2]), atol=1e-6 * values[0])
    assert np.allclose(shares, values[:2] ** 2 / (values**2).sum(), atol=1e-9)
    marks = layer(plots.weights_map(zoo.select()), 0)
    assert [mark["label"].split(":")[0] for mark in marks] == [str(ref.member) for ref in weights.refs]
    assert np.allclose([[mark["x"], mark["y"]] for mark in marks], places)


def test_order_puts_near_members_next_to_each_other() -> None:
    points = np.array([0.0, 10.0, 1.0, 11.5, 30.0])
    order = plots.dendrogram_order(np.abs(points[:, None] - points)).tolist()
    assert order in ([0, 2, 1, 3, 4], [4, 3, 1, 2, 0])


def test_distance_map_names_each_member_s_nearest(tiny_zoo: Path) -> None:
    selection = Zoo(tiny_zoo).select()
    distances = Zoo(tiny_zoo).weights(selection).distances()
    strips = layer(plots.distance_map(selection, distances), 1)
    ids = [str(ref.member) for ref in distances.refs]
    others = distances.values + np.diag(np.full(len(ids), np.inf))
    assert {strip["label"] for strip in strips} == {
        f"{member}: nearest {ids[row.argmin()]}, distance {row.min():.3g}"
        for member, row in zip(ids, others, strict=True)
    }


def test_members_without_finite_weights_are_left_out(tiny_zoo: Path) -> None:
    selection = Zoo(tiny_zoo).select()
    distances = Zoo(tiny_zoo).weights(selection).distances()
    values = distances.values.copy()
    values[3] = values[:, 3] = np.nan
    values[3, 3] = 0
    strips = layer(plots.distance_map(selection, Distances(values, None, distances.refs)), 1)
    assert len(strips) == len(selection) - 1
    assert not any(strip["label"].startswith(f"{selection[3].member}:") for strip in strips)
    values[:, 1:] = values[1:] = np.nan
    with pytest.raises(SelectionError) as error:
        plots.weights_map(selection, Distances(values, None, distances.refs))
    assert error.value.value == 0
    with pytest.raises(SelectionError) as error:
        plots.distance_map(selection[:1])
    assert error.value.value == 0


def test_family_tree_draws_each_member_once(tiny_copy: Path) -> None:
    diverge(tiny_copy)
    selection = Zoo(tiny_copy).select(status="any")
    rows = {row["id"]: row for row in selection.members_table.to_pylist()}
    chart = plots.family_tree(selection)
    marks = {mark["label"].split(":")[0]: mark for mark in layer(chart, 1)}
    assert list(marks) == list(rows)
    assert {name: mark["kind"] for name, mark in marks.items() if mark["kind"] != "child"} == {
        "pt-0": "parent",
        "pt-1": "parent",
        "pt-2": "parent",
        "pt-0/ft-0": "did not complete",
    }
    assert marks["pt-0"]["accuracy"] == rows["pt-0"]["final_test_accuracy"]
    assert marks["pt-2"]["accuracy"] == rows["pt-2"]["final_test_knn_accuracy"]
    assert marks["pt-2"]["label"].startswith("pt-2: test k-NN accuracy 0.")
    assert marks["pt-0/ft-0"]["label"].endswith(", diverged")
    assert len({(mark["x"], mark["y"]) for mark in marks.values()}) == len(rows)
    assert [mark["y"] for name, mark in marks.items() if "/" not in name] == [0, 1, 2]


def test_accuracies_by_factor_have_the_means_of_the_table(tiny_zoo: Path) -> None:
    selection = Zoo(tiny_zoo).select(stage="finetuning")
    table = selection.members_table.to_pandas()
    chart = plots.accuracy_by_factor(selection, "head_type", part="val")
    expected = table.groupby("head_type").final_val_accuracy.mean()
    assert {row["value"]: row["mean"] for row in layer(chart, 1)} == pytest.approx(expected.to_dict())
    assert sorted(row["accuracy"] for row in layer(chart, 0)) == sorted(table.final_val_accuracy)
    for factor, part in (("optimiser", "val"), ("optimizer", "tset")):
        with pytest.raises(SelectionError):
            plots.accuracy_by_factor(selection, factor, part=part)


def test_curves_have_all_epochs_of_the_table(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    points = layer(plots.training_curves(zoo.select(stage="pretraining"), colour="objective"), 0)
    for row in zoo.table("epochs").to_pylist():
        known = row["val_knn_accuracy"] if row["val_accuracy"] is None else row["val_accuracy"]
        drawn = [point for point in points if (point["id"], point["epoch"]) == (row["id"], row["epoch"])]
        assert [point["value"] for point in drawn] == ([known] if "/" not in row["id"] else [])
    assert {point["label"] for point in points} == {"pt-0: supervised", "pt-1: supervised", "pt-2: contrastive"}
    for arguments in ({"metric": "val_acuracy"}, {"colour": "objektive"}, {"metric": "test_accuracy", "colour": "lab"}):
        with pytest.raises(SelectionError):
            plots.training_curves(zoo.select(), **arguments)


def test_cka_means_are_those_of_the_pairs(tiny_zoo: Path, tmp_path: Path) -> None:
    selection = Zoo(tiny_zoo).select(stage="finetuning")
    found = behaviour(selection, keep=("features",), cache=tmp_path, progress=False)
    families = {str(member): str(member.parent_id) for member in selection.ids}
    points = plots.cka_means(found, families)
    values = found.cka("layer.0", pool="mean").values
    own = [families[str(member)] for member in selection.ids]
    pairs = [values[i, j] for i in range(len(own)) for j in range(i) if own[i] == own[j]]
    (point,) = [p for p in points if (p["layer"], p["pool"], p["pairs"]) == ("layer.0", "mean", "one family")]
    assert point["mean"] == pytest.approx(np.mean(pairs), abs=1e-12)
    assert (point["number"], point["low"], point["high"]) == (len(pairs), None, None)  # of three families
    assert not any((p["layer"], p["pool"]) == ("embeddings", "cls") for p in points)  # equal for all images
    assert len(layer(plots.cka_by_layer(found, families), 2)) == len(points)


def test_lineage_scores_are_drawn_with_a_random_guess(tiny_zoo: Path) -> None:
    selection = Zoo(tiny_zoo).select()
    scores = {method: lineage(selection, method=method).score() for method in ("nearest", "digest")}
    points = layer(plots.lineage_scores(scores), 1)
    assert [(point["method"], point["measure"], point["estimate"]) for point in points] == [
        (method, measure, 1.0) for method in scores for measure in ("edges", "roots", "adjusted rand")
    ]
    assert points[0]["random"] == pytest.approx(1 / 3)
    assert {point["low"] for point in points} == {None}  # two families have no interval
    with pytest.raises(SelectionError):
        plots.lineage_scores({})


def test_contrasts_draw_the_rows_of_whole_models(tiny_zoo: Path) -> None:
    table = diversity(Zoo(tiny_zoo).select(stage="finetuning")).contrasts
    points = layer(plots.contrasts(table, "l2"), 1)
    rows = table[(table["measure"] == "l2") & (table["layer"] == "")]
    assert [point["contrast"] for point in points] == rows["contrast"].tolist()
    assert [point["estimate"] for point in points] == rows["estimate"].tolist()
    assert {point["low"] for point in points} == {None}  # two families have no interval
    with pytest.raises(SelectionError):
        plots.contrasts(table, "l3")


def test_factors_are_those_that_vary(tiny_copy: Path) -> None:
    for place, path in enumerate(sorted(tiny_copy.glob("pt-*/ft-*/member.json"))):
        edit(path, extra={"lab": place // 3 % 2, "run": place})
    rows = Zoo(tiny_copy).select(stage="finetuning").members_table.to_pylist()
    found = {factor.name: factor for factor in find_factors(rows, most_values=4)}
    assert set(found) == {"pretraining_objective", "head_type", "lab"}  # not run, seeds and constants
    assert found["head_type"].same == ("head_width",)
    assert found["head_type"].title == "head_type (and with it head_width)"
    differences = [factor.difference for factor in found.values()]
    assert differences == sorted(differences, reverse=True)
    means = [np.mean([row["final_val_accuracy"] for row in rows if row["lab"] == value]) for value in (0, 1)]
    assert found["lab"].difference == pytest.approx(abs(means[0] - means[1]))


def test_empty_selections_are_refused(tiny_zoo: Path) -> None:
    empty = Zoo(tiny_zoo).select()[:0]
    for draw in (
        plots.family_tree,
        plots.training_curves,
        lambda chosen: plots.accuracy_by_factor(chosen, "optimizer"),
    ):
        with pytest.raises(SelectionError):
            draw(empty)


def test_a_chart_is_saved_without_a_network(tiny_zoo: Path, tmp_path: Path) -> None:
    chart = plots.family_tree(Zoo(tiny_zoo).select())
    chart.save(tmp_path / "tree.svg")
    chart.save(tmp_path / "tree.png")
    assert (tmp_path / "tree.svg").read_text().count("pt-0/ft-0: test accuracy") == 1
    assert (tmp_path / "tree.png").read_bytes().startswith(b"\x89PNG")
