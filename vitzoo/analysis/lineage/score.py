"""Score guessed parents: shares of right edges and roots, the adjusted Rand index, and a random guess beside each.

The random guess is the same forest over shuffled members. Its expected score is exact, not sampled. Members are
shuffled only among those that the guesser could not tell apart: among roots, if it knew the roots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int

from vitzoo.analysis.lineage.trees import together
from vitzoo.analysis.resampling import resample_pairs
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown
from vitzoo.splits.scores import FEWEST_GROUPS, bootstrap_by_group, interval_of
from vitzoo.zoo.selection import Selection


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Truth:
    """Recorded parents of some checkpoints. Made by `find_truth`.

    Args:
        names: Name of each checkpoint in the zoo, with its epoch unless the weights are the final ones.
        parents: Row of the nearest selected ancestor; -1 if none is selected.
        trees: The parent member from which each checkpoint descends.
        families: Family of each checkpoint: trees that share an initialisation or weights are one.
    """

    names: tuple[str, ...]
    parents: Int[np.ndarray, " members"]
    trees: tuple[str, ...]
    families: tuple[str, ...]

    def take(self, rows: Sequence[int]) -> "Truth":
        """Return the truth of some checkpoints. A checkpoint whose parent is left out becomes a root."""
        places = {row: place for place, row in enumerate(rows)}
        return Truth(
            names=tuple(self.names[row] for row in rows),
            parents=np.array([places.get(int(self.parents[row]), -1) for row in rows], np.int64),
            trees=tuple(self.trees[row] for row in rows),
            families=tuple(self.families[row] for row in rows),
        )


def find_truth(selection: Selection) -> Truth:
    """Find the nearest selected ancestor of each checkpoint in the zoo's records.

    It is the member's last selected epoch before this one. Without one, it is the parent's last selected epoch up to
    the epoch at which the child started.

    Args:
        selection: Checkpoints, each once.
    """
    catalogue = selection.catalogue
    epochs = selection.epochs_table.column("epoch").to_pylist()
    keys = {(ref.member, epoch): row for row, (ref, epoch) in enumerate(zip(selection, epochs, strict=True))}
    of_member: dict[Any, list[int]] = {}
    for member, epoch in keys:
        of_member.setdefault(member, []).append(epoch)
    starts = selection.members_table.column("parent_epoch").to_pylist()
    started = dict(zip(selection.ids, starts, strict=True))
    parents = []
    for member, epoch in keys:
        before = [(member, other) for other in of_member[member] if other < epoch]
        if not before:
            start = started[member]
            before = [
                (above, other)
                for above in (member.parent_id,)
                for other in of_member.get(above, ())
                if above is not None and (start is None or other <= start)
            ]
        parents.append(keys[max(before, key=lambda key: key[1])] if before else -1)
    joined = catalogue.init_families
    return Truth(
        names=tuple(name_checkpoint(ref) for ref in selection),
        parents=np.array(parents, np.int64),
        trees=tuple(str(ref.member.parent_id or ref.member) for ref in selection),
        families=tuple(joined[str(ref.member)] for ref in selection),
    )


def name_checkpoint(ref: MemberRef) -> str:
    """Return a checkpoint's name without its zoo."""
    return str(MemberRef(ref.member, None, ref.epoch))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LineageScore(Shown):
    """Score of guessed parents. Made by `score_forest`.

    Args:
        table: A row for each measure. ``edges`` is the share of the checkpoints with a parent whose guessed parent is
            right, and ``roots`` the share of the roots that are guessed to be roots; ``right``, ``total`` and
            ``guessed`` count them, so that right / guessed is the precision. ``adjusted_rand`` compares clusters with
            trees: 1 if equal, about 0 for a random guess. ``random`` is the expected score of the same forest over
            shuffled members. Intervals are of 95% over ``families``, NaN for fewer than five.
        by_family: A row for each family, with its trees and counts.
        merged: Trees that share a cluster, for each such cluster.
    """

    table: pd.DataFrame
    by_family: pd.DataFrame
    merged: tuple[tuple[str, ...], ...]

    def __getitem__(self, measure: str) -> float:
        """Return the estimate of a measure: ``edges``, ``roots`` or ``adjusted_rand``."""
        return float(self.table.set_index("measure").loc[measure, "estimate"])

    def _facts(self) -> Mapping[str, object]:
        rows = {row["measure"]: row for row in self.table.to_dict("records")}
        counts = {name: f"{rows[name]['right']:.0f}/{rows[name]['total']:.0f}" for name in ("edges", "roots")}
        return {**counts, "adjusted_rand": self["adjusted_rand"], "families": len(self.by_family)}

    def _table_rows(self) -> Sequence[Mapping[str, object]]:
        return [{str(name): value for name, value in row.items()} for row in self.table.to_dict("records")]


def score_forest(
    parents: Int[np.ndarray, " members"],
    clusters: Int[np.ndarray, " members"],
    tied: Bool[np.ndarray, " members"],
    *,
    truth: Truth,
    blocks: Sequence[object],
) -> LineageScore:
    """Score guessed parents and clusters.

    Args:
        parents: Row of each guessed parent; -1 for none.
        clusters: Guessed clusters.
        tied: True where no answer is given. Such a checkpoint is not a guessed root.
        truth: The recorded parents.
        blocks: Label of each checkpoint. A random guess shuffles the checkpoints of one label.
    """
    count = len(parents)
    names = list(dict.fromkeys(truth.families))
    places = np.array([names.index(family) for family in truth.families])
    is_child, guessed_root = truth.parents >= 0, (parents < 0) & ~tied
    right_edge, right_root = is_child & (parents == truth.parents), ~is_child & guessed_root
    rows = []
    edges = np.zeros((2, count, count), bool)
    for layer, found in zip(edges, (parents, truth.parents), strict=True):
        layer[found[found >= 0], np.flatnonzero(found >= 0)] = True
    roots = np.stack([np.diag(guessed_root), np.diag(~is_child)])
    for name, right, of, guessed, (guess, true) in (
        ("edges", right_edge, is_child, int((parents >= 0).sum()), edges),
        ("roots", right_root, ~is_child, int(guessed_root.sum()), roots),
    ):
        total = int(of.sum())
        interval = bootstrap_by_group(np.mean, right[of], groups=places[of]) if total else None
        random = _expected_hits(guess, true, blocks) / total if total else nan
        counts = {"right": int(right.sum()), "total": total, "guessed": guessed, "random": random}
        rows.append(_row(name, interval) | counts)
    rows.append(_rand_row(together(clusters), together(truth.trees), places, blocks))
    return LineageScore(
        table=pd.DataFrame(rows, columns=_COLUMNS),
        by_family=pd.DataFrame(
            {
                "family": name,
                "trees": ", ".join(dict.fromkeys(truth.trees[row] for row in np.flatnonzero(places == place))),
                "edges_right": int(right_edge[places == place].sum()),
                "edges": int(is_child[places == place].sum()),
                "roots_right": int(right_root[places == place].sum()),
                "roots": int((~is_child)[places == place].sum()),
            }
            for place, name in enumerate(names)
        ),
        merged=_merged(clusters, truth.trees),
    )


_COLUMNS = ["measure", "estimate", "low", "high", "families", "random", "right", "total", "guessed"]


def _row(name: str, interval: Any) -> dict[str, Any]:
    if interval is None:
        return {"measure": name, "estimate": nan, "low": nan, "high": nan, "families": 0}
    found = {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
    return {"measure": name, **found, "families": interval.groups}


def _rand_row(
    guess: Bool[np.ndarray, "members members"],
    true: Bool[np.ndarray, "members members"],
    places: Int[np.ndarray, " members"],
    blocks: Sequence[object],
) -> dict[str, Any]:
    """Compute the adjusted Rand index from counts of pairs, with an interval over families.

    Source: Hubert and Arabie 1985, Comparing Partitions, equation 5.
    """
    pairs = np.triu(np.ones_like(guess), 1)
    sums = []
    for chosen in (guess & true, guess, true, np.ones_like(guess)):
        total = np.zeros((places.max() + 1,) * 2)
        np.add.at(total, (places[:, None], places), (chosen & pairs).astype(float))
        sums.append(total)
    estimate = float(_adjusted_rand(*(np.array([total.sum()]) for total in sums))[0])
    few = len(total) < FEWEST_GROUPS
    drawn = np.empty(0) if few else _adjusted_rand(*resample_pairs(sums))
    both = _expected_hits(guess & ~np.eye(len(guess), dtype=bool), true & ~np.eye(len(guess), dtype=bool), blocks) / 2
    random = float(_adjusted_rand(np.array([both]), *(np.array([total.sum()]) for total in sums[1:]))[0])
    return _row("adjusted_rand", interval_of(estimate, drawn, groups=len(total), level=0.95)) | {"random": random}


def _adjusted_rand(
    both: Float64[np.ndarray, " draws"],
    guess: Float64[np.ndarray, " draws"],
    true: Float64[np.ndarray, " draws"],
    pairs: Float64[np.ndarray, " draws"],
) -> Float64[np.ndarray, " draws"]:
    """Return the index, from numbers of pairs; 1 where both partitions are trivial and equal."""
    expected = np.divide(guess * true, pairs, out=np.zeros_like(pairs), where=pairs > 0)
    room = (guess + true) / 2 - expected
    return np.where(room > 0, (both - expected) / np.where(room > 0, room, 1), 1.0)


def _expected_hits(
    guess: Bool[np.ndarray, "members members"], true: Bool[np.ndarray, "members members"], blocks: Sequence[object]
) -> float:
    """Return the expected number of pairs that are in both, if the guess's members are shuffled inside blocks."""
    labels = np.unique(np.array([str(block) for block in blocks]), return_inverse=True)[1]
    member = np.eye(labels.max() + 1)[labels]
    sizes = member.sum(axis=0)
    hits = 0.0
    for is_self in (True, False):
        mask = np.eye(len(labels), dtype=bool) == is_self
        guessed, real = (member.T @ (matrix & mask) @ member for matrix in (guess, true))
        places = np.diag(sizes) if is_self else np.outer(sizes, sizes) - np.diag(sizes)
        hits += float(np.divide(guessed * real, places, out=np.zeros_like(places), where=places > 0).sum())
    return hits


def _merged(clusters: Int[np.ndarray, " members"], trees: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    by_cluster: dict[int, dict[str, None]] = {}
    for cluster, tree in zip(clusters.tolist(), trees, strict=True):
        by_cluster.setdefault(cluster, {})[tree] = None
    return tuple(tuple(own) for own in by_cluster.values() if len(own) > 1)
