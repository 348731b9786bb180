"""Tasks of lineage: no name leaks, submissions are scored as hand-made answers say, and bad ones are refused."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.tiny import tiny, train_here
from vitzoo import Zoo
from vitzoo.analysis.lineage.tasks import LineageTask, LineageTasks, lineage_tasks
from vitzoo.errors import SelectionError

ALL = [
    "roles known",
    "families known",
    "nothing known",
    "number of families unknown",
    "parents hidden",
    "two roots of one initialisation",
    "mixed epochs",
    "chains of depth 3",
    "half of the members missing",
]


@pytest.fixture(scope="module")
def tasks(tiny_zoo: Path) -> LineageTasks:
    return lineage_tasks(Zoo(tiny_zoo).select())


def recorded(task: LineageTask) -> pd.DataFrame:
    """Return the recorded answer, as a submission."""
    names = task.checkpoints["checkpoint"].tolist()
    truth = task._truth
    parents = [names[parent] if parent >= 0 else "" for parent in truth.parents]
    return pd.DataFrame({"task": task.name, "checkpoint": names, "parent": parents, "cluster": truth.trees})


def test_tasks_of_a_zoo_are_a_table(tasks: LineageTasks) -> None:
    assert list(tasks) == [name for name in ALL if name != "chains of depth 3"]
    assert dict(tasks.left_out) == {"chains of depth 3": "no child has three saved epochs"}
    table = tasks.table.set_index("task")
    assert table["checkpoints"].tolist() == [11, 11, 11, 11, 8, 8, 11, 6]
    assert table.loc["two roots of one initialisation", "families"] == 1
    assert (tasks["nothing known"].families, tasks["number of families unknown"].families) == (3, None)
    assert repr(tasks) == "LineageTasks(tasks=8, checkpoints=77, left_out=chains of depth 3)"
    assert "roles known" in tasks._repr_html_()
    assert len(repr(tasks["parents hidden"])) < 200


def test_a_task_hides_the_names(tasks: LineageTasks, tiny_zoo: Path) -> None:
    task = tasks["nothing known"]
    shown = f"{task!r} {task._repr_html_()} {task.checkpoints.to_csv()} {task.solve().to_csv()}"
    assert "pt-" not in shown
    assert set(task.checkpoints["role"]) == set(task.checkpoints["family"]) == {""}
    assert task._truth.names != tuple(str(ref.member) for ref in Zoo(tiny_zoo).select())
    matrix = Zoo(tiny_zoo).weights().matrix().values
    vectors = dict(task.iter_vectors())
    assert list(vectors) == task.checkpoints["checkpoint"].tolist() == [f"m{row:02d}" for row in range(11)]
    assert {vector.tobytes() for vector in vectors.values()} == {row.tobytes() for row in matrix}
    assert task.index.size == matrix.shape[1]
    roles = tasks["roles known"].checkpoints
    assert roles["role"].value_counts().to_dict() == {"child": 8, "parent": 3}
    families = tasks["families known"].checkpoints["family"]
    assert families.iloc[0] == "family 0"
    assert sorted(families.value_counts()) == [3, 3, 5]


def test_the_order_depends_on_the_seed_alone(tiny_zoo: Path) -> None:
    selection = Zoo(tiny_zoo).select()
    names = [lineage_tasks(selection, seed=seed)["nothing known"]._truth.names for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def test_the_recorded_answer_has_the_best_score(tasks: LineageTasks) -> None:
    scores = tasks.score(pd.concat([recorded(task) for task in tasks.values()]))
    assert len(scores) == 8 * 3
    unlike = [row for row in scores.to_dict("records") if row["estimate"] != 1]
    assert [(row["task"], row["measure"], row["right"], row["total"]) for row in unlike] == [
        ("parents hidden", "edges", 0, 0)
    ]


def test_shipped_methods_score_as_on_the_selection(tasks: LineageTasks) -> None:
    scores = tasks.score(tasks.baseline()).set_index(["task", "measure"])
    assert scores.loc[("roles known", "edges"), ["right", "total"]].tolist() == [8, 8]
    assert scores.loc[("roles known", "edges"), "random"] == pytest.approx(1 / 3)
    assert scores.loc[("families known", "edges"), "right"] == 8
    assert scores.loc[("families known", "adjusted_rand"), ["estimate", "random"]].tolist() == [1, 1]
    assert scores.loc[("nothing known", "edges"), "right"] == 5
    assert scores.loc[("number of families unknown", "edges"), "right"] == 6
    assert scores.loc[("parents hidden", "roots"), ["right", "total", "random"]].tolist() == [8, 8, 1]


def test_methods_see_the_facts_of_the_task_alone(tasks: LineageTasks) -> None:
    known = tasks["families known"]
    assert known.score(known.solve("mother"))["adjusted_rand"] == 1
    assert known.score(known.solve(root="largest"))["roots"] == 0
    for task, method in ((tasks["nothing known"], "nearest"), (known, "digest"), (tasks["roles known"], "neerest")):
        with pytest.raises(SelectionError) as raised:
            task.solve(method)
        assert raised.value.value == method


def test_clusters_follow_from_edges(tasks: LineageTasks) -> None:
    task = tasks["nothing known"]
    answer = recorded(task)
    assert task.score(answer.drop(columns="cluster"))["adjusted_rand"] == 1
    alone = answer.drop(columns="cluster").assign(parent="?")
    found = task.score(alone).table.set_index("measure")
    assert found["estimate"].tolist() == [0, 0, 0]
    assert found["guessed"].tolist()[:2] == [0, 0]


@pytest.mark.slow
def test_chains_take_three_epochs_of_each_child(tmp_path: Path) -> None:
    recipe = tiny()
    children = replace(recipe.children, training=replace(recipe.children.training, epochs=4))
    train_here(replace(recipe, name="longer", children=children), tmp_path / "longer")
    tasks = lineage_tasks(Zoo(tmp_path / "longer").select())
    assert list(tasks) == ALL
    truth = tasks["chains of depth 3"]._truth
    above = dict(zip(truth.names, truth.parents.tolist(), strict=True))
    children = {name.partition("@")[0] for name in truth.names if "/" in name}
    assert len(children) == 8
    assert len(above) == 3 + 3 * 8
    for child in children:  # the first, third and last of four epochs
        parent = child.partition("/")[0]
        assert truth.names[above[child]] == f"{child}@3"
        assert truth.names[above[f"{child}@3"]] == f"{child}@1"
        assert truth.names[above[f"{child}@1"]] == parent
        assert above[parent] == -1
    mixed = tasks["mixed epochs"]._truth.names
    assert {int(name.partition("@")[2] or 4) for name in mixed if "/" in name} <= {1, 2, 3, 4}
    assert any("@" in name for name in mixed)


def _change(answer: pd.DataFrame, **cells: str) -> pd.DataFrame:
    changed = answer.copy()
    for column, value in cells.items():
        changed.loc[0, column] = value
    return changed


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (lambda answer: answer.drop(columns="parent"), "parent"),
        (lambda answer: answer.drop(columns="checkpoint"), "checkpoint"),
        (lambda answer: answer.drop(columns="task"), "task"),
        (lambda answer: answer[1:], "m00"),
        (lambda answer: answer[:0], 0),
        (lambda answer: pd.concat([answer, answer[:1]]), "m00"),
        (lambda answer: _change(answer, checkpoint="m99"), "m99"),
        (lambda answer: _change(answer, parent="pt-0"), "pt-0"),
        (lambda answer: _change(answer, parent="m00"), "m00"),
        (lambda answer: _change(answer, task="everything known"), "everything known"),
    ],
)
def test_bad_submissions_are_refused(change, value: object, tasks: LineageTasks) -> None:
    with pytest.raises(SelectionError) as raised:
        tasks.score(change(recorded(tasks["nothing known"])))
    assert raised.value.value == value


def test_selections_that_make_no_task(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    alone = lineage_tasks(zoo.select(stage="finetuning"))
    assert list(alone) == ["parents hidden"]
    assert alone.left_out["roles known"] == "no child is selected with its parent"
    assert list(lineage_tasks(zoo.select(stage="pretraining"))) == []
    for selection, value in ((zoo.select()[:0], None), (zoo.select(epoch=[1, 2]), "pt-0")):
        with pytest.raises(SelectionError) as raised:
            lineage_tasks(selection)
        assert raised.value.value == (value or selection)


def test_tasks_of_the_digits_zoo(digits_zoo: Path) -> None:
    tasks = lineage_tasks(Zoo(digits_zoo).select())
    assert list(tasks) == ALL
    table = tasks.score(tasks.baseline())
    scores = dict(zip(zip(table["task"], table["measure"], strict=True), table["estimate"], strict=True))
    for name in ("roles known", "families known", "nothing known", "two roots of one initialisation"):
        assert scores[name, "edges"] == scores[name, "roots"] == 1
    assert scores["parents hidden", "adjusted_rand"] == 1
    assert scores["number of families unknown", "edges"] == 112 / 128
    assert 0.7 < scores["chains of depth 3", "edges"] < 0.9  # .80 of one digits zoo
    assert scores["mixed epochs", "edges"] > 0.8
    assert scores["half of the members missing", "adjusted_rand"] > 0.9
    assert scores["half of the members missing", "roots"] < 0.6
