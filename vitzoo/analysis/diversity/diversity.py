"""Diversity: how far members differ, by the factor in which they differ.

    selection = zoo.select(stage="finetuning")
    d = diversity(selection, behaviour=behaviour(selection))
    d.contrasts         # a row for each contrast and measure, with intervals
    d.accuracy          # accuracy by the values of a factor

See `vitzoo.analysis.diversity.contrasts` for the compared pairs, `vitzoo.analysis.diversity.backbones` and
`vitzoo.analysis.behaviour.pairs` for the measures, and `vitzoo.analysis.resampling` for the intervals.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from vitzoo.analysis.diversity.accuracies import compare_accuracies, load_scores, trajectory_rows
from vitzoo.analysis.diversity.backbones import Backbones, compare_backbones
from vitzoo.analysis.diversity.contrasts import Contrast, Contrasts, find_contrasts
from vitzoo.analysis.resampling import bootstrap_pairs
from vitzoo.errors import SelectionError, did_you_mean, shown
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown
from vitzoo.records import FACTORS
from vitzoo.tables.columns import MEMBERS
from vitzoo.zoo.selection import Selection, check_selection

if TYPE_CHECKING:
    from vitzoo.analysis.behaviour.behaviour import Behaviour

_CONTRASTS = {
    "contrast": str,
    "nested_in": str,
    "scope": str,
    "common": bool,
    "measure": str,
    "layer": str,
    "families": int,
    "pairs": int,
    "estimate": float,
    "low": float,
    "high": float,
}
_ACCURACY = {
    "factor": str,
    "value": str,
    "part": str,
    "resampled": str,
    "members": int,
    "families": int,
    "mean": float,
    "sd": float,
    "min": float,
    "max": float,
    "range": float,
    "low": float,
    "high": float,
}
_DIFFERENCES = {
    "factor": str,
    "value": str,
    "other": str,
    "part": str,
    "resampled": str,
    "pairs": int,
    "families": int,
    "difference": float,
    "low": float,
    "high": float,
}
_TRAJECTORIES = {
    "measure": str,
    "epoch": int,
    "members": int,
    "families": int,
    "mean": float,
    "sd": float,
    "low": float,
    "high": float,
}
_FACTORS = {"factor": str, "columns": str, "scope": str, "nested_in": str, "values": int, "pairs": int}
_WEIGHTS = {
    "id": str,
    "epoch": int,
    "layer": str,
    "norm": float,
    "move": float,
    "spectral_norm": float,
    "stable_rank": float,
}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Diversity(Shown):
    """Differences of members by factor. Made by `diversity`.

    Intervals are of 95% and resample families joined by their ``init_group``. They are NaN for fewer than five
    families. A text that does not apply is empty.

    Args:
        refs: The compared checkpoints.
        factors: A row for each factor that varies, with the columns that vary together.
        contrasts: A row for each contrast and measure, and again for the families that have all contrasts inside
            families (``common``). ``layer`` is empty for the whole model. ``pairs`` and ``families`` count the pairs
            with a value.
        accuracy: A row for each value of a factor. In ``mean``, each family counts equally. ``sd``, ``min``, ``max``
            and ``range`` are of members.
        differences: A row for each two values of a factor: accuracy with ``value`` less accuracy with ``other``. Inside
            families it is the mean over the contrast's pairs, and then over families.
        trajectories: A row for each epoch: L2 distance of all weights from epoch 0, head included, as recorded.
            ``relative_distance`` is that over the norm at epoch 0.
        weights: A row for each member and layer of its backbone. ``move`` is the distance from the starting weights.
        left_out: Columns and members that are left out of contrasts, with the reason.
    """

    refs: tuple[MemberRef, ...]
    factors: pd.DataFrame
    contrasts: pd.DataFrame
    accuracy: pd.DataFrame
    differences: pd.DataFrame
    trajectories: pd.DataFrame
    weights: pd.DataFrame
    left_out: Mapping[str, str]
    _found: Contrasts
    _families: tuple[str, ...]

    def _facts(self) -> dict[str, Any]:
        return {
            "members": len(self.refs),
            "families": len(set(self._families)),
            "contrasts": len(self._found.contrasts),
            "measures": self.contrasts["measure"].nunique(),
            "left_out": len(self.left_out),
        }

    def _table_rows(self) -> list[dict[Any, Any]]:
        table = self.contrasts[(self.contrasts["layer"] == "") & ~self.contrasts["common"]]
        numbers = zip(table["estimate"], table["low"], table["high"], strict=True)
        cells = [f"{estimate:.3g}{_in_brackets(low, high)}" for estimate, low, high in numbers]
        counts = table.groupby("contrast")[["pairs", "families"]].transform("max")
        wide = table.assign(cell=cells, pairs=counts["pairs"], families=counts["families"]).pivot_table(
            index=["contrast", "pairs", "families"], columns="measure", values="cell", aggfunc="first", sort=False
        )
        return wide.reset_index().to_dict("records")

    def pairs(self, contrast: str, *, common: bool = False) -> list[tuple[MemberRef, MemberRef]]:
        """Return the pairs of checkpoints of a contrast.

        Args:
            contrast: Name of a contrast, or a column of its factor. A factor that is in no pair has none.
            common: Whether to take only pairs inside the families that have all contrasts inside families.

        Raises:
            SelectionError: There is no such contrast, or the column has one value.
        """
        by_name = {item.name: item for item in self._found.contrasts}
        if contrast not in by_name:
            contrast = self._name_of(contrast, by_name)
        if contrast not in by_name:
            return []
        pairs = by_name[contrast].pairs
        if common:
            pairs = _in_common(by_name[contrast], self._found)
        return [(self.refs[one], self.refs[two]) for one, two in pairs]

    def _name_of(self, column: str, known: Iterable[str]) -> str:
        """Return the name of the factor that varies with a column inside families."""
        within = [factor for factor in self._found.factors if factor.scope == "within"]
        for factor in within:
            if column in (factor.name, *factor.columns):
                return factor.name
        if column in self._found.constant:
            raise SelectionError(
                f"{column} never varies: it is {shown(self._found.constant[column])} for all members",
                expected="a factor with two values",
                fix="Select members that differ in it.",
                value=column,
            )
        names = dict.fromkeys([*known, *(factor.name for factor in within)])
        raise SelectionError(f'There is no contrast "{column}"', fix=did_you_mean(column, names), value=column)


def diversity(
    selection: Selection,
    *,
    behaviour: "Behaviour | None" = None,
    weights: bool = True,
    ignore: str | Collection[str] = (),
) -> Diversity:
    """Compare members by the factors in which they differ: their weights, accuracies, trajectories and behaviour.

    Of a Hub zoo, the weights of the selection and of the parents are downloaded, unless ``weights`` is False.

    Args:
        selection: One checkpoint of each member: children, or parents.
        behaviour: Outputs of the same checkpoints. Their pairs are compared by all measures whose outputs were kept:
            ``capa`` and ``hellinger`` need logits, CKA needs features.
        weights: Whether to read and compare weights.
        ignore: Columns that are not factors, such as a lab's own metrics in ``extra``; one name or several.

    Raises:
        SelectionError: The selection is empty, has two checkpoints of a member, or mixes parents and children; the
            behaviour is of other checkpoints; or ``ignore`` has an unknown column.
        WeightsError: Two backbones have different tensors, or a file is damaged.

    Example:
        >>> from vitzoo import Zoo, behaviour
        >>> selection = Zoo("zoo").select(stage="finetuning")
        >>> d = diversity(selection, behaviour=behaviour(selection))
        >>> d
        Diversity(members=8, families=2, contrasts=4, measures=14, left_out=0)
        >>> table = d.contrasts.query("measure == 'agreement' and not common")
    """
    _check_selection(selection, behaviour)
    catalogue = selection.catalogue
    rows = selection.members_table.to_pylist()
    known = [*FACTORS, *(name for name in selection.members_table.column_names if name not in MEMBERS)]
    ignore = (ignore,) if isinstance(ignore, str) else ignore
    for name in ignore:
        if name not in known:
            raise SelectionError(f'ignore has "{name}"', fix=did_you_mean(name, known), value=name)
    parents = {row["id"]: row for row in catalogue.table("members").to_pylist() if row["parent"] is None}
    found = find_contrasts(rows, parents, columns=[name for name in known if name not in ignore])
    families = tuple(catalogue.init_families[row["id"]] for row in rows)
    left_out = dict(found.left_out)
    backbones = compare_backbones(catalogue, selection.refs) if weights else None
    measures: list[Iterable[tuple[str, str, Float64[np.ndarray, "members members"]]]] = []
    if backbones is not None:
        left_out |= {
            f"{row['id']} (move)": "the weights that it started from do not exist"
            for row, start in zip(rows, backbones.starts, strict=True)
            if start < 0
        }
        measures.append(backbones.iter_pairs())
    if behaviour is not None:
        measures.append(_iter_behaviour(behaviour))
    accuracy, differences = [], []
    for scores in load_scores(selection, behaviour):
        of_values, of_pairs = compare_accuracies(scores, found, families)
        accuracy += of_values
        differences += of_pairs
    return Diversity(
        refs=selection.refs,
        factors=_frame(_FACTORS, _factor_rows(found)),
        contrasts=_frame(_CONTRASTS, _contrast_rows(found, families, measures)),
        accuracy=_frame(_ACCURACY, accuracy),
        differences=_frame(_DIFFERENCES, differences),
        trajectories=_frame(_TRAJECTORIES, trajectory_rows(selection, families)),
        weights=_frame(_WEIGHTS, [] if backbones is None else _weights_rows(selection, backbones)),
        left_out=left_out,
        _found=found,
        _families=families,
    )


def _check_selection(selection: Selection, behaviour: "Behaviour | None") -> None:
    check_selection(selection, each="member")
    stages = {ref.member.is_parent: ref.member for ref in reversed(selection.refs)}
    if len(stages) > 1:
        raise SelectionError(
            f"The selection has the parent {stages[True]} and the child {stages[False]}",
            expected="children, or parents",
            fix='Select one kind: zoo.select(stage="finetuning").',
            value=str(stages[True]),
        )
    if behaviour is None:
        return
    from vitzoo.analysis.behaviour.behaviour import Behaviour  # torch

    if not isinstance(behaviour, Behaviour):
        raise SelectionError(
            f"A {type(behaviour).__name__} is not a behaviour",
            expected="the result of behaviour(selection)",
            fix="Call diversity(selection, behaviour=behaviour(selection)).",
            value=behaviour,
        )
    if behaviour.refs != selection.refs:
        raise SelectionError(
            f"The behaviour is of {len(behaviour.refs)} other checkpoints than the selection's {len(selection)}",
            expected="the same checkpoints in the same order",
            fix="Call diversity(selection, behaviour=behaviour(selection)).",
            value=behaviour,
        )


def _iter_behaviour(behaviour: "Behaviour") -> Iterator[tuple[str, str, Float64[np.ndarray, "members members"]]]:
    """Iterate over all measures of pairs whose outputs were kept, with their layer."""
    if behaviour.classes:
        needing_logits = ("capa", "hellinger") if "logits" in behaviour.kept else ()
        for measure in ("agreement", "kappa", "error_consistency", *needing_logits):
            yield measure, "", behaviour.pairs(measure).values
    if "features" in behaviour.kept:
        for layer in behaviour.layers:
            for pool in ("cls", "mean"):
                yield f"cka_{pool}", layer, behaviour.cka(layer, pool=pool).values


def _factor_rows(found: Contrasts) -> list[dict[str, Any]]:
    pairs = {contrast.name: len(contrast.pairs) for contrast in found.contrasts if contrast.scope == "within"}
    return [
        {
            "factor": factor.name,
            "columns": ", ".join(factor.columns),
            "scope": factor.scope,
            "nested_in": ", ".join(factor.nested_in),
            "values": len(set(factor.values)),
            "pairs": pairs.get(factor.name, 0) if factor.scope == "within" else 0,
        }
        for factor in found.factors
    ]


def _in_common(contrast: Contrast, found: Contrasts) -> np.ndarray:
    return contrast.pairs[found.in_common[contrast.pairs].all(axis=1)]


def _contrast_rows(
    found: Contrasts,
    families: Sequence[str],
    measures: Iterable[Iterable[tuple[str, str, Float64[np.ndarray, "members members"]]]],
) -> list[dict[str, Any]]:
    """Return a row for each contrast and measure, by contrast; common families follow all families."""
    compared = [(contrast, False, contrast.pairs) for contrast in found.contrasts]
    compared += [
        (contrast, True, pairs)
        for contrast in found.contrasts
        if contrast.scope == "within" and len(pairs := _in_common(contrast, found))
    ]
    rows: list[list[dict[str, Any]]] = [[] for _ in compared]
    names = np.array(families)
    tied = [list(zip(*names[pairs.T].tolist(), strict=True)) for _, _, pairs in compared]
    for measure, layer, matrix in (item for group in measures for item in group):
        for place, (contrast, is_common, pairs) in enumerate(compared):
            rows[place].append(
                {
                    "contrast": contrast.name,
                    "nested_in": ", ".join(contrast.nested_in),
                    "scope": contrast.scope,
                    "common": is_common,
                    "measure": measure,
                    "layer": layer,
                    **_mean_of_pairs(matrix[tuple(pairs.T)], tied[place]),
                }
            )
    return [row for own in rows for row in own]


def _mean_of_pairs(values: Float64[np.ndarray, " pairs"], families: Sequence[tuple[str, str]]) -> dict[str, Any]:
    known = ~np.isnan(values)
    if not known.any():
        return {"families": 0, "pairs": 0}
    if not known.all():
        families = [pair for pair, is_known in zip(families, known, strict=True) if is_known]
    interval = bootstrap_pairs(values[known], families)
    return {
        "families": interval.groups,
        "pairs": int(known.sum()),
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
    }


def _weights_rows(selection: Selection, backbones: Backbones) -> list[dict[str, Any]]:
    epochs = selection.epochs_table.column("epoch").to_pylist()
    measured = {
        "norm": backbones.norms,
        "move": backbones.moves,
        "spectral_norm": backbones.spectral_norms,
        "stable_rank": backbones.stable_ranks,
    }
    return [
        {"id": str(ref.member), "epoch": epoch, "layer": layer}
        | {name: values[place, number] for name, values in measured.items()}
        for number, (ref, epoch) in enumerate(zip(selection, epochs, strict=True))
        for place, layer in enumerate(backbones.layers)
    ]


def _frame(columns: Mapping[str, type], rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Make a table with all columns, NaN where a row has no number."""
    frame = pd.DataFrame(
        [{name: row.get(name, float("nan")) for name in columns} for row in rows], columns=list(columns)
    )
    return frame.astype({name: kind for name, kind in columns.items() if kind is not str})


def _in_brackets(low: float, high: float) -> str:
    return "" if np.isnan(low) else f" [{low:.3g}, {high:.3g}]"
