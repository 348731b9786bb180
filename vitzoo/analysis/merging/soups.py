"""Compare merged models with what their ingredients give without merging, over many groups of ingredients.

    found = compare_soups(zoo.select(stage="finetuning"), methods=("uniform", "greedy"))
    found.differences        # a row for each method and baseline, with an interval over families

See `vitzoo.analysis.merging.baselines` for the baselines and `vitzoo.analysis.merging.merging` for the methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from vitzoo.analysis.merging.baselines import baseline_accuracies
from vitzoo.analysis.merging.merging import merge
from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.notebook import Shown
from vitzoo.splits.scores import bootstrap_by_group
from vitzoo.zoo.member import Member
from vitzoo.zoo.selection import Selection

_METHODS = ("uniform", "greedy", "greedy-strict", "stock")
_BASELINES = ("best", "last", "mean", "ensemble")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Soups(Shown):
    """Accuracies of merged models and of baselines. Made by `compare_soups`.

    Args:
        part: Part of the data that accuracies are of.
        groups: A row for each group: its values of the grouping columns, its family, its number of checkpoints, the
            number that greedy soups kept (``greedy_kept``), and an accuracy for each method and baseline.
        differences: A row for each method and baseline: the mean over groups of the method's accuracy less the
            baseline's, with a 95% interval over families. Fewer than five families have none.
        left_out: Number of groups with one checkpoint, which are not merged.
    """

    part: str
    groups: pd.DataFrame
    differences: pd.DataFrame
    left_out: int

    def _facts(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "groups": len(self.groups),
            "families": self.groups["family"].nunique(),
            "left_out": self.left_out,
        }

    def _table_rows(self) -> list[dict[Any, Any]]:
        return self.differences.to_dict("records")


def compare_soups(
    selection: Selection,
    *,
    by: Sequence[str] = ("parent", "head_type", "head_seed"),
    methods: Sequence[str] = ("uniform", "greedy"),
    part: str = "test",
    data: Mapping[str, str | PathLike[str]] | None = None,
    device: Any = "cpu",
    cache: str | PathLike[str] | None = None,
) -> Soups:
    """Merge each group of a selection's checkpoints by several methods, and compare the results with the baselines.

    A family is the members of one parent, and of parents that share an initialisation.

    Args:
        selection: Classifiers with one data set and the same classes.
        by: Columns of the members table. Checkpoints that agree in them are a group. ``("id",)`` merges the selected
            epochs of each member.
        methods: ``uniform``, ``greedy``, ``greedy-strict`` or ``stock``.
        part: Part of the data that is reported: ``test``, ``val`` or ``train``.
        data: Local folders of data sets by name, as in `vitzoo.images.load_images`.
        device: Where the models run.
        cache: A folder for the ingredients' outputs, as in `vitzoo.behaviour`.

    Raises:
        SelectionError: A method or column is unknown, no group has two checkpoints, or members have different data.
        DatasetError, WeightsError, EpochNotFoundError: As `vitzoo.merge`.

    Example:
        >>> from vitzoo import Zoo
        >>> compare_soups(Zoo("zoo").select(stage="finetuning", epoch=[1, 2]), by=("id",), methods=("uniform",))
        Soups(part=test, groups=..., families=..., left_out=0)
    """
    from vitzoo.analysis.behaviour.behaviour import behaviour  # torch

    for method in methods:
        if method not in _METHODS:
            raise SelectionError(f'methods has "{method}"', fix=did_you_mean(method, _METHODS), value=method)
    groups = _group(selection, by)
    several = {values: rows for values, rows in groups.items() if len(rows) > 1}
    if not several:
        raise SelectionError(
            f"No two checkpoints agree in {', '.join(by)}",
            expected="a group of two or more",
            fix="Group by fewer columns.",
            value=tuple(by),
        )
    outputs = behaviour(selection, part=part, data=data, device=device, cache=cache)
    families = selection.catalogue.init_families
    member = Member(selection.catalogue, selection[0].member)
    split = member.load_part(part, data=data)
    rows = []
    for values, places in several.items():
        group = selection.with_refs([selection[place] for place in places])
        row: dict[str, Any] = dict(zip(by, values, strict=True))
        row |= {"family": families[str(group.ids[0])], "checkpoints": len(group)}
        for method in methods:
            merged = merge(group, method=method, data=data, device=device)
            row[method] = member.evaluate_model(merged.to_model(device=device), split).accuracy
            if method.startswith("greedy"):
                row[f"{method}_kept"] = len(merged.ingredients)
        rows.append(row | baseline_accuracies(group, outputs, places))
    table = pd.DataFrame(rows)
    return Soups(part=part, groups=table, differences=_differences(table, methods), left_out=len(groups) - len(several))


def _group(selection: Selection, by: Sequence[str]) -> dict[tuple[Any, ...], list[int]]:
    """Return the places of the checkpoints of each group by its values."""
    table = selection.members_table
    for name in by:
        if name not in table.column_names:
            raise SelectionError(f'by has "{name}"', fix=did_you_mean(name, table.column_names), value=name)
    values = {row["id"]: tuple(row[name] for name in by) for row in table.to_pylist()}
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, ref in enumerate(selection):
        groups.setdefault(values[str(ref.member)], []).append(place)
    return groups


def _differences(groups: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    rows = []
    known = [name for name in _BASELINES if name in groups.columns and groups[name].notna().to_numpy().all()]
    for model in (*methods, "ensemble"):
        for baseline in known:
            if model == baseline:
                continue
            gains = (groups[model] - groups[baseline]).to_numpy()
            interval = bootstrap_by_group(np.mean, gains, groups=groups["family"].tolist())
            rows.append(
                {
                    "model": model,
                    "against": baseline,
                    "groups": len(gains),
                    "families": interval.groups,
                    "accuracy": float(groups[model].to_numpy().mean()),
                    "difference": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    return pd.DataFrame(rows)
