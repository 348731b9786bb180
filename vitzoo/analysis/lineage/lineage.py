"""Lineage: guess the parent of each checkpoint from its weights, and score the guesses with the zoo's records.

    found = lineage(zoo.select())
    found.edges         # a row for each guessed parent
    found.score()       # edges, roots, adjusted Rand, each beside a random guess

The methods see arrays without ids, in the order of the files' digests. See `vitzoo.analysis.lineage.ancestry` for the
methods, `vitzoo.analysis.lineage.score` for the scores, and `vitzoo.analysis.lineage.tasks` for tasks.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from vitzoo.analysis.lineage import ancestry
from vitzoo.analysis.lineage.ancestry import SIGNALS, Forest, Measures
from vitzoo.analysis.lineage.score import LineageScore, Truth, find_truth, score_forest
from vitzoo.errors import ConflictingArgumentsError, SelectionError, did_you_mean
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown
from vitzoo.splits.scores import bootstrap_by_group
from vitzoo.tables.catalogue import Catalogue
from vitzoo.weights.population import PopulationWeights
from vitzoo.zoo.selection import Selection, check_selection

METHODS = ("nearest", "cluster-root-star", "cluster-root-chain", "mother", "digest")
_CLUSTERING = METHODS[1:4]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Lineage(Shown):
    """Guessed parents of a selection. Made by `lineage`.

    Checkpoints have their names in the zoo. Distances are L2 distances of backbones for all methods but ``mother``.

    Args:
        refs: The compared checkpoints, in the selection's order.
        method: The method.
        edges: A row for each checkpoint with a guessed parent: ``parent``, ``child`` and ``distance``.
        roots: Checkpoints that are guessed to have no parent among the others.
        clusters: Checkpoints by guessed family.
        evidence: A row for each checkpoint: its ``cluster``, ``parent`` and ``distance``; the second best parent
            (``second``) with its distance; ``margin``, the second distance over the first; ``tied``, True where two
            answers fit equally well, so that none is given; and the values of the root signals.
        signals: A row for each root signal. ``root`` is the side on which it expects the root. ``accuracy`` is the
            share of the recorded edges on which it points from parent to child, with an interval over families.
            ``chosen_on`` is the population on which it was chosen. Elsewhere it may fail.
        deviations: Differences from the published method.
        left_out: Checkpoints without an answer, with the reason.
    """

    refs: tuple[MemberRef, ...]
    method: str
    edges: pd.DataFrame
    roots: tuple[MemberRef, ...]
    clusters: tuple[tuple[MemberRef, ...], ...]
    evidence: pd.DataFrame
    signals: pd.DataFrame
    deviations: tuple[str, ...]
    left_out: Mapping[str, str]
    _forest: Forest
    _truth: Truth
    _blocks: tuple[str, ...]

    def _facts(self) -> Mapping[str, object]:
        numbers = {
            "method": self.method,
            "checkpoints": len(self.refs),
            "clusters": len(self.clusters),
            "roots": len(self.roots),
            "edges": len(self.edges),
        }
        others = {"ties": int(self._forest.tied.sum()), "left_out": len(self.left_out)}
        return numbers | {name: count for name, count in others.items() if count}

    def _table_rows(self) -> Sequence[Mapping[str, object]]:
        return [{str(name): value for name, value in row.items()} for row in self.evidence.to_dict("records")]

    def score(self) -> LineageScore:
        """Score the guesses with the recorded parents. Checkpoints that are left out are not scored."""
        forest = self._forest
        return score_forest(forest.parents, forest.clusters, forest.tied, truth=self._truth, blocks=self._blocks)


def lineage(
    selection: Selection,
    *,
    method: str = "cluster-root-star",
    families: int | None = None,
    signal: str | None = None,
    root: str | None = None,
) -> Lineage:
    """Guess the parent of each checkpoint from its weights.

    - ``nearest``: the roles are known. The parent of each child is the nearest parent.
    - ``cluster-root-star``: clusters by Ward's linkage. A signal finds the root, which is the parent of all others.
    - ``cluster-root-chain``: the same, but the parent may be another ancestor, whose move from the root the child kept.
    - ``mother``: the same clusters. A minimum arborescence of the distances of MoTHer, in each.
    - ``digest``: the parent's backbone is the child's at epoch 0, by the recorded digests. No weights are read.

    Heads are not read. Of a Hub zoo, the weights of the selection are downloaded, but none for ``digest``.

    Args:
        selection: Checkpoints with backbones of one shape.
        method: The method.
        families: Number of clusters; None finds it at the largest rise of the linkage's heights, two at least.
        signal: Root signal from `vitzoo.analysis.lineage.ancestry.SIGNALS`; None is ``gain_distance``, and
            ``kurtosis`` for ``mother``.
        root: Side of the signal on which the root is expected, ``smallest`` or ``largest``; None is the signal's own.

    Raises:
        SelectionError: The selection is empty or has a checkpoint twice; an argument is unknown or out of range; no
            parent is selected for ``nearest``; or no checkpoint has finite weights.
        ConflictingArgumentsError: The method has no such argument.
        WeightsError: Two backbones have different tensors, or a file is damaged.

    Source: ``mother`` is Horwitz et al. 2025, Unsupervised Model Tree Heritage Recovery, with `Lineage.deviations`.

    Example:
        >>> from vitzoo import Zoo
        >>> lineage(Zoo("zoo").select(), method="nearest").score()
        LineageScore(edges=..., roots=..., adjusted_rand=..., families=...)
    """
    _check(selection, method, families, signal, root)
    catalogue = selection.catalogue
    truth = find_truth(selection)
    order, measures = list(range(len(selection))), None
    if method != "digest":
        order, measures = measure_selection(selection)
    left_out = {
        truth.names[row]: "its weights are NaN or infinite" for row in sorted({*range(len(selection))} - {*order})
    }
    if left_out:
        _log.warning("Checkpoints left out because of NaN or infinite weights: %s", ", ".join(left_out))
    truth = truth.take(order)
    refs = [selection[row] for row in order]
    name, side = signal_of(method, signal, root)
    if measures is None:
        forest = ancestry.match_digests(*_digests(catalogue, refs))
    elif method == "nearest":
        is_root = np.array([ref.member.is_parent for ref in refs])
        if not is_root.any():
            parents = {parent for ref in refs if (parent := ref.member.parent_id) in catalogue.member_ids}
            lacking = sorted(parent for parent in parents if not catalogue.saved_epochs(parent))
            fix = catalogue.source.how_to_widen(lacking, where="stage=pretraining") if lacking else None
            raise SelectionError(
                "No parent is selected",
                expected="parents and their children",
                fix=fix or 'Choose method="cluster-root-star", which does not need parents.',
                value=method,
            )
        forest = ancestry.nearest_root(measures.squares, is_root)
    else:
        clusters = ancestry.find_clusters(measures.squares, _at_most(families, len(refs)))
        weights = PopulationWeights(catalogue, refs)
        forest = guess(weights, measures, clusters, method=method, signal=measures.signals[name], side=side)
    return _as_lineage(selection, order, forest, truth, measures=measures, method=method, left_out=left_out)


def measure_selection(selection: Selection) -> tuple[list[int], Measures]:
    """Measure backbones in the order of their files' digests, without the members with NaN or infinite weights.

    Returns:
        Their rows in the selection, and the measures.

    Raises:
        SelectionError: No checkpoint has finite weights.
        WeightsError: As `vitzoo.analysis.lineage.ancestry.measure`.
    """
    catalogue = selection.catalogue
    digests = [catalogue.member_record(ref.member).weights_at(ref.epoch).sha256 for ref in selection]
    order = sorted(range(len(selection)), key=digests.__getitem__)
    measures = ancestry.measure(PopulationWeights(catalogue, [selection[row] for row in order]))
    finite = measures.finite
    if not finite.any():
        raise SelectionError(
            "All selected checkpoints have NaN or infinite weights", expected="finite weights", value=len(selection)
        )
    rows = np.flatnonzero(finite)
    return [order[row] for row in rows], measures if finite.all() else measures.take(rows)


def signal_of(method: str, signal: str | None, root: str | None) -> tuple[str, str]:
    """Return the root signal of a method and its side, with the defaults of `lineage`."""
    name = signal or ("kurtosis" if method == "mother" else "gain_distance")
    return name, root or SIGNALS[name].root


def guess(
    weights: PopulationWeights,
    measures: Measures,
    clusters: np.ndarray,
    *,
    method: str,
    signal: np.ndarray,
    side: str,
) -> Forest:
    """Guess parents inside given clusters."""
    if method == "mother":
        distances = ancestry.normalised_maxima(weights, clusters)
        return ancestry.mother(measures.squares, distances, clusters, signal, side)
    forest = ancestry.star(measures.squares, clusters, signal, side)
    return ancestry.chain(measures.squares, forest) if method == "cluster-root-chain" else forest


def _check(selection: Selection, method: str, families: Any, signal: str | None, root: str | None) -> None:
    check_selection(selection, each="checkpoint")
    for name, value, known in (
        ("method", method, METHODS),
        ("signal", signal, tuple(SIGNALS)),
        ("root", root, ("smallest", "largest")),
    ):
        if value not in known and (name == "method" or value is not None):
            raise SelectionError(f'{name} is "{value}"', fix=did_you_mean(value, known), value=value)
    given = {"families": families, "signal": signal, "root": root}
    for name, value in given.items() if method not in _CLUSTERING else ():
        if value is not None:
            raise ConflictingArgumentsError(
                f'The method "{method}" has no argument {name}', fix=f"Choose one of {', '.join(_CLUSTERING)}."
            )
    if families is None:
        return
    is_number = hasattr(families, "__index__") and not isinstance(families, bool)  # numpy's integers are numbers
    if not is_number or not 1 <= families <= len(selection):
        raise SelectionError(
            f"families is {families}", expected=f"a number from 1 to {len(selection)}, or None", value=families
        )


def _at_most(families: int | None, count: int) -> int | None:
    return None if families is None else min(families, count)


def _digests(catalogue: Catalogue, refs: Sequence[MemberRef]) -> tuple[list[str | None], list[str | None]]:
    """Return the recorded digest of each backbone, and of the member's backbone at epoch 0."""
    table = catalogue.table("epochs").select(["id", "epoch", "backbone_id"]).to_pylist()
    recorded = {(row["id"], row["epoch"]): row["backbone_id"] for row in table}
    own = catalogue.epoch_rows(refs).column("backbone_id").to_pylist()
    return own, [recorded.get((str(ref.member), 0)) for ref in refs]


def _as_lineage(
    selection: Selection,
    order: Sequence[int],
    forest: Forest,
    truth: Truth,
    *,
    measures: Measures | None,
    method: str,
    left_out: Mapping[str, str],
) -> Lineage:
    """Put everything back into the selection's order, and name it."""
    back = np.argsort(order)
    truth, refs = truth.take(back.tolist()), tuple(selection[row] for row in sorted(order))
    parents = forest.parents[back]
    parents = np.where(parents < 0, -1, np.argsort(back)[parents])
    clusters = np.unique(forest.clusters[back], return_index=True, return_inverse=True)
    clusters = np.argsort(np.argsort(clusters[1]))[clusters[2]]
    costs, tied = forest.costs[np.ix_(back, back)], forest.tied[back]
    forest = Forest(parents=parents, clusters=clusters, costs=costs, tied=tied)
    signals = {} if measures is None else {name: values[back] for name, values in measures.signals.items()}
    evidence = pd.DataFrame(_evidence_rows(forest, truth.names)).assign(**signals)
    known = np.flatnonzero(parents >= 0)
    edges = {"parent": [truth.names[row] for row in parents[known]], "child": [truth.names[row] for row in known]}
    return Lineage(
        refs=refs,
        method=method,
        edges=pd.DataFrame({**edges, "distance": costs[parents[known], known]}),
        roots=tuple(ref for ref, parent, tie in zip(refs, parents, tied, strict=True) if parent < 0 and not tie),
        clusters=tuple(
            tuple(refs[row] for row in np.flatnonzero(clusters == cluster)) for cluster in range(clusters.max() + 1)
        ),
        evidence=evidence,
        signals=pd.DataFrame(_signal_rows(signals, truth), columns=_SIGNALS),
        deviations=ancestry.MOTHER_DEVIATIONS if method == "mother" else (),
        left_out=left_out,
        _forest=forest,
        _truth=truth,
        _blocks=tuple("root" if method == "nearest" and ref.member.is_parent else "" for ref in refs),
    )


def _evidence_rows(forest: Forest, names: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for row, (name, parent) in enumerate(zip(names, forest.parents.tolist(), strict=True)):
        costs = forest.costs[:, row]
        others = [place for place in np.argsort(costs, kind="stable")[:2].tolist() if place != parent]
        second = others[0] if np.isfinite(costs[others[:1]]).any() else -1
        first_cost, second_cost = (costs[place] if place >= 0 else nan for place in (parent, second))
        rows.append(
            {
                "checkpoint": name,
                "cluster": int(forest.clusters[row]),
                "parent": names[parent] if parent >= 0 else "",
                "distance": first_cost,
                "second": names[second] if second >= 0 else "",
                "second_distance": second_cost,
                "margin": second_cost / first_cost if first_cost else nan,
                "tied": bool(forest.tied[row]),
            }
        )
    return rows


_SIGNALS = ["signal", "meaning", "root", "right", "edges", "accuracy", "low", "high", "families", "chosen_on"]


def _signal_rows(signals: Mapping[str, np.ndarray], truth: Truth) -> list[dict[str, Any]]:
    """Return a row for each signal, with the accuracy of its direction over the recorded edges."""
    child = np.flatnonzero(truth.parents >= 0)
    rows = []
    for name, values in signals.items():
        found = SIGNALS[name]
        sign = 1 if found.root == "smallest" else -1
        right = (sign * values[truth.parents[child]] < sign * values[child]).astype(float)
        groups = [truth.families[row] for row in child]
        interval = bootstrap_by_group(np.mean, right, groups=groups) if len(child) else None
        accuracy = (
            (nan, nan, nan, 0)
            if interval is None
            else (interval.estimate, interval.low, interval.high, interval.groups)
        )
        named = {"signal": name, "meaning": found.meaning, "root": found.root, "chosen_on": found.chosen_on}
        counts = {"right": int(right.sum()), "edges": len(child)}
        rows.append(named | counts | dict(zip(("accuracy", "low", "high", "families"), accuracy, strict=True)))
    return rows
