"""Pictures of a zoo, as Altair charts: a notebook shows them with tooltips, and ``chart.save`` writes a file.

    from vitzoo.report import plots
    plots.weights_map(zoo.select())

Each mark of a member has a label that starts with the member's id. See `vitzoo.report.sections` for the pictures of the
report page, with their definitions.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int

from vitzoo.analysis.behaviour.behaviour import Behaviour
from vitzoo.analysis.resampling import bootstrap_pairs
from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.ids import MemberId
from vitzoo.report.packages import check_report_packages
from vitzoo.report.rows import Row, accuracy_of, find_factors, metric_name, number_text, text_of
from vitzoo.weights.distances import Distances
from vitzoo.weights.population import PopulationWeights
from vitzoo.zoo.selection import Selection

check_report_packages()

import altair as alt  # noqa: E402
from scipy.cluster import hierarchy  # noqa: E402
from scipy.spatial.distance import squareform  # noqa: E402

if TYPE_CHECKING:
    import pandas as pd

    from vitzoo.analysis.lineage.score import LineageScore

    Chart = alt.LayerChart | alt.FacetChart

WIDTH = 340  # of a picture without its axes; a page of 400 pixels shows it whole
# Viridis, which keeps its order for colour-blind readers and in grey.
SHADES = (
    "#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725",
)  # fmt: skip
# After Okabe and Ito, with enough contrast on white and on black.
COLOURS = ("#2b83c9", "#d55e00", "#009e73", "#cc79a7", "#8c6d31", "#7f7f7f")
_OUTLINE = "#808080"
_OWN, _COMMON = "all families with the contrast", "families that have all contrasts"
_LONGEST = 30  # letters of a name in a legend
_PER_LINE = 24  # children in a line of the family tree
_SHAPES = {"parent": "square", "child": "circle", "did not complete": "cross"}


def family_tree(selection: Selection) -> "Chart":
    """Draw each parent with its children to its right, coloured by final test accuracy.

    Args:
        selection: Members; ``zoo.select(status="any")`` for all.
    """
    rows = _rows_of(selection)
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
        marks += [_mark(row, 0, line) for row in family if row["parent"] is None]
        for number, child in enumerate(children):
            marks.append(_mark(child, number % widest + 1.5, line + number // widest))
        links += [
            {"x": 0, "x2": min(widest, len(children) - start) + 0.5, "y": line + start // widest}
            for start in range(0, len(children), widest)
        ]
        line += max(1, -(-len(children) // widest))
    step = min(24, (WIDTH + 20) / (widest + 1.6))
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.6, widest + 1], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[line - 0.5, -0.5], nice=False))
    chart = alt.layer(
        alt.Chart(_data(links)).mark_rule(color=_OUTLINE, aria=False).encode(x=x, x2="x2:Q", y=y),
        alt.Chart(_data(marks))
        .mark_point(filled=True, opacity=1, size=(0.72 * step) ** 2, stroke=_OUTLINE, strokeWidth=0.75)
        .encode(x=x, y=y, color=_shade("test accuracy", marks), shape=_shape(marks), **_label()),
        alt.Chart(_data(names))
        .mark_text(align="right", fontSize=11, dx=-0.36 * step - 4, aria=False)
        .encode(x=x, y=y, text="text:N"),
    )
    return _finish(chart, width=step * (widest + 1.6), height=max(3, line) * min(20, step + 4))


def accuracy_by_factor(selection: Selection, factor: str, *, part: str = "test") -> "Chart":
    """Draw the final accuracy of each member by the value of a factor, with the mean of each value.

    Args:
        selection: Members with one data set.
        factor: A column of the members table.
        part: ``test`` or ``val``.

    Raises:
        SelectionError: There is no such column or part, or no member has an accuracy.
    """
    rows = _rows_of(selection)
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
    y = alt.Y("value:N", title=None, sort=values, axis=_names_axis(14))
    x = alt.X("accuracy:Q", title=f"{part} accuracy", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    chart = alt.layer(
        alt.Chart(_data(marks))
        .mark_point(filled=True, opacity=0.7, size=28, color=COLOURS[0])
        .encode(x=x, y=y, yOffset=alt.YOffset("offset:Q", scale=alt.Scale(domain=[-6, 6])), **_label()),
        alt.Chart(_data(means))
        .mark_tick(thickness=3, size=26, color=COLOURS[1], opacity=1)
        .encode(x="mean:Q", y=y, **_label()),
    )
    return _finish(chart, width=WIDTH - 70, height=alt.Step(34))


def training_curves(selection: Selection, *, metric: str = "val_accuracy", colour: str | None = None) -> "Chart":
    """Draw a metric of each member by epoch.

    Args:
        selection: Members; all epochs of their records are drawn.
        metric: A column of the epochs table, such as ``val_accuracy`` or ``train_loss``. ``val_accuracy`` and
            ``test_accuracy`` are k-NN's for members without classes.
        colour: A factor; None for the one with the largest differences of validation accuracy.

    Raises:
        SelectionError: There is no such metric or factor, or no member has the metric.
    """
    rows = {row["id"]: row for row in _rows_of(selection)}
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
    lines = alt.Chart(_data(points)).encode(
        x=alt.X("epoch:Q", axis=alt.Axis(values=list(range(0, last + 1, 1 + last // 9)), format="d")),
        y=alt.Y("value:Q", title=metric.replace("_", " "), scale=alt.Scale(zero=False)),
        detail="id:N",
        color=alt.Color("group:N", title=colour, scale=_named_colours(groups), legend=_names_legend(groups)),
    )
    chart = alt.layer(
        lines.mark_line(strokeWidth=1, opacity=0.6, strokeJoin="round", aria=False),
        lines.mark_line(strokeWidth=7, opacity=0).encode(**_label()),  # wide enough for a pointer
    )
    return _finish(chart, width=WIDTH, height=220)


def distance_map(selection: Selection, distances: Distances | None = None) -> "Chart":
    """Draw the distances between all members' backbones, ordered by average linkage, so that near members are close.

    Args:
        selection: Two or more members.
        distances: Their distances; the L2 distances of the backbones by default.

    Raises:
        SelectionError: Fewer than two members have finite weights.
    """
    distances = finite_distances(selection, distances)
    order = dendrogram_order(distances.values)
    values = distances.values[np.ix_(order, order)]
    ids = [str(distances.refs[row].member) for row in order]
    largest = float(values.max()) or 1.0
    count, side = len(ids), WIDTH - 40
    others = values + np.diag(np.full(count, np.inf))
    strips = [
        {
            "y": row,
            "y2": row + 1,
            "x": 0,
            "x2": count,
            "distance": float(others[row].min()),
            "label": f"{member}: nearest {ids[int(others[row].argmin())]}, distance {others[row].min():.3g}",
        }
        for row, member in enumerate(ids)
    ]
    picture = [
        {
            "url": _png(values / largest),
            "label": f"Distances of {count} members",
            "x": 0,
            "y": 0,
            "x2": count,
            "y2": count,
        }
    ]
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, count], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[count, 0], nice=False))
    shade = alt.Color(
        "distance:Q",
        title="distance",
        scale=alt.Scale(domain=[0, largest], range=list(SHADES)),
        legend=_legend(gradientLength=200, gradientOpacity=1),
    )
    chart = alt.layer(
        alt.Chart(_data(picture))
        .mark_image(width=side, height=side, smooth=False, aspect=False, align="left", baseline="top")
        .encode(x=x, y=y, url="url:N", description="label:N"),
        alt.Chart(_data(strips))
        .mark_rect(fillOpacity=0)
        .encode(x=x, x2="x2:Q", y=y, y2="y2:Q", color=shade, **_label()),
        alt.Chart(_data(_runs(ids, side)))
        .mark_text(align="right", fontSize=10, dx=-4, aria=False)
        .encode(x=x, y=y, text="text:N"),
    )
    return _finish(chart, width=side, height=side)


def weights_map(selection: Selection, distances: Distances | None = None) -> "Chart":
    """Draw the first two principal components of the centred backbones, coloured by final test accuracy.

    Args:
        selection: Three or more members.
        distances: Their L2 distances, which the components are computed from.

    Raises:
        SelectionError: Fewer than three members have finite weights.
    """
    distances = finite_distances(selection, distances, fewest=3)
    places, shares = principal_components(distances.values)
    rows = {row["id"]: row for row in _rows_of(selection)}
    marks = [
        _mark(rows[str(ref.member)], float(x), float(y)) for ref, (x, y) in zip(distances.refs, places, strict=True)
    ]
    reach = 1.08 * float(np.abs(places).max()) or 1.0
    scale = alt.Scale(domain=[-reach, reach], nice=False)
    x = alt.X("x:Q", title=f"component 1 ({shares[0]:.0%} of the variance)", scale=scale)
    y = alt.Y("y:Q", title=f"component 2 ({shares[1]:.0%})", scale=scale)
    parents = _names_apart([mark for mark in marks if mark["kind"] == "parent"], room=0.12 * reach)
    chart = alt.layer(
        alt.Chart(_data(marks))
        .mark_point(filled=True, opacity=0.9, size=50, stroke=_OUTLINE, strokeWidth=0.75)
        .encode(x=x, y=y, color=_shade("test accuracy", marks), shape=_shape(marks), **_label()),
        alt.Chart(_data(parents)).mark_text(dy=-10, fontSize=10, aria=False).encode(x=x, y=y, text="text:N"),
    )
    return _finish(chart, width=WIDTH - 40, height=WIDTH - 40)


def cka_by_layer(
    behaviour: Behaviour, families: Mapping[str, str], *, points: Sequence[Mapping[str, Any]] | None = None
) -> "Chart":
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
    colour = alt.Color("pairs:N", title="pairs of", scale=_named_colours(pairs), legend=_legend())
    base = alt.Chart(_data([{**point, "label": _describe_cka(point)} for point in points]))
    chart = alt.layer(
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=4, opacity=0.35, aria=False)
        .encode(x=x, y=alt.Y("low:Q", title="mean CKA"), y2="high:Q", color=colour),
        base.mark_line(strokeWidth=1.5, aria=False).encode(
            x=x,
            y="mean:Q",
            color=colour,
            strokeDash=alt.StrokeDash("pool:N", title="pooled", legend=_legend()),
            detail=["pairs:N", "pool:N"],
        ),
        base.mark_point(filled=True, opacity=1, size=36).encode(x=x, y="mean:Q", color=colour, **_label()),
    )
    return _finish(chart, width=WIDTH, height=220)


def contrasts(table: "pd.DataFrame", measure: str) -> "Chart":
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
            "estimate": _json(row["estimate"]),
            "low": _json(row["low"]),
            "high": _json(row["high"]),
            "of": _COMMON if row["common"] else _OWN,
            "label": f"{row['contrast']}, {_COMMON if row['common'] else _OWN}: {row['estimate']:.3g}, "
            f"{row['pairs']} pairs of {row['families']} families",
        }
        for row in rows
    ]
    kinds = alt.Scale(domain=[_OWN, _COMMON], range=["circle", "diamond"])
    base = alt.Chart(_data(points)).encode(
        y=alt.Y(
            "contrast:N",
            title=None,
            sort=[row["contrast"] for row in rows],
            axis=_names_axis(32),
        ),
        color=alt.Color(
            "of:N",
            title=None,
            scale=alt.Scale(domain=[_OWN, _COMMON], range=list(COLOURS[:2])),
            legend=_legend(columns=1, labelLimit=300),
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
            x="estimate:Q", shape=alt.Shape("of:N", title=None, scale=kinds), **_label()
        ),
    )
    return _finish(chart, width=WIDTH - 150, height=alt.Step(26))


def lineage_scores(scores: "Mapping[str, LineageScore]") -> "Chart":
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
            **{name: _json(row[name]) for name in ("estimate", "low", "high", "random")},
        }
        for method, score in scores.items()
        for row in score.table.to_dict("records")
        if np.isfinite(row["estimate"])
    ]
    base = alt.Chart(_data(points)).encode(
        y=alt.Y("measure:N", title=None, sort=["edges", "roots", "adjusted rand"], axis=_names_axis(16)),
        yOffset=alt.YOffset("method:N", sort=list(scores)),
        color=alt.Color("method:N", title=None, scale=_named_colours(list(scores)), legend=_names_legend(list(scores))),
    )
    chart = alt.layer(
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=3, opacity=0.5, aria=False)
        .encode(x=alt.X("low:Q", title="score; 1 if all is right"), x2="high:Q"),
        base.mark_point(filled=True, opacity=1, size=60).encode(x="estimate:Q", **_label()),
        base.transform_filter("isValid(datum.random)")
        .mark_tick(thickness=2, size=12, color=_OUTLINE, aria=False)
        .encode(x="random:Q", color=alt.value(_OUTLINE)),
    )
    return _finish(chart, width=WIDTH - 100, height=alt.Step(22))


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
                            "low": _json(interval.low),
                            "high": _json(interval.high),
                        }
                    )
    return points


def dendrogram_order(distances: Float64[np.ndarray, "members members"]) -> Int[np.ndarray, " members"]:
    """Order members by average linkage, with the nearest leaves next to each other.

    Source: Bar-Joseph et al. 2001, Fast Optimal Leaf Ordering for Hierarchical Clustering.
    """
    near = squareform(np.asarray(distances), checks=False)
    return hierarchy.leaves_list(hierarchy.linkage(near, method="average", optimal_ordering=True))


def finite_distances(selection: Selection, distances: Distances | None = None, *, fewest: int = 2) -> Distances:
    """Leave out members whose weights are not finite.

    Args:
        selection: Members.
        distances: Their distances; None for the L2 distances of their backbones.
        fewest: Smallest number of members that is accepted.

    Raises:
        SelectionError: Fewer members have finite weights.
    """
    if distances is None:
        distances = PopulationWeights(selection.catalogue, selection.refs).distances()
    known = np.isfinite(distances.values).sum(axis=1) > 1
    if known.sum() < fewest:
        raise SelectionError(
            f"{known.sum()} members have finite weights", expected=f"{fewest} or more", value=int(known.sum())
        )
    refs = tuple(ref for ref, is_known in zip(distances.refs, known, strict=True) if is_known)
    return Distances(distances.values[np.ix_(known, known)], None, refs)


def principal_components(
    distances: Float64[np.ndarray, "members members"],
) -> tuple[Float64[np.ndarray, "members 2"], Float64[np.ndarray, " 2"]]:
    """Compute the first two principal components of centred vectors from their L2 distances.

    Returns:
        Scores of each member, and the share of the variance of each component. Signs are arbitrary.

    Source: Gower 1966, Some distance properties of latent root and vector methods used in multivariate analysis.
    """
    squares = np.asarray(distances) ** 2
    centred = -0.5 * (squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean())
    values, vectors = np.linalg.eigh(centred)
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    total = values.sum() or 1.0
    return vectors[:, :2] * np.sqrt(values[:2]), values[:2] / total


def _rows_of(selection: Selection) -> list[Row]:
    if not len(selection):
        raise SelectionError("The selection is empty", expected="one or more members", value=selection)
    return selection.members_table.to_pylist()


def _family(row: Row) -> str:
    return row["parent"] or row["id"]


def _mark(row: Row, x: float, y: float) -> dict[str, Any]:
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


def _names_apart(marks: Sequence[Mapping[str, Any]], *, room: float) -> list[dict[str, Any]]:
    """Return the members' names at their marks; marks without room for two names share one."""
    groups: list[list[Mapping[str, Any]]] = []
    for mark in marks:
        near = [group for group in groups if np.hypot(mark["x"] - group[0]["x"], mark["y"] - group[0]["y"]) < 2 * room]
        near[0].append(mark) if near else groups.append([mark])
    return [
        {
            "x": float(np.mean([mark["x"] for mark in group])),
            "y": max(mark["y"] for mark in group),
            "text": ", ".join(names) if len(names) < 3 else f"{len(names)} parents",
        }
        for group in groups
        for names in [[mark["label"].split(":")[0] for mark in group]]
    ]


def _runs(ids: Sequence[str], side: float) -> list[dict[str, Any]]:
    """Return the names of families beside their members, where neighbours of one family have room for it."""
    families = [str(MemberId.parse(member).parent_id or member) for member in ids]
    runs, start = [], 0
    for end in range(1, len(families) + 1):
        if end == len(families) or families[end] != families[start]:
            if (end - start) * side / len(ids) >= 10:
                runs.append({"x": 0, "y": (start + end) / 2, "text": families[start]})
            start = end
    return runs


def _png(shares: Float64[np.ndarray, "rows columns"]) -> str:
    """Paint numbers from 0 to 1 as the pixels of a data URL."""
    from PIL import Image

    anchors = np.array([[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in SHADES])
    scaled = shares * (len(SHADES) - 1)
    pixels = np.stack([np.interp(scaled, np.arange(len(SHADES)), channel) for channel in anchors.T], axis=-1)
    file = io.BytesIO()
    Image.fromarray(pixels.round().astype(np.uint8)).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _data(rows: Sequence[Mapping[str, Any]]) -> Any:
    return {"values": list(rows)}  # an alt.InlineData would check each row against a schema: 20 times as long


def _label() -> dict[str, Any]:
    """Return the encodings of a mark's label: the tooltip, and the name that a screen reader says."""
    return {"tooltip": "label:N", "description": "label:N"}


def _legend(**options: Any) -> alt.Legend:
    return alt.Legend(orient="bottom", direction="horizontal", **options)


def _names_legend(names: Sequence[str]) -> alt.Legend:
    """Return a legend of names, which are cut by their letters: the browser's font is not the one that is measured."""
    longest = min(_LONGEST, max(map(len, names)))
    return _legend(columns=max(1, 42 // (longest + 5)), labelExpr=f"truncate(datum.label, {_LONGEST})", labelLimit=0)


def _names_axis(longest: int) -> alt.Axis:
    """Return an axis of names of equal width in all pictures, cut to a number of letters."""
    return alt.Axis(labelExpr=f"truncate(datum.label, {longest})", labelLimit=0, minExtent=7 * longest)


def _shade(title: str, marks: Sequence[Mapping[str, Any]]) -> alt.Color:
    known = [mark["accuracy"] for mark in marks if mark["accuracy"] is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    return alt.Color(
        "accuracy:Q",
        title=title,
        scale=alt.Scale(domain=[low, high if high > low else low + 1e-3], range=list(SHADES)),
        legend=_legend(gradientLength=160, format=".2f"),
    )


def _shape(marks: Sequence[Mapping[str, Any]]) -> alt.Shape:
    kinds = [kind for kind in _SHAPES if any(mark["kind"] == kind for mark in marks)]
    scale = alt.Scale(domain=kinds, range=[_SHAPES[kind] for kind in kinds])
    return alt.Shape("kind:N", title=None, scale=scale, legend=_legend(symbolFillColor=_OUTLINE))


def _named_colours(names: Sequence[str]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=[COLOURS[place % len(COLOURS)] for place in range(len(names))])


def _describe_cka(point: Mapping[str, Any]) -> str:
    between = "" if point["low"] is None else f" [{point['low']:.2f}, {point['high']:.2f}]"
    return f"{point['layer']} ({point['pool']}), pairs of {point['pairs']}: {point['mean']:.2f}{between}"


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _finish(chart: "Chart", **size: Any) -> "Chart":
    return chart.properties(**size).configure_view(stroke=None)
