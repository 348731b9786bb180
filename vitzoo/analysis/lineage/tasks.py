"""Tasks of lineage recovery that anyone can submit to: checkpoints without names, and a scorer of guessed parents.

    tasks = lineage_tasks(zoo.select())
    tasks.table                         # a row for each task
    for name, weights in tasks["roles known"].iter_vectors(): ...
    tasks.score(tasks.baseline())       # a submission is a table: task, checkpoint, parent, cluster

See `vitzoo.analysis.lineage.lineage` for methods on a selection, and `vitzoo.analysis.lineage.score` for the scores.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from vitzoo.analysis.lineage import ancestry
from vitzoo.analysis.lineage.ancestry import Forest
from vitzoo.analysis.lineage.lineage import guess, measure_selection, signal_of
from vitzoo.analysis.lineage.score import LineageScore, Truth, find_truth, score_forest
from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown
from vitzoo.tables.catalogue import Catalogue
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.population import PopulationWeights
from vitzoo.zoo.selection import Selection, check_selection

NO_ANSWER = "?"  # as a parent in a submission
_COLUMNS = ("task", "checkpoint", "parent", "cluster")
_ALONE = "parents hidden"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LineageTask(Shown):
    """One task: checkpoints in random order, without their names. Made by `lineage_tasks`.

    Args:
        name: Name of the task.
        known: Facts that a method may use, besides the weights.
        families: Number of trees, if it is known.
        checkpoints: A row for each checkpoint: its ``checkpoint`` name in the task, its ``role`` (``parent`` or
            ``child``) and its ``family``. The last two are empty where they are unknown.
        method: The method of `solve`.
    """

    name: str
    known: str
    families: int | None
    checkpoints: pd.DataFrame
    method: str
    _selection: Selection
    _truth: Truth

    def __len__(self) -> int:
        return len(self.checkpoints)

    def _facts(self) -> Mapping[str, object]:
        return {"name": self.name, "known": self.known, "checkpoints": len(self)}

    def _table_rows(self) -> Sequence[Mapping[str, object]]:
        return [{str(name): value for name, value in row.items()} for row in self.checkpoints.to_dict("records")]

    @property
    def index(self) -> WeightsIndex:
        """Names, shapes and offsets of the tensors of a backbone."""
        return self._weights.index()

    def iter_vectors(self, *, dtype: Any = None) -> Iterator[tuple[str, Float[np.ndarray, " params"]]]:
        """Iterate over each checkpoint's name in the task, with its backbone as a flat vector.

        Args:
            dtype: As `vitzoo.weights.population.PopulationWeights.matrix`.
        """
        for name, (_, vector) in zip(self._names, self._weights.iter_vectors(dtype=dtype), strict=True):
            yield name, vector

    def solve(self, method: str | None = None, *, signal: str | None = None, root: str | None = None) -> pd.DataFrame:
        """Return a submission by a method of `vitzoo.lineage`, which sees what the task tells.

        Args:
            method: ``cluster-root-star``, ``cluster-root-chain``, ``mother``, or ``nearest`` if the roles are known;
                None is `method`.
            signal: As `vitzoo.lineage`.
            root: As `vitzoo.lineage`.

        Raises:
            SelectionError: The method is unknown, or needs the roles.
            WeightsError: A file is damaged.
        """
        roles = self.checkpoints["role"].to_numpy()
        methods = ("cluster-root-star", "cluster-root-chain", "mother", *(("nearest",) if roles[0] else ()))
        method = method or self.method
        if method not in methods:
            raise SelectionError(
                f'The task "{self.name}" cannot be solved by "{method}"',
                fix=did_you_mean(method, methods),
                value=method,
            )
        order, measures = measure_selection(self._selection)
        if method == "nearest":
            forest = ancestry.nearest_root(measures.squares, roles[order] == "parent")
        else:
            families = self.checkpoints["family"].to_numpy()[order]
            if families[0]:
                clusters = np.unique(families, return_inverse=True)[1]
            else:
                limit = None if self.families is None else min(self.families, len(order))
                clusters = ancestry.find_clusters(measures.squares, limit)
            name, side = signal_of(method, signal, root)
            weights = PopulationWeights(self._selection.catalogue, [self._selection[row] for row in order])
            forest = guess(weights, measures, clusters, method=method, signal=measures.signals[name], side=side)
        return self._as_submission(order, forest)

    def score(self, submission: pd.DataFrame) -> LineageScore:
        """Score a submission.

        Args:
            submission: A row for each checkpoint of the task: ``checkpoint`` and ``parent``, both names in the task.
                The parent is empty for a root, and ``?`` for no answer. Without the column ``cluster``, those that
                edges connect are one. Rows of other tasks in a column ``task`` are ignored.

        Raises:
            SelectionError: A column or checkpoint is missing, unknown or duplicate, or is its own parent.
        """
        parents, clusters, unanswered = self._parse(submission)
        blocks = (self.checkpoints["role"] + self.checkpoints["family"]).tolist()
        return score_forest(parents, clusters, unanswered, truth=self._truth, blocks=blocks)

    @property
    def _names(self) -> list[str]:
        return self.checkpoints["checkpoint"].tolist()

    @property
    def _weights(self) -> PopulationWeights:
        return PopulationWeights(self._selection.catalogue, self._selection.refs)

    def _as_submission(self, order: Sequence[int], forest: Forest) -> pd.DataFrame:
        names = self._names
        rows = {name: {"task": self.name, "checkpoint": name, "parent": NO_ANSWER, "cluster": -1} for name in names}
        for place, (row, parent) in enumerate(zip(order, forest.parents, strict=True)):
            answer = NO_ANSWER if forest.tied[place] else "" if parent < 0 else names[order[parent]]
            if self.name == _ALONE:
                answer = ""
            rows[names[row]] |= {"parent": answer, "cluster": int(forest.clusters[place])}
        return pd.DataFrame(list(rows.values()), columns=list(_COLUMNS))

    def _parse(self, submission: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the parents' rows, the clusters, and True for each checkpoint without an answer."""
        places = {name: row for row, name in enumerate(self._names)}
        missing = [name for name in ("checkpoint", "parent") if name not in submission]
        if missing:
            raise SelectionError(
                f'The submission has no column "{missing[0]}"', expected="checkpoint and parent", value=missing[0]
            )
        if "task" in submission:
            submission = pd.DataFrame(submission[submission["task"] == self.name])
        answers: dict[str, tuple[str, Any]] = {}
        parents = submission["parent"].fillna("").tolist()
        clusters = submission["cluster"].tolist() if "cluster" in submission else [None] * len(parents)
        for name, parent, cluster in zip(submission["checkpoint"].tolist(), parents, clusters, strict=True):
            for value in (name, *((parent,) if parent not in ("", NO_ANSWER) else ())):
                if value not in places:
                    raise SelectionError(
                        f'The task "{self.name}" has no checkpoint "{value}"',
                        fix=did_you_mean(value, places),
                        value=value,
                    )
            if name in answers or name == parent:
                problem = "its own parent" if name == parent else "in two rows"
                raise SelectionError(f'"{name}" of the task "{self.name}" is {problem}', value=name)
            answers[name] = parent, cluster
        without = [name for name in places if name not in answers]
        if without:
            raise SelectionError(
                f'The submission lacks {len(without)} checkpoints of the task "{self.name}", such as {without[0]}',
                expected='a row for each; the parent "?" means no answer',
                value=without[0],
            )
        rows = np.array([places.get(answers[name][0], -1) for name in places], np.int64)
        labels = [answers[name][1] for name in places] if "cluster" in submission else _components(rows)
        return rows, pd.factorize(np.array(labels, object))[0], np.array([answers[n][0] == NO_ANSWER for n in places])


def _components(parents: np.ndarray) -> list[int]:
    """Return a label for all checkpoints that edges connect."""
    labels = np.arange(len(parents))
    for row in np.flatnonzero(parents >= 0):
        labels[labels == labels[row]] = labels[parents[row]]
    return labels.tolist()


@dataclass(frozen=True, eq=False, repr=False)
class LineageTasks(Shown, Mapping[str, LineageTask]):
    """Tasks by name. Made by `lineage_tasks`.

    Args:
        left_out: Tasks that the selection cannot make, with the reason.
    """

    _tasks: Mapping[str, LineageTask]
    left_out: Mapping[str, str]

    def __getitem__(self, name: str) -> LineageTask:
        if name not in self._tasks:
            raise SelectionError(f'There is no task "{name}"', fix=did_you_mean(name, self._tasks), value=name)
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def _facts(self) -> Mapping[str, object]:
        facts = {"tasks": len(self), "checkpoints": sum(map(len, self.values()))}
        return facts | ({"left_out": tuple(self.left_out)} if self.left_out else {})

    def _table_rows(self) -> Sequence[Mapping[str, object]]:
        return [{str(name): value for name, value in row.items()} for row in self.table.to_dict("records")]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each task: its checkpoints, families and known facts, and the shipped method."""
        return pd.DataFrame(
            {
                "task": task.name,
                "checkpoints": len(task),
                "families": len(set(task._truth.families)),
                "known": task.known,
                "method": task.method,
            }
            for task in self.values()
        )

    def baseline(self) -> pd.DataFrame:
        """Return the submission of the shipped methods, for all tasks."""
        return pd.concat([task.solve() for task in self.values()], ignore_index=True)

    def score(self, submission: pd.DataFrame) -> pd.DataFrame:
        """Score a submission with the column ``task``: a row for each of its tasks and each measure.

        Raises:
            SelectionError: There is no such column or task, or as `LineageTask.score`.
        """
        if "task" not in submission:
            raise SelectionError(
                'The submission has no column "task"', expected="task, checkpoint, parent", value="task"
            )
        names = list(dict.fromkeys(submission["task"].tolist()))
        tables = [self[name].score(submission).table.assign(task=name) for name in names]
        if not tables:
            raise SelectionError("The submission has no rows", expected="a row for each checkpoint", value=0)
        scores = pd.concat(tables, ignore_index=True)
        return scores.reindex(columns=["task", *(name for name in scores.columns if name != "task")])


def lineage_tasks(selection: Selection, *, seed: int = 0) -> LineageTasks:
    """Make tasks from the members of a selection, each with one checkpoint.

    The selected checkpoints are used but for ``mixed epochs`` and ``chains of depth 3``, which take other saved epochs
    of the same members. A Hub zoo's weights are downloaded when a task is read.

    Args:
        selection: One checkpoint of each member, of parents and children.
        seed: Seed of the order, of the drawn epochs and of the missing half.

    Raises:
        SelectionError: The selection is empty, or has two checkpoints of a member.
    """
    check_selection(selection, each="member")
    generator = np.random.default_rng(seed)
    tasks, left_out = {}, {}
    for name, refs, facts in _plan(selection, generator):
        shuffled = selection.with_refs([refs[place] for place in generator.permutation(len(refs))])
        truth = find_truth(shuffled) if refs else None
        if truth is None or (name != _ALONE and not (truth.parents >= 0).any()):
            left_out[name] = facts.get("reason", "no child is selected with its parent")
            continue
        tasks[name] = _make_task(name, shuffled, truth, facts)
    return LineageTasks(tasks, left_out)


def _plan(
    selection: Selection, generator: np.random.Generator
) -> Iterator[tuple[str, list[MemberRef], dict[str, Any]]]:
    """Iterate over the name of each task, its checkpoints and its facts; a task without material has none."""
    refs, catalogue = list(selection), selection.catalogue
    children = [ref for ref in refs if not ref.member.is_parent]
    star = {"method": "cluster-root-star"}
    yield "roles known", refs, {"known": "parents and children", "method": "nearest", "roles": True}
    yield "families known", refs, {"known": "the family of each", "labels": True, **star}
    yield "nothing known", refs, {"known": "the number of families", "counted": True, **star}
    yield "number of families unknown", refs, {"known": "nothing", **star}
    hidden = {"known": "the number of families; all parents are hidden", "counted": True, **star}
    yield _ALONE, children, hidden | {"reason": "no child is selected"}
    yield (
        "two roots of one initialisation",
        _sharing_a_start(selection),
        {"known": "the number of families", "counted": True, **star, "reason": "no two parents share an init_group"},
    )
    drawn = [MemberRef(ref.member, ref.zoo, _draw_epoch(catalogue, ref, generator)) for ref in refs]
    yield "mixed epochs", drawn, {"known": "the number of families", "counted": True, **star}
    chains = {"known": "the family of each", "labels": True, "method": "cluster-root-chain"}
    yield "chains of depth 3", _chains(catalogue, refs), chains | {"reason": "no child has three saved epochs"}
    half = [refs[place] for place in sorted(generator.permutation(len(refs))[: (len(refs) + 1) // 2])]
    yield "half of the members missing", half, {"known": "the number of families", "counted": True, **star}


def _sharing_a_start(selection: Selection) -> list[MemberRef]:
    """Return the checkpoints of all trees that share an ``init_group`` with another selected tree."""
    rows = selection.members_table.to_pylist()
    groups = {ref.member: row["init_group"] for ref, row in zip(selection, rows, strict=True)}
    parents = Counter(group for member, group in groups.items() if member.is_parent)
    return [ref for ref in selection if parents[groups[ref.member]] > 1]


def _trained_epochs(catalogue: Catalogue, ref: MemberRef) -> list[int | None]:
    """Return the saved epochs from 1, ascending; the last one is the final weights if these are saved."""
    last, saved = max(catalogue.epoch_places[ref.member]), catalogue.saved_epochs(ref.member)
    return [epoch for epoch in saved if epoch is None or (epoch >= 1 and not (epoch == last and None in saved))]


def _draw_epoch(catalogue: Catalogue, ref: MemberRef, generator: np.random.Generator) -> int | None:
    epochs = _trained_epochs(catalogue, ref)
    return epochs[int(generator.integers(len(epochs)))] if epochs else ref.epoch


def _chains(catalogue: Catalogue, refs: Sequence[MemberRef]) -> list[MemberRef]:
    """Return the parents, and three epochs of each child: at 2/8, 5/8 and the end of its training."""
    chosen = []
    for ref in refs:
        epochs = [ref.epoch] if ref.member.is_parent else _trained_epochs(catalogue, ref)
        if not ref.member.is_parent:
            count = len(epochs)
            epochs = [epochs[-(-count * eighths // 8) - 1] for eighths in (2, 5, 8)] if count >= 3 else []
        chosen += [MemberRef(ref.member, ref.zoo, epoch) for epoch in epochs]
    return chosen if any(not ref.member.is_parent for ref in chosen) else []


def _make_task(name: str, selection: Selection, truth: Truth, facts: Mapping[str, Any]) -> LineageTask:
    width = len(str(len(selection) - 1))
    trees = list(dict.fromkeys(truth.trees))  # in shuffled order
    roles = ["parent" if ref.member.is_parent else "child" for ref in selection]
    families = [f"family {trees.index(tree)}" for tree in truth.trees]
    empty = [""] * len(selection)
    return LineageTask(
        name=name,
        known=facts["known"],
        families=len(trees) if facts.get("counted") or facts.get("labels") else None,
        checkpoints=pd.DataFrame(
            {
                "checkpoint": [f"m{row:0{width}d}" for row in range(len(selection))],
                "role": roles if facts.get("roles") else empty,
                "family": families if facts.get("labels") else empty,
            }
        ),
        method=facts["method"],
        _selection=selection,
        _truth=truth,
    )
