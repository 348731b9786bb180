"""Pictures of means with intervals over families: features by layer, contrasts, and the applications of a zoo."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import altair as alt
import numpy as np

from vitzoo.analysis.behaviour.behaviour import Behaviour
from vitzoo.analysis.resampling import bootstrap_pairs
from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.report.plots.style import (
    COLOURS,
    OUTLINE,
    WIDTH,
    Chart,
    chart_data,
    finish,
    finite,
    labelled,
    legend,
    named_colours,
    names_axis,
    names_legend,
)

if TYPE_CHECKING:
    import pandas as pd

    from vitzoo.analysis.lineage.score import LineageScore

_LONGEST = 26  # letters of a name on an axis
_OWN, _COMMON = "all families with the contrast", "families that have all contrasts"


def cka_by_layer(
    behaviour: Behaviour, families: Mapping[str, str], *, points: Sequence[Mapping[str, Any]] | None = None
) -> Chart:
    """Draw the mean CKA of pairs by layer, in one family and in two, with 95 % intervals over families.

    Args:
        behaviour: Outputs with features.
        families: Family of each member by its id.
        points: The result of `cka_means`, if it exists already.

    Raises:
        SelectionError: Features were not kept.
    """
    points = cka_means(behaviour, families) if points is None else points
    layers = list(behaviour.layers)
    pairs = sorted({point["pairs"] for point in points}, reverse=True)
    x = alt.X("layer:N", sort=layers, axis=alt.Axis(labelAngle=-40, title=None))
    colour = alt.Color("pairs:N", title="pairs of", scale=named_colours(pairs), legend=legend())
    base = alt.Chart(chart_data([{**point, "label": _describe_cka(point)} for point in points]))
    chart = alt.layer(
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=4, opacity=0.35, aria=False)
        .encode(x=x, y=alt.Y("low:Q", title="mean CKA"), y2="high:Q", color=colour),
        base.mark_line(strokeWidth=1.5, aria=False).encode(
            x=x,
            y="mean:Q",
            color=colour,
            strokeDash=alt.StrokeDash("pool:N", title="pooled", legend=legend()),
            detail=["pairs:N", "pool:N"],
        ),
        base.mark_point(filled=True, opacity=1, size=36).encode(x=x, y="mean:Q", color=colour, **labelled()),
    )
    return finish(chart, width=WIDTH, height=220)


def cka_means(behaviour: Behaviour, families: Mapping[str, str]) -> list[dict[str, Any]]:
    """Compute the mean CKA of pairs by layer, pooling and kind of pair. Arguments as `cka_by_layer`."""
    own = [families[str(ref.member)] for ref in behaviour.refs]
    places = list(zip(*np.triu_indices(len(own), 1), strict=True))
    points = []
    for layer in behaviour.layers:
        for pool in ("cls", "mean"):
            values = behaviour.cka(layer, pool=pool).values
            for kind in ("one family", "two families"):
                chosen = [(i, j) for i, j in places if (own[i] == own[j]) == (kind == "one family")]
                found = np.array([values[place] for place in chosen])
                if np.isfinite(found).any():
                    interval = bootstrap_pairs(found, [(own[i], own[j]) for i, j in chosen])
                    points.append(
                        {
                            "layer": layer,
                            "pool": pool,
                            "pairs": kind,
                            "number": int(np.isfinite(found).sum()),
                            "mean": interval.estimate,
                            "low": finite(interval.low),
                            "high": finite(interval.high),
                        }
                    )
    return points


def contrasts(table: "pd.DataFrame", measure: str) -> Chart:
    """Draw the mean of a measure of pairs by contrast, with 95 % intervals over families.

    Args:
        table: The ``contrasts`` of a `vitzoo.analysis.diversity.diversity.Diversity`.
        measure: One of its measures, of whole models.

    Raises:
        SelectionError: The table does not have the measure.
    """
    whole = [row for row in table.to_dict("records") if not row["layer"]]
    rows = [row for row in whole if row["measure"] == measure]
    if not rows:
        known = dict.fromkeys(row["measure"] for row in whole)
        raise SelectionError(f'There is no measure "{measure}"', fix=did_you_mean(measure, known), value=measure)
    points = [
        {
            "contrast": row["contrast"],
            "estimate": finite(row["estimate"]),
            "low": finite(row["low"]),
            "high": finite(row["high"]),
            "of": _COMMON if row["common"] else _OWN,
            "label": f"{row['contrast']}, {_COMMON if row['common'] else _OWN}: {row['estimate']:.3g}, "
            f"{row['pairs']} pairs of {row['families']} families",
        }
        for row in rows
    ]
    kinds = alt.Scale(domain=[_OWN, _COMMON], range=["circle", "diamond"])
    base = alt.Chart(chart_data(points)).encode(
        y=alt.Y(
            "contrast:N",
            title=None,
            sort=[row["contrast"] for row in rows],
            axis=names_axis(32),
        ),
        color=alt.Color(
            "of:N",
            title=None,
            scale=alt.Scale(domain=[_OWN, _COMMON], range=list(COLOURS[:2])),
            legend=legend(columns=1, labelLimit=300),
        ),
    )
    chart = alt.layer(
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=3, opacity=0.5, aria=False)
        .encode(
            x=alt.X("low:Q", title=f"mean {measure.replace('_', ' ')} of pairs", scale=alt.Scale(zero=False)),
            x2="high:Q",
        ),
        base.mark_point(filled=True, opacity=1, size=60).encode(
            x="estimate:Q", shape=alt.Shape("of:N", title=None, scale=kinds), **labelled()
        ),
    )
    return finish(chart, width=WIDTH - 150, height=alt.Step(26))


def lineage_scores(scores: "Mapping[str, LineageScore]") -> Chart:
    """Draw the scores of guessed family trees by measure, with 95 % intervals over families and a random guess.

    Args:
        scores: Score of each method, as ``vitzoo.lineage(selection).score()`` returns it.

    Raises:
        SelectionError: There are no scores.
    """
    if not scores:
        raise SelectionError("There are no scores", expected="one or more", value=len(scores))
    points = [
        {
            "measure": str(row["measure"]).replace("_", " "),
            "method": method,
            "label": f"{method}, {str(row['measure']).replace('_', ' ')}: {row['estimate']:.3g}, "
            f"random guess {row['random']:.3g}",
            **{name: finite(row[name]) for name in ("estimate", "low", "high", "random")},
        }
        for method, score in scores.items()
        for row in score.table.to_dict("records")
        if np.isfinite(row["estimate"])
    ]
    base, layers = _draw(points, name="measure", series="method", title="score; 1 if all is right")
    random = (
        base.transform_filter("isValid(datum.random)")
        .mark_tick(thickness=2, size=12, color=OUTLINE, aria=False)
        .encode(x="random:Q", color=alt.value(OUTLINE))
    )
    return finish(alt.layer(*layers, random), width=WIDTH - 100, height=alt.Step(22))


def estimates(
    table: "pd.DataFrame",
    *,
    name: str,
    estimate: str,
    series: str,
    title: str,
    interval: tuple[str, str] | None = None,
    zero: bool = False,
) -> Chart:
    """Draw the numbers of a table by two of its columns, with their intervals.

    Args:
        table: Such as the ``differences`` of `vitzoo.analysis.merging.soups.Soups`.
        name: Column of the names on the vertical axis.
        estimate: Column of the numbers.
        series: Column of the names of the colours.
        title: Title of the horizontal axis.
        interval: Columns of both ends of the intervals; None without intervals.
        zero: Whether to draw a grey line at 0.

    Raises:
        SelectionError: The table has no row with a number.
    """
    ends = interval or (estimate, estimate)
    points = []
    for row in table.to_dict("records"):
        if np.isfinite(row[estimate]):
            low, high = (None, None) if interval is None else (finite(row[end]) for end in ends)
            between = "" if low is None else f" [{low:.3g}, {high:.3g}]"
            text = f"{row[name]}, {row[series]}: {row[estimate]:.3g}{between}"
            own = {"estimate": float(row[estimate]), "low": low, "high": high, "label": text}
            points.append({"name": str(row[name]), "series": str(row[series]), **own})
    if not points:
        raise SelectionError("The table has no numbers", expected="one row or more", value=len(table))
    _, layers = _draw(points, name="name", series="series", title=title)
    if zero:
        at_zero = alt.Chart(chart_data([{"zero": 0}])).mark_rule(color=OUTLINE, aria=False).encode(x="zero:Q")
        layers.insert(0, at_zero)
    longest = max(len(point["name"]) for point in points)
    return finish(alt.layer(*layers), width=WIDTH - 30 - 7 * min(longest, _LONGEST), height=alt.Step(16))


def _draw(
    points: Sequence[Mapping[str, Any]], *, name: str, series: str, title: str
) -> tuple[alt.Chart, list[alt.Chart]]:
    """Return the chart of points by name and series, and the layers of their intervals and estimates."""
    names, colours = (list(dict.fromkeys(str(point[key]) for point in points)) for key in (name, series))
    shown = names_legend(colours) if len(colours) > 1 else None
    base = alt.Chart(chart_data(points)).encode(
        y=alt.Y(f"{name}:N", title=None, sort=names, axis=names_axis(min(_LONGEST, max(map(len, names))))),
        yOffset=alt.YOffset(f"{series}:N", sort=colours),
        color=alt.Color(f"{series}:N", title=None, scale=named_colours(colours), legend=shown),
    )
    scale, axis = alt.Scale(zero=False), alt.Axis(tickCount=3)  # more would touch in a narrow picture
    bars = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=3, opacity=0.5, aria=False)
    marks = base.mark_point(filled=True, opacity=1, size=60).encode(
        x=alt.X("estimate:Q", title=title, scale=scale, axis=axis), **labelled()
    )
    return base, [bars.encode(x=alt.X("low:Q", title=title, scale=scale, axis=axis), x2="high:Q"), marks]


def _describe_cka(point: Mapping[str, Any]) -> str:
    between = "" if point["low"] is None else f" [{point['low']:.2f}, {point['high']:.2f}]"
    return f"{point['layer']} ({point['pool']}), pairs of {point['pairs']}: {point['mean']:.2f}{between}"
