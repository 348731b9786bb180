"""Pictures of backbones: the map of distances and the map of principal components."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float64, Int
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from vitzoo.errors import SelectionError
from vitzoo.ids import MemberId
from vitzoo.report.plots.style import (
    OUTLINE,
    SHADES,
    WIDTH,
    Chart,
    chart_data,
    finish,
    labelled,
    legend,
    member_mark,
    rows_of,
    shade,
    shape,
)
from vitzoo.weights.distances import Distances
from vitzoo.weights.population import PopulationWeights
from vitzoo.zoo.selection import Selection


def distance_map(selection: Selection, distances: Distances | None = None) -> Chart:
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
        legend=legend(gradientLength=200, gradientOpacity=1),
    )
    chart = alt.layer(
        alt.Chart(chart_data(picture))
        .mark_image(width=side, height=side, smooth=False, aspect=False, align="left", baseline="top")
        .encode(x=x, y=y, url="url:N", description="label:N"),
        alt.Chart(chart_data(strips))
        .mark_rect(fillOpacity=0)
        .encode(x=x, x2="x2:Q", y=y, y2="y2:Q", color=shade, **labelled()),
        alt.Chart(chart_data(_runs(ids, side)))
        .mark_text(align="right", fontSize=10, dx=-4, aria=False)
        .encode(x=x, y=y, text="text:N"),
    )
    return finish(chart, width=side, height=side)


def weights_map(selection: Selection, distances: Distances | None = None) -> Chart:
    """Draw the first two principal components of the centred backbones, coloured by final test accuracy.

    Args:
        selection: Three or more members.
        distances: Their L2 distances, which the components are computed from.

    Raises:
        SelectionError: Fewer than three members have finite weights.
    """
    distances = finite_distances(selection, distances, fewest=3)
    places, shares = principal_components(distances.values)
    rows = {row["id"]: row for row in rows_of(selection)}
    marks = [
        member_mark(rows[str(ref.member)], float(x), float(y))
        for ref, (x, y) in zip(distances.refs, places, strict=True)
    ]
    reach = 1.08 * float(np.abs(places).max()) or 1.0
    scale = alt.Scale(domain=[-reach, reach], nice=False)
    x = alt.X("x:Q", title=f"component 1 ({shares[0]:.0%} of the variance)", scale=scale)
    y = alt.Y("y:Q", title=f"component 2 ({shares[1]:.0%})", scale=scale)
    parents = _names_apart([mark for mark in marks if mark["kind"] == "parent"], room=0.12 * reach)
    chart = alt.layer(
        alt.Chart(chart_data(marks))
        .mark_point(filled=True, opacity=0.9, size=50, stroke=OUTLINE, strokeWidth=0.75)
        .encode(x=x, y=y, color=shade("test accuracy", marks), shape=shape(marks), **labelled()),
        alt.Chart(chart_data(parents)).mark_text(dy=-10, fontSize=10, aria=False).encode(x=x, y=y, text="text:N"),
    )
    return finish(chart, width=WIDTH - 40, height=WIDTH - 40)


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
