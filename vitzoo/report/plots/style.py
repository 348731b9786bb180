"""Widths, colours, axes and legends of all pictures, and the marks of members."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from vitzoo.report.rows import Row, accuracy_of, metric_name, number_text
from vitzoo.zoo.selection import Selection, check_selection

Chart = alt.LayerChart | alt.FacetChart

WIDTH = 340  # of a picture without its axes; a page of 400 pixels shows it whole
# Viridis, which keeps its order for colour-blind readers and in grey.
SHADES = (
    "#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725",
)  # fmt: skip
# After Okabe and Ito, with enough contrast on white and on black.
COLOURS = ("#2b83c9", "#d55e00", "#009e73", "#cc79a7", "#8c6d31", "#7f7f7f")
OUTLINE = "#808080"
_LONGEST = 30  # letters of a name in a legend
_SHAPES = {"parent": "square", "child": "circle", "did not complete": "cross"}


def rows_of(selection: Selection) -> list[Row]:
    """Return the rows of the members table; raise SelectionError if there are none."""
    check_selection(selection)
    return selection.members_table.to_pylist()


def member_mark(row: Row, x: float, y: float) -> dict[str, Any]:
    """Return the mark of a member at a place."""
    accuracy, status = accuracy_of(row, "test"), row["status"]
    kind = "parent" if row["parent"] is None else "child"
    label = f"{row['id']}: {metric_name(row, 'test')} {number_text(accuracy)}"
    return {
        "x": x,
        "y": y,
        "accuracy": accuracy,
        "kind": kind if status == "completed" else "did not complete",
        "label": label if status == "completed" else f"{label}, {status}",
    }


def chart_data(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return the data of a chart."""
    return {"values": list(rows)}  # an alt.InlineData would check each row against a schema: 20 times as long


def labelled() -> dict[str, Any]:
    """Return the encodings of a mark's label: the tooltip, and the name that a screen reader says."""
    return {"tooltip": "label:N", "description": "label:N"}


def legend(**options: Any) -> alt.Legend:
    """Return a legend below a picture."""
    return alt.Legend(orient="bottom", direction="horizontal", **options)


def names_legend(names: Sequence[str]) -> alt.Legend:
    """Return a legend of names, which are cut by their letters: the browser's font is not the one that is measured."""
    longest = min(_LONGEST, max(map(len, names)))
    return legend(columns=max(1, 42 // (longest + 5)), labelExpr=f"truncate(datum.label, {_LONGEST})", labelLimit=0)


def names_axis(longest: int) -> alt.Axis:
    """Return an axis of names of equal width in all pictures, cut to a number of letters."""
    return alt.Axis(labelExpr=f"truncate(datum.label, {longest})", labelLimit=0, minExtent=7 * longest)


def shade(title: str, marks: Sequence[Mapping[str, Any]]) -> alt.Color:
    """Return the colours of accuracies."""
    known = [mark["accuracy"] for mark in marks if mark["accuracy"] is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    return alt.Color(
        "accuracy:Q",
        title=title,
        scale=alt.Scale(domain=[low, high if high > low else low + 1e-3], range=list(SHADES)),
        legend=legend(gradientLength=160, format=".2f"),
    )


def shape(marks: Sequence[Mapping[str, Any]]) -> alt.Shape:
    """Return the shapes of kinds of members."""
    kinds = [kind for kind in _SHAPES if any(mark["kind"] == kind for mark in marks)]
    scale = alt.Scale(domain=kinds, range=[_SHAPES[kind] for kind in kinds])
    return alt.Shape("kind:N", title=None, scale=scale, legend=legend(symbolFillColor=OUTLINE))


def named_colours(names: Sequence[str]) -> alt.Scale:
    """Return a colour for each name, in their order."""
    return alt.Scale(domain=list(names), range=[COLOURS[place % len(COLOURS)] for place in range(len(names))])


def finite(value: float) -> float | None:
    """Return a number of JSON, which has no NaN."""
    return float(value) if np.isfinite(value) else None


def finish(chart: Chart, **size: Any) -> Chart:
    """Return a chart of a size, without a frame."""
    return chart.properties(**size).configure_view(stroke=None)
