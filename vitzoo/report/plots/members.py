"""Pictures of members from the tables alone: the family tree, accuracies by factor, training curves."""

import altair as alt
import numpy as np

from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.report.plots.style import (
    COLOURS,
    OUTLINE,
    WIDTH,
    Chart,
    chart_data,
    finish,
    labelled,
    member_mark,
    named_colours,
    names_axis,
    names_legend,
    rows_of,
    shade,
    shape,
)
from vitzoo.report.rows import Row, accuracy_of, find_factors, metric_name, text_of
from vitzoo.zoo.selection import Selection

_PER_LINE = 24  # children in a line of the family tree


def family_tree(selection: Selection) -> Chart:
    """Draw each parent with its children to its right, coloured by final test accuracy.

    Args:
        selection: Members; ``zoo.select(status="any")`` for all.
    """
    rows = rows_of(selection)
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(_family(row), []).append(row)
    marks, links, names, line = [], [], [], 0
    widest = max(
        1, min(_PER_LINE, max(sum(row["parent"] is not None for row in family) for family in families.values()))
    )
    for name, family in families.items():
        children = [row for row in family if row["parent"] is not None]
        names.append({"x": 0, "y": line, "text": name})
        marks += [member_mark(row, 0, line) for row in family if row["parent"] is None]
        for number, child in enumerate(children):
            marks.append(member_mark(child, number % widest + 1.5, line + number // widest))
        links += [
            {"x": 0, "x2": min(widest, len(children) - start) + 0.5, "y": line + start // widest}
            for start in range(0, len(children), widest)
        ]
        line += max(1, -(-len(children) // widest))
    step = min(24, (WIDTH + 20) / (widest + 1.6))
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.6, widest + 1], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[line - 0.5, -0.5], nice=False))
    chart = alt.layer(
        alt.Chart(chart_data(links)).mark_rule(color=OUTLINE, aria=False).encode(x=x, x2="x2:Q", y=y),
        alt.Chart(chart_data(marks))
        .mark_point(filled=True, opacity=1, size=(0.72 * step) ** 2, stroke=OUTLINE, strokeWidth=0.75)
        .encode(x=x, y=y, color=shade("test accuracy", marks), shape=shape(marks), **labelled()),
        alt.Chart(chart_data(names))
        .mark_text(align="right", fontSize=11, dx=-0.36 * step - 4, aria=False)
        .encode(x=x, y=y, text="text:N"),
    )
    return finish(chart, width=step * (widest + 1.6), height=max(3, line) * min(20, step + 4))


def accuracy_by_factor(selection: Selection, factor: str, *, part: str = "test") -> Chart:
    """Draw the final accuracy of each member by the value of a factor, with the mean of each value.

    Args:
        selection: Members with one data set.
        factor: A column of the members table.
        part: ``test`` or ``val``.

    Raises:
        SelectionError: There is no such column or part, or no member has an accuracy.
    """
    rows = rows_of(selection)
    if factor not in rows[0]:
        raise SelectionError(f'There is no factor "{factor}"', fix=did_you_mean(factor, rows[0]), value=factor)
    if part not in ("test", "val"):
        raise SelectionError(f'part is "{part}"', expected="test or val", value=part)
    marks = [
        {
            "value": text_of(row[factor]),
            "accuracy": accuracy,
            "offset": number % 7 - 3,  # neighbours in the table do not cover each other
            "label": f"{row['id']}: {metric_name(row, part)} {accuracy:.3f}, {factor} {text_of(row[factor])}",
        }
        for number, row in enumerate(rows)
        if (accuracy := accuracy_of(row, part)) is not None
    ]
    if not marks:
        raise SelectionError(f"No member has a final {part} accuracy", expected="one or more", value=part)
    values = [text_of(value) for value in sorted({row[factor] for row in rows}, key=lambda v: (v is None, v))]
    means = [
        {"value": value, "mean": mean, "label": f"mean of {len(own)} members with {factor} {value}: {mean:.3f}"}
        for value in values
        if (own := [mark["accuracy"] for mark in marks if mark["value"] == value])
        for mean in [float(np.mean(own))]
    ]
    y = alt.Y("value:N", title=None, sort=values, axis=names_axis(14))
    x = alt.X("accuracy:Q", title=f"{part} accuracy", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    chart = alt.layer(
        alt.Chart(chart_data(marks))
        .mark_point(filled=True, opacity=0.7, size=28, color=COLOURS[0])
        .encode(x=x, y=y, yOffset=alt.YOffset("offset:Q", scale=alt.Scale(domain=[-6, 6])), **labelled()),
        alt.Chart(chart_data(means))
        .mark_tick(thickness=3, size=26, color=COLOURS[1], opacity=1)
        .encode(x="mean:Q", y=y, **labelled()),
    )
    return finish(chart, width=WIDTH - 70, height=alt.Step(34))


def training_curves(selection: Selection, *, metric: str = "val_accuracy", colour: str | None = None) -> Chart:
    """Draw a metric of each member by epoch.

    Args:
        selection: Members; all epochs of their records are drawn.
        metric: A column of the epochs table, such as ``val_accuracy`` or ``train_loss``. ``val_accuracy`` and
            ``test_accuracy`` are k-NN's for members without classes.
        colour: A factor; None for the one with the largest differences of validation accuracy.

    Raises:
        SelectionError: There is no such metric or factor, or no member has the metric.
    """
    rows = {row["id"]: row for row in rows_of(selection)}
    table = selection.catalogue.table("epochs")
    if metric not in table.column_names:
        raise SelectionError(
            f'There is no metric "{metric}"', fix=did_you_mean(metric, table.column_names), value=metric
        )
    if colour is None:
        found = find_factors(list(rows.values()), most_values=len(COLOURS))
        colour = found[0].name if found else "stage"
    elif colour not in next(iter(rows.values())):
        raise SelectionError(
            f'There is no factor "{colour}"', fix=did_you_mean(colour, table.column_names), value=colour
        )
    knn = metric.replace("accuracy", "knn_accuracy")
    columns = [
        table.column(name).to_pylist() for name in ("id", "epoch", metric, knn if knn in table.column_names else metric)
    ]
    points = []
    for member, epoch, value, other in zip(*columns, strict=True):
        value = other if value is None else value
        if member in rows and value is not None and np.isfinite(value):
            group = text_of(rows[member][colour])
            points.append({"id": member, "epoch": epoch, "value": value, "group": group, "label": f"{member}: {group}"})
    if not points:
        raise SelectionError(f"No member has {metric}", expected="one or more", value=metric)
    last = max(point["epoch"] for point in points)
    groups = [text_of(value) for value in sorted({row[colour] for row in rows.values()}, key=lambda v: (v is None, v))]
    lines = alt.Chart(chart_data(points)).encode(
        x=alt.X("epoch:Q", axis=alt.Axis(values=list(range(0, last + 1, 1 + last // 9)), format="d")),
        y=alt.Y("value:Q", title=metric.replace("_", " "), scale=alt.Scale(zero=False)),
        detail="id:N",
        color=alt.Color("group:N", title=colour, scale=named_colours(groups), legend=names_legend(groups)),
    )
    chart = alt.layer(
        lines.mark_line(strokeWidth=1, opacity=0.6, strokeJoin="round", aria=False),
        lines.mark_line(strokeWidth=7, opacity=0).encode(**labelled()),  # wide enough for a pointer
    )
    return finish(chart, width=WIDTH, height=220)


def _family(row: Row) -> str:
    return row["parent"] or row["id"]
