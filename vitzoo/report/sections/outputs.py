"""The sections from outputs and features on test data: similarity of features, contrasts."""

from vitzoo.errors import SelectionError
from vitzoo.progress import in_bytes
from vitzoo.report import plots
from vitzoo.report.material import MOST_FEATURES, Material, Picture, Section, Table
from vitzoo.report.rows import number_text

_CONTRASTED = {  # measures of the contrasts that are drawn
    "agreement": "Share of equal predictions",
    "error_consistency": "Error consistency",
    "l2": "L2 distance of backbones",
    "move_cosine": "Cosine of the moves from the parents",
}


def similarity(material: Material) -> Section:
    """Describe the similarity of features by layer."""
    if not material.tables_only and material.feature_bytes > MOST_FEATURES:
        raise SelectionError(
            f"The features of all layers take {in_bytes(material.feature_bytes)}",
            expected=f"at most {in_bytes(MOST_FEATURES)}",
            fix="Choose fewer members with --where.",
            value=material.feature_bytes,
        )
    found = material.behaviour
    points = plots.cka_means(found, material.families)
    cells = [
        [point["layer"], point["pool"], point["pairs"], str(point["number"]), f"{point['mean']:.3f}"]
        + [number_text(point[side]) for side in ("low", "high")]
        for point in points
    ]
    return Section(
        key="cka",
        title="Similarity of features by layer",
        definition="Mean debiased linear CKA of pairs of members on the same samples, by layer: 1 for features that "
        "differ by a rotation and a scale, about 0 for unrelated ones. cls is the first token, mean the mean of the "
        "others. Bars are 95 % intervals that resample families; fewer than five families have none.",
        counts=material.count(material.comparable, samples=True),
        limits="CKA is moved by few samples with large features. Equal features do not mean equal answers.",
        pictures=[
            Picture(key="cka", title="Mean CKA", chart=plots.cka_by_layer(found, material.families, points=points))
        ],
        tables=[
            Table(
                caption="Mean CKA of pairs with 95 % intervals over families",
                head=("layer", "pooled", "pairs of", "pairs", "mean", "low", "high"),
                rows=cells,
            )
        ],
    )


def contrasts(material: Material) -> Section:
    """Describe pairs of members that differ in one factor."""
    found = material.diversity
    whole = [row for row in found.contrasts.to_dict("records") if not row["layer"]]
    measures = [name for name in _CONTRASTED if any(row["measure"] == name for row in whole)]
    if not measures:
        raise SelectionError("No two members differ in one factor alone", expected="one or more pairs", value=0)
    cells = [
        [row["contrast"], row["nested_in"] or "-", row["scope"], "yes" if row["common"] else "no", row["measure"]]
        + [str(row["pairs"]), str(row["families"])]
        + [number_text(row[name]) for name in ("estimate", "low", "high")]
        for row in whole
        if row["measure"] in measures
    ]
    nested = {row["contrast"]: row["nested_in"] for row in whole if row["nested_in"]}
    return Section(
        key="contrasts",
        title="Contrasts",
        definition="A contrast is the pairs of members that agree in all factors but one: inside a family, or, for the "
        "parent, in two families. A point is the mean over pairs, and a bar its 95 % interval, which resamples "
        "families; fewer than five families have none. Diamonds are of the families that have all contrasts inside "
        "families, so only diamonds can be compared with each other. A move is the difference of a member's backbone "
        "from its parent's.",
        counts=" ".join(
            [material.count(material.comparable, samples=True)]
            + [f"{name} is nested in {other}: its pairs have one {other}." for name, other in nested.items()]
        ),
        limits="Agreement grows with accuracy, and error consistency does so less. Circles of two contrasts may be of "
        "other families. A short distance of weights does not mean equal answers.",
        pictures=[
            Picture(key=f"contrasts-{name}", title=_CONTRASTED[name], chart=plots.contrasts(found.contrasts, name))
            for name in measures
        ],
        tables=[
            Table(
                caption="Means of pairs by contrast, with 95 % intervals over families",
                head=(
                    *("contrast", "nested in", "scope", "families with all contrasts", "measure", "pairs", "families"),
                    *("mean", "low", "high"),
                ),
                rows=cells,
            )
        ],
    )
