"""The sections of what a population is for: merged models, paths, prediction from weights, alignment.

They run many models, so a report has them only if they are named. Pairs are sampled.
"""

from itertools import pairwise
from typing import Any

import pandas as pd

from vitzoo.analysis.alignment.alignment import align
from vitzoo.analysis.merging.paths import barriers
from vitzoo.analysis.merging.soups import compare_soups
from vitzoo.analysis.prediction.prediction import prediction as make_task
from vitzoo.analysis.prediction.predictors import predict
from vitzoo.errors import ConfigError, SelectionError
from vitzoo.ids import MemberId
from vitzoo.report import plots
from vitzoo.report.material import Material, Picture, Section, Table
from vitzoo.report.rows import number_text
from vitzoo.zoo.member import Member
from vitzoo.zoo.selection import Selection

_PAIRS = 10  # of a contrast, whose paths are followed
_POINTS = 7  # of a path
_ALIGNED = 3  # pairs of one family, and as many of two families
_ENTRIES = ("statistics", "moves")
_BASELINES = {"best": "best ingredient", "mean": "mean of ingredients"}
_INTERVALS = "Bars are 95 % intervals that resample families; fewer than five families have none."


def merging(material: Material) -> Section:
    """Describe merged models beside what their ingredients give without merging."""
    material.check_reads()
    chosen = _children(material)
    found = compare_soups(chosen, data=material.data, device=material.device, cache=material.cache)
    left_out = f" {found.left_out} groups of one member are left out." if found.left_out else ""
    return Section(
        key="merging",
        title="Merged models",
        definition="Children of one parent with heads of one kind and one first state are a group. uniform is the mean "
        "of their weights. greedy adds one after the other, and keeps it if the validation accuracy does not fall. "
        "ensemble averages the probabilities of all. A point is the mean over groups of a model's test accuracy less "
        "that of a baseline: the best ingredient on validation, the mean of the ingredients, or the ensemble. "
        f"{_INTERVALS}",
        counts=f"{material.count(chosen, samples=True)} {len(found.groups)} groups.{left_out}",
        limits="Another way to merge, or members that were trained for it, may give more. A soup is one model, and an "
        "ensemble costs a forward pass of each ingredient.",
        pictures=[
            Picture(
                key="merging",
                title="Test accuracy less a baseline's",
                chart=plots.estimates(
                    found.differences.replace({"against": _BASELINES}),
                    name="against",
                    estimate="difference",
                    series="model",
                    title="difference of accuracy",
                    interval=("low", "high"),
                    zero=True,
                ),
            )
        ],
        tables=[
            _table(
                "Test accuracy of merged models, and its difference from each baseline",
                found.differences,
                ("model", "against", "groups", "families", "accuracy", "difference", "low", "high"),
            )
        ],
    )


def paths(material: Material) -> Section:
    """Describe the barriers on the straight line between two members, by the factor in which they differ."""
    material.check_reads()
    chosen = material.comparable
    found = barriers(chosen, pairs=_PAIRS, points=_POINTS, data=material.data, device=material.device)
    return Section(
        key="paths",
        title="Paths between members",
        definition="Two members that differ in one factor are the ends of a straight line between their weights, on "
        f"which {_POINTS} points are evaluated. A barrier is the largest height of the test loss or error above the "
        f"line between both ends. A point is the mean over at most {_PAIRS} sampled pairs. {_INTERVALS}",
        counts=material.count(chosen, samples=True),
        limits="A barrier on the straight line does not mean that no other path is flat. Between the points it may be "
        "higher. Contrasts may be of other families.",
        pictures=[
            Picture(
                key="paths",
                title="Mean barrier by contrast",
                chart=plots.estimates(
                    found,
                    name="contrast",
                    estimate="barrier",
                    series="measure",
                    title="barrier (loss in nats)",
                    interval=("low", "high"),
                    zero=True,
                ),
            )
        ],
        tables=[
            _table(
                "Mean barriers by contrast",
                found,
                ("contrast", "scope", "measure", "existing", "pairs", "families", "barrier", "low", "high"),
            )
        ],
    )


def prediction(material: Material) -> Section:
    """Describe how well weights predict the test accuracy, beside the recipe."""
    material.check_reads()
    task = make_task(material.comparable, "test_accuracy")
    entries, left_out = {}, ""
    for name in _ENTRIES:
        try:
            entries[name] = predict(task, name)
        except SelectionError as error:
            left_out += f" {name} is left out: {error.problem}."
    table = task.score(entries)
    differences = table.query("metric == 'r2' and entry != 'recipe'")
    return Section(
        key="prediction",
        title="Prediction from weights",
        definition="Ridge regression predicts the test accuracy of a family's members from the other families. "
        "statistics are seven numbers of each tensor, and moves the length of each tensor's move from the parent. The "
        "baselines read no weights: the mean, the mean by objective and epoch, and the recipe, which is ridge "
        "regression on all settings. R² is 1 for a perfect prediction, and 0 for the mean of the truth. A point is an "
        f"entry's R² less that of the recipe, on the same families. {_INTERVALS}",
        counts=f"{material.count(material.comparable)} Final weights only.{left_out}",
        limits="A small R² does not mean that weights say nothing: other features may say more. Members of the same "
        "recipes are in train, so the recipe is hard to beat.",
        pictures=[
            Picture(
                key="prediction",
                title="R² less the recipe's",
                chart=plots.estimates(
                    differences,
                    name="entry",
                    estimate="difference",
                    series="metric",
                    title="difference of R²",
                    interval=("difference_low", "difference_high"),
                    zero=True,
                ),
            )
        ],
        tables=[
            _table(
                "Scores, and their differences from the recipe",
                table,
                (
                    *("entry", "metric", "families", "checkpoints", "estimate", "low", "high"),
                    *("difference", "difference_low", "difference_high"),
                ),
            )
        ],
    )


def alignment(material: Material) -> Section:
    """Describe the distances of sampled pairs before and after alignment by exact symmetries."""
    material.check_reads()
    chosen = material.completed
    rows: list[dict[str, Any]] = []
    left_out = ""
    for kind, one, two in _sample_pairs(material, chosen):
        models = [Member(chosen.catalogue, member).load() for member in (one, two)]
        for group in ("permutation", "rotation"):
            try:
                found = align(*models, group=group)
            except ConfigError as error:
                left_out = f" {group} is left out: {error.problem}."
                continue
            form = "canonical form" if group == "rotation" else "as trained"
            ends = {form: found.distances[0], f"after {group}": found.distance}
            rows += [
                {"pair": f"{one}, {two}", "of": kind, "state": state, "distance": distance}
                for state, distance in ends.items()
            ]
    table = pd.DataFrame(rows)
    return Section(
        key="alignment",
        title="Alignment",
        definition="The L2 distance of two backbones before and after the second one was changed by exact symmetries, "
        "which change no output, to be near to the first. permutation reorders channels, MLP units and heads. rotation "
        "brings both to a canonical form, without the LayerNorm's gains and the stream's mean, and rotates the stream "
        "and the heads' channels. Distances of canonical forms can be compared with each other alone.",
        counts=f"{len(table['pair'].unique())} sampled pairs of {material.count(chosen)}{left_out}",
        limits="The search may end in a local optimum. A shorter distance does not mean a lower barrier on the path.",
        pictures=[
            Picture(
                key="alignment",
                title="Distance before and after alignment",
                chart=plots.estimates(
                    table,
                    name="pair",
                    estimate="distance",
                    series="state",
                    title="L2 distance of backbones",
                    zero=True,
                ),
            )
        ],
        tables=[_table("Distances of sampled pairs", table, ("pair", "of", "state", "distance"))],
    )


def _children(material: Material) -> Selection:
    """Return the compared members, which must be children: parents have no common first weights to merge from."""
    chosen = material.comparable
    if chosen.ids[0].is_parent:
        raise SelectionError(
            "The compared members are parents, and models of other first weights are not merged",
            expected="children with classes",
            value=str(chosen.ids[0]),
        )
    return chosen


def _sample_pairs(material: Material, chosen: Selection) -> list[tuple[str, MemberId, MemberId]]:
    """Return evenly spaced pairs of one family, and of two families. They are of children, where a family has some."""
    families: dict[str, list[MemberId]] = {}
    for member in chosen.ids:
        families.setdefault(material.families[str(member)], []).append(member)
    own = list(families.values())
    kinds = {
        "one family": [(family[-2], family[-1]) for family in own if len(family) > 1],
        "two families": [(one[-1], two[-1]) for one, two in pairwise(own)],
    }
    pairs = [
        (kind, *found[place * len(found) // _ALIGNED])
        for kind, found in kinds.items()
        for place in range(_ALIGNED)
        if found
    ]
    if not pairs:
        raise SelectionError("One member has no other to be aligned with", expected="two or more members", value=1)
    return list(dict.fromkeys(pairs))


def _table(caption: str, table: pd.DataFrame, columns: tuple[str, ...]) -> Table:
    """Write columns of a data frame as text."""
    return Table(
        caption=caption,
        head=[name.replace("_", " ") for name in columns],
        rows=[
            [number_text(value) if isinstance(value, float) else str(value) for value in row]
            for row in table[list(columns)].itertuples(index=False)
        ],
    )
