"""Compare accuracies and distances from the start by the values of each factor.

The rows become tables in `vitzoo.analysis.diversity.diversity`. See `vitzoo.analysis.resampling` for the intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from vitzoo.analysis.diversity.contrasts import Contrasts, Factor
from vitzoo.analysis.resampling import family_means, multi_bootstrap_each
from vitzoo.splits.scores import FEWEST_GROUPS, interval_of
from vitzoo.zoo.selection import Selection

if TYPE_CHECKING:
    from vitzoo.analysis.behaviour.behaviour import Behaviour

_FAMILIES, _BOTH = "families", "families and samples"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Scores:
    """Scores of members on samples, or their recorded accuracies as one sample.

    Args:
        part: Part of the data set.
        resampled: What is resampled.
        values: Scores, all NaN for a member without accuracy.
    """

    part: str
    resampled: str
    values: Float64[np.ndarray, "members samples"]

    @property
    def known(self) -> Bool[np.ndarray, " members"]:
        """True for a member with scores."""
        return ~np.isnan(self.values[:, 0])


def load_scores(selection: Selection, behaviour: "Behaviour | None") -> list[Scores]:
    """Return the recorded accuracies of val and test; the behaviour's part by sample."""
    by_part = {}
    for part in ("val", "test"):
        recorded = selection.epochs_table.column(f"{part}_accuracy").to_pylist()
        by_part[part] = Scores(part=part, resampled=_FAMILIES, values=np.array(recorded, np.float64)[:, None])
    if behaviour is not None and behaviour.classes:
        correct = behaviour.correct.astype(np.float64)
        by_part[behaviour.part] = Scores(part=behaviour.part, resampled=_BOTH, values=correct)
    return list(by_part.values())


def compare_accuracies(
    scores: Scores, found: Contrasts, families: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of `vitzoo.analysis.diversity.diversity.Diversity.accuracy` and ``differences`` for one part."""
    known = scores.known
    members = {key: own[known[own]] for key, own in _members_by_value(found, len(known)).items() if known[own].any()}
    pairs = {key: own[known[own].all(axis=1)] for key, own in _pairs_by_values(found).items()}
    pairs = {key: own for key, own in pairs.items() if len(own)}
    means = {key: _by_family(scores.values[own], own, families) for key, own in members.items()}
    gains = {
        key: _by_family(scores.values[own[:, 0]] - scores.values[own[:, 1]], own[:, 0], families)
        for key, own in pairs.items()
    }
    drawn = dict(zip([*means, *gains], _resample([*means.values(), *gains.values()]), strict=True))
    named = {"part": scores.part, "resampled": scores.resampled}
    accuracy = []
    for key, own in means.items():
        accuracies = scores.values[members[key]].mean(axis=1)
        spread = {"sd": _deviation(accuracies), "min": accuracies.min(), "max": accuracies.max()}
        accuracy.append(
            {"factor": key[0], "value": key[1], **named, "members": len(accuracies), "families": len(own), **spread}
            | {"range": np.ptp(accuracies), **_interval("mean", own.mean(), drawn[key])}
        )
    differences = [
        {"factor": key[0], "value": key[1], "other": key[2], **named, "pairs": len(pairs[key]), "families": len(own)}
        | _interval("difference", own.mean(), drawn[key])
        for key, own in gains.items()
    ]
    for factor in found.factors:
        texts = [text for value in _sorted_values(factor) if (factor.name, text := str(value)) in means]
        for one, two in combinations(texts if factor.scope == "across" else (), 2):
            sides = (factor.name, one), (factor.name, two)
            left, right = ({families[place] for place in members[side]} for side in sides)
            draws = drawn[sides[0]], drawn[sides[1]]
            apart = draws[0] - draws[1] if min(map(len, draws)) and left.isdisjoint(right) else np.empty(0)
            differences.append(
                {"factor": factor.name, "value": one, "other": two, **named, "pairs": 0, "families": len(left | right)}
                | _interval("difference", means[sides[0]].mean() - means[sides[1]].mean(), apart)
            )
    return accuracy, differences


def _members_by_value(found: Contrasts, count: int) -> dict[tuple[str, str], Int[np.ndarray, " some"]]:
    """Return the members of each factor's values, and all members under empty names."""
    places = {("", ""): np.arange(count)}
    for factor in found.factors:
        for value in () if factor.is_seeds else _sorted_values(factor):
            own = [place for place, other in enumerate(factor.values) if other == value]
            places[factor.name, str(value)] = np.array(own)
    return places


def _pairs_by_values(found: Contrasts) -> dict[tuple[str, str, str], Int[np.ndarray, "some 2"]]:
    """Return the pairs of each contrast inside families by their two values, the smaller one first."""
    contrasts = {contrast.name: contrast for contrast in found.contrasts if contrast.scope == "within"}
    pairs = {}
    for factor in found.factors:
        if factor.name not in contrasts or factor.is_seeds:
            continue
        order = _sorted_values(factor)
        ranks = np.array([order.index(value) if value is not None else -1 for value in factor.values])
        places = contrasts[factor.name].pairs
        places = np.where(ranks[places[:, :1]] < ranks[places[:, 1:]], places, places[:, ::-1])
        for one, two in np.unique(ranks[places], axis=0).tolist():
            own = (ranks[places] == (one, two)).all(axis=1)
            pairs[factor.name, str(order[one]), str(order[two])] = places[own]
    return pairs


def _sorted_values(factor: Factor) -> list[Any]:
    """Return the known values of a factor, numbers before texts."""
    values = {value for value in factor.values if value is not None}
    return sorted(values, key=lambda value: (isinstance(value, str), value))


def _by_family(
    scores: Float64[np.ndarray, "some samples"], places: Int[np.ndarray, " some"], families: Sequence[str]
) -> Float64[np.ndarray, "families samples"]:
    return family_means(scores, [families[place] for place in places])


def _resample(means: Sequence[Float64[np.ndarray, "_ samples"]]) -> list[Float64[np.ndarray, " _"]]:
    """Return the resampled mean of each statistic; none where there are too few families for an interval."""
    enough = [len(own) >= FEWEST_GROUPS for own in means]
    chosen = [own for own, is_enough in zip(means, enough, strict=True) if is_enough]
    draws = iter(multi_bootstrap_each(chosen) if chosen else ())
    return [next(draws) if is_enough else np.empty(0) for is_enough in enough]


def _interval(name: str, estimate: float, drawn: Float64[np.ndarray, " _"]) -> dict[str, float]:
    found = interval_of(float(estimate), drawn, groups=0, level=0.95)
    return {name: found.estimate, "low": found.low, "high": found.high}


def _deviation(values: Float64[np.ndarray, " values"]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def trajectory_rows(selection: Selection, families: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of ``Diversity.trajectories``, from the metrics of all epochs."""
    family_of = {str(ref.member): family for ref, family in zip(selection, families, strict=True)}
    table = selection.catalogue.table("epochs").select(["id", "epoch", "distance_from_start", "weight_norm"])
    recorded = [row for row in table.to_pylist() if row["id"] in family_of and row["distance_from_start"] is not None]
    norms = {row["id"]: row["weight_norm"] for row in recorded if row["epoch"] == 0}
    values: dict[tuple[str, int], list[tuple[str, float]]] = {}
    for row in recorded:
        values.setdefault(("distance", row["epoch"]), []).append((row["id"], row["distance_from_start"]))
        if norms.get(row["id"]):
            share = row["distance_from_start"] / norms[row["id"]]
            values.setdefault(("relative_distance", row["epoch"]), []).append((row["id"], share))
    keys = sorted(values)
    distances = [np.array([value for _, value in values[key]]) for key in keys]
    means = [
        family_means(own[:, None], [family_of[member] for member, _ in values[key]])
        for key, own in zip(keys, distances, strict=True)
    ]
    return [
        {"measure": key[0], "epoch": key[1], "members": len(own), "families": len(by_family), "sd": _deviation(own)}
        | _interval("mean", by_family.mean(), drawn)
        for key, own, by_family, drawn in zip(keys, distances, means, _resample(means), strict=True)
    ]
