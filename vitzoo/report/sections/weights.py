"""The sections from final weights: distances, principal components, and the family tree that they tell."""

import numpy as np

from vitzoo.analysis.lineage.lineage import lineage
from vitzoo.errors import SelectionError
from vitzoo.report import plots
from vitzoo.report.material import Material, Picture, Section, Table
from vitzoo.report.rows import number_text


def distances(material: Material) -> Section:
    """Describe the distances between members."""
    found = material.distances
    chart, order = plots.distance_map(material.completed, found), plots.dendrogram_order(found.values)
    ids = [str(found.refs[row].member) for row in order]
    return Section(
        key="distances",
        title="Distances between members",
        definition="The colour is the L2 norm of the difference of two members' final backbones, heads left out. Rows "
        "and columns have one order, which puts near members next to each other: leaves of average linkage.",
        counts=material.count(material.completed.with_refs(found.refs)),
        limits="A large distance does not mean other behaviour: permuted units change the weights, not the function. "
        "The order of two far groups means nothing.",
        pictures=[
            Picture(
                key="distances",
                title="L2 distance of backbones",
                chart=chart,
                matrix=(ids, found.values[np.ix_(order, order)]),
            )
        ],
    )


def weights_map(material: Material) -> Section:
    """Describe the map of the weights."""
    chart = plots.weights_map(material.completed, material.distances)
    _, shares = plots.principal_components(material.distances.values)
    return Section(
        key="map",
        title="Map of the weights",
        definition="The first two principal components of the centred final backbones, heads left out, both axes at "
        "one scale. The colour is the final accuracy on a member's own test data.",
        counts=material.count(material.completed.with_refs(material.distances.refs)),
        limits=f"The two components have {shares.sum():.0%} of the variance. Families that only differ in other "
        "components lie on top of each other here: see the distances.",
        pictures=[
            Picture(
                key="map",
                title="Principal components",
                chart=chart,
            )
        ],
    )


def family_tree_from_weights(material: Material) -> Section:
    """Describe the family tree that methods guess from weights and digests."""
    material.check_reads()
    if len(material.completed) < 2:
        raise SelectionError("One member has no relatives", expected="two or more members", value=1)
    found = {method: lineage(material.completed, method=method) for method in ("cluster-root-star", "digest")}
    scores = {method: guessed.score() for method, guessed in found.items()}
    star = found["cluster-root-star"]
    merged = [" and ".join(trees) for trees in scores[star.method].merged]
    return Section(
        key="lineage",
        title="Family tree from weights",
        definition="Two methods guess the parent of each member, without ids. cluster-root-star clusters the final "
        "backbones, and takes the member whose LayerNorm gains are nearest to 1 for the parent of all others of its "
        "cluster. digest looks for the backbone of the child's epoch 0. Edges are the share of children with the right "
        "parent, roots the share of parents without one, and the adjusted Rand index compares clusters with trees. "
        "Bars are 95 % intervals that resample families; fewer than five families have none. A grey line is the "
        "expected score of the same guess with shuffled members.",
        counts=material.count(material.completed.with_refs(star.refs))
        + (f" In one cluster: {'; '.join(merged)}." if merged else ""),
        limits="A signal that finds parents here may fail on models with another weight decay or other first weights. "
        "An interval of no width means that no family has an error, not that none can.",
        pictures=[
            Picture(key="lineage", title="Right parents, roots and clusters", chart=plots.lineage_scores(scores))
        ],
        tables=[
            Table(
                caption="Scores of guessed family trees, with 95 % intervals over families",
                head=("method", "measure", "right", "of", "families", "score", "low", "high", "random guess"),
                rows=[
                    [method, row["measure"].replace("_", " ")]
                    + ["-" if np.isnan(row[name]) else f"{row[name]:.0f}" for name in ("right", "total", "families")]
                    + [number_text(row[name]) for name in ("estimate", "low", "high", "random")]
                    for method, score in scores.items()
                    for row in score.table.to_dict("records")
                ],
            ),
            Table(
                caption="Root signals: share of recorded edges on which each points from parent to child",
                head=("signal", "meaning", "root has the", "edges", "families", "share", "low", "high", "chosen on"),
                rows=[
                    [row["signal"], row["meaning"], row["root"], str(row["edges"]), str(row["families"])]
                    + [number_text(row[name]) for name in ("accuracy", "low", "high")]
                    + [row["chosen_on"]]
                    for row in star.signals.to_dict("records")
                ],
            ),
        ],
    )
