"""The sections of the report page: pictures with their definitions, numbers of members and families, and limits.

A section is a function of a `Material` that returns a `Section`; `SECTIONS` lists them in the page's order. See
`vitzoo.report.plots` for the pictures, and `vitzoo.report.page` for the HTML.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from statistics import fmean, stdev
from typing import Any

import numpy as np

from vitzoo.analysis.behaviour.behaviour import Behaviour, behaviour
from vitzoo.analysis.diversity.diversity import Diversity, diversity
from vitzoo.analysis.lineage.lineage import lineage
from vitzoo.errors import DatasetError, SelectionError, WeightsError
from vitzoo.models.layers import POOLS
from vitzoo.progress import in_bytes
from vitzoo.report import plots
from vitzoo.report.rows import Row, accuracy_of, find_factors, number_text, text_of
from vitzoo.weights.distances import Distances
from vitzoo.zoo.member import Member
from vitzoo.zoo.selection import Selection

_CONTRASTED = {  # measures of the contrasts that are drawn
    "agreement": "Share of equal predictions",
    "error_consistency": "Error consistency",
    "l2": "L2 distance of backbones",
    "move_cosine": "Cosine of the moves from the parents",
}
_MOST_VALUES = 8  # of a factor that is drawn
_MOST_CURVES = 300  # lines of one picture
_MOST_FEATURES = 4 * 10**9  # bytes that CKA may add to the cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of a section: its caption, column names, and rows of text."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture of a section.

    Args:
        key: Its name in links and files.
        title: Its title.
        chart: An Altair chart.
        matrix: Ids and distances behind a heat map, by which a pointer finds the pair; None for other pictures.
    """

    key: str
    title: str
    chart: Any
    matrix: tuple[Sequence[str], np.ndarray] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A section of the page.

    Args:
        key: Its name in links.
        title: Its title.
        definition: How its numbers are computed.
        counts: Numbers of members, families and samples.
        limits: A conclusion that it does not allow.
        pictures: Its pictures.
        tables: Its tables.
        problem: The reason why it has no pictures; empty if it has.
    """

    key: str
    title: str
    definition: str = ""
    counts: str = ""
    limits: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    problem: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """The members of a report, and the results that several sections use. Each is computed once, when it is needed.

    Args:
        selection: The members, of any status.
        tables_only: Whether to read no weights and run no model.
        data: Local folders of data sets by name.
        device: Where models run.
        cache: Folder of the outputs of models; None for the usual one.
    """

    selection: Selection
    tables_only: bool = False
    data: Mapping[str, str | PathLike[str]] = field(default_factory=dict)
    device: str = "cpu"
    cache: str | PathLike[str] | None = None

    @cached_property
    def rows(self) -> list[Row]:
        """Rows of the members table."""
        return self.selection.members_table.to_pylist()

    @cached_property
    def completed(self) -> Selection:
        """The completed members."""
        return self._only(lambda row: row["status"] == "completed")

    @cached_property
    def comparable(self) -> Selection:
        """The largest group of completed classifiers with one data set."""
        groups: dict[tuple[Any, ...], list[str]] = {}
        for row in self.rows:
            if row["status"] == "completed" and row["head_role"] == "classifier":
                keys = ("stage", "dataset", "dataset_fingerprint", "n_test")
                key = (*(row[name] for name in keys), tuple(row["classes"]))
                groups.setdefault(key, []).append(row["id"])
        if not groups:
            raise SelectionError("No completed member is a classifier", expected="one or more", value=0)
        largest = set(max(groups.values(), key=len))
        return self._only(lambda row: row["id"] in largest)

    @property
    def families(self) -> dict[str, str]:
        """Family of each member: a parent with its children, joined with those of the same initialisation."""
        return self.selection.catalogue.init_families

    @cached_property
    def distances(self) -> Distances:
        """The L2 distances of the completed members' backbones, without members whose weights are not finite."""
        self.check_reads()
        return plots.finite_distances(self.completed)

    @cached_property
    def behaviour(self) -> Behaviour:
        """The outputs of the comparable members on their test data, with features if the cache has room for them."""
        self.check_reads()
        keep = ("logits", "features") if self.feature_bytes <= _MOST_FEATURES else ("logits",)
        return behaviour(self.comparable, part="test", keep=keep, data=self.data, device=self.device, cache=self.cache)

    @cached_property
    def diversity(self) -> Diversity:
        """The contrasts of the comparable members; without their behaviour if their data are not available."""
        self.check_reads()
        try:
            outputs = self.behaviour
        except DatasetError:
            outputs = None
        return diversity(self.comparable, behaviour=outputs)

    @cached_property
    def feature_bytes(self) -> int:
        """Size of the comparable members' features of all layers."""
        first, rows = self.comparable.ids[0], self.comparable.members_table.to_pylist()
        model = Member(self.comparable.catalogue, first).load()
        values = model.config.hidden_size * len(model.layers) * len(POOLS)
        return len(rows) * (rows[0]["n_test"] or 0) * values * 4  # bytes of float32

    def count(self, selection: Selection, *, samples: bool = False) -> str:
        """Write the numbers of members and families, of those left out, and of test samples."""
        families = {self.families[str(member)] for member in selection.ids}
        text = f"{_number(len(selection.ids), 'member')} of {_number(len(families), 'family', 'families')}"
        others = len(self.rows) - len(selection.ids)
        if samples:
            row = selection.members_table.slice(0, 1).to_pylist()[0]
            kind = "text" if row["max_length"] is not None else "image"
            text += f", {_number(row['n_test'], f'test {kind}') if row['n_test'] else 'test data of unknown size'}"
            text += f" ({text_of(row['dataset'])})"
        return (
            f"{text}. {_number(others, 'other member')} of this report {'is' if others == 1 else 'are'} not in it."
            if others
            else f"{text}."
        )

    def _only(self, condition: Callable[[Row], bool]) -> Selection:
        refs = [ref for ref, row in zip(self.selection.refs, self.rows, strict=True) if condition(row)]
        return self.selection.with_refs(refs)

    def check_reads(self) -> None:
        """Raise SelectionError if no weights may be read."""
        if self.tables_only:
            raise SelectionError(
                "This report was made from the tables alone", fix="Make it again without --tables-only.", value=True
            )


def family_tree(material: Material) -> Section:
    """Describe the family tree."""
    return Section(
        key="tree",
        title="Family tree",
        definition="A row is a parent with the children that were fine-tuned from it, in the order of their ids. "
        "Parents that share an initialisation are one family, also in the counts of this page. The colour is the final "
        "accuracy on a member's own test data: k-NN accuracy for members without classes, and accuracy of masked "
        "tokens for masked language models.",
        counts=material.count(material.selection),
        limits="Parents and children may have other data, so compare colours of parents with parents and of children "
        "with children.",
        pictures=[Picture(key="tree", title="Parents and children", chart=plots.family_tree(material.selection))],
    )


def factors(material: Material) -> Section:
    """Describe the accuracy by each factor that varies."""
    chosen = material.comparable
    rows = chosen.members_table.to_pylist()
    found = find_factors(rows, most_values=_MOST_VALUES)
    if not found:
        raise SelectionError("No factor varies among these members", expected="two or more values", value=len(rows))
    return Section(
        key="factors",
        title="Accuracy by factor",
        definition="A point is a member's final accuracy on the test data, and a bar the mean of one value of the "
        "factor. Factors are sorted by the difference of mean validation accuracy between their values.",
        counts=material.count(chosen, samples=True),
        limits="A difference of two means is not an effect: other factors may differ with this one, and members of one "
        "family resemble each other. Contrasts compare members that differ in one factor.",
        pictures=[
            Picture(
                key=f"factor-{factor.name}",
                title=factor.title,
                chart=plots.accuracy_by_factor(chosen, factor.name),
            )
            for factor in found
        ],
        tables=[_factor_table(material, rows, [factor.name for factor in found])],
    )


def _factor_table(material: Material, rows: Sequence[Row], names: Sequence[str]) -> Table:
    cells = []
    for name in names:
        values = sorted({row[name] for row in rows}, key=lambda value: (value is None, value))
        for value in values:
            own = [row for row in rows if row[name] == value]
            known = [accuracy for row in own if (accuracy := accuracy_of(row, "test")) is not None]
            families = {material.families[row["id"]] for row in own}
            spread = [fmean(known), stdev(known) if len(known) > 1 else None, min(known), max(known)] if known else []
            cells.append(
                [name, text_of(value), str(len(own)), str(len(families)), *map(number_text, spread or [None] * 4)]
            )
    return Table(
        caption="Final test accuracy by value of each factor; the standard deviation is over members",
        head=("factor", "value", "members", "families", "mean", "standard deviation", "smallest", "largest"),
        rows=cells,
    )


def curves(material: Material) -> Section:
    """Describe the training curves."""
    pictures, drawn, sampled = [], [], ""
    for stage in ("pretraining", "finetuning"):
        chosen = [ref for ref, row in zip(material.selection.refs, material.rows, strict=True) if row["stage"] == stage]
        if len(chosen) > _MOST_CURVES:
            sampled += f" Of {len(chosen)} members ({stage}), {_MOST_CURVES} evenly spaced ones are drawn."
            chosen = [chosen[place * len(chosen) // _MOST_CURVES] for place in range(_MOST_CURVES)]
        for metric in ("val_accuracy", "test_accuracy") if chosen else ():
            try:
                chart = plots.training_curves(material.selection.with_refs(chosen), metric=metric)
            except SelectionError:  # no member has validation data
                continue
            title = f"{'Parents' if stage == 'pretraining' else 'Children'}, {metric.replace('_', ' ')}"
            pictures.append(Picture(key=f"curves-{stage}", title=title, chart=chart))
            drawn += chosen
            break
    if not pictures:
        raise SelectionError("No member has accuracies by epoch", expected="one or more", value=len(material.rows))
    return Section(
        key="curves",
        title="Training curves",
        definition="A line is a member: its validation accuracy after each epoch, from epoch 0, before the first step. "
        "Members without classes have k-NN accuracy. Where no member has validation data, the line is test accuracy. "
        "The colour is the factor with the largest differences.",
        counts=f"{material.count(material.selection.with_refs(drawn))}{sampled}",
        limits="Mixing and label smoothing change the training loss, so curves of loss are not shown. Epochs of two "
        "members with other data or batch sizes are not the same number of steps.",
        pictures=pictures,
    )


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


def similarity(material: Material) -> Section:
    """Describe the similarity of features by layer."""
    if not material.tables_only and material.feature_bytes > _MOST_FEATURES:
        raise SelectionError(
            f"The features of all layers take {in_bytes(material.feature_bytes)}",
            expected=f"at most {in_bytes(_MOST_FEATURES)}",
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
        + [number_text(row[name] if np.isfinite(row[name]) else None) for name in ("estimate", "low", "high")]
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
                    + [_finite_text(row[name]) for name in ("estimate", "low", "high", "random")]
                    for method, score in scores.items()
                    for row in score.table.to_dict("records")
                ],
            ),
            Table(
                caption="Root signals: share of recorded edges on which each points from parent to child",
                head=("signal", "meaning", "root has the", "edges", "families", "share", "low", "high", "chosen on"),
                rows=[
                    [row["signal"], row["meaning"], row["root"], str(row["edges"]), str(row["families"])]
                    + [_finite_text(row[name]) for name in ("accuracy", "low", "high")]
                    + [row["chosen_on"]]
                    for row in star.signals.to_dict("records")
                ],
            ),
        ],
    )


def _finite_text(value: float) -> str:
    return number_text(value if np.isfinite(value) else None)


SECTIONS: Mapping[str, Callable[[Material], Section]] = {
    "Family tree": family_tree,
    "Accuracy by factor": factors,
    "Training curves": curves,
    "Distances between members": distances,
    "Map of the weights": weights_map,
    "Similarity of features by layer": similarity,
    "Contrasts": contrasts,
    "Family tree from weights": family_tree_from_weights,
}
"""The sections by their titles, in the order of the page."""


def make_section(title: str, material: Material) -> Section:
    """Make a section; if the zoo does not have what it needs, it only says so."""
    try:
        return SECTIONS[title](material)
    except (SelectionError, DatasetError, WeightsError) as error:
        return Section(key=SECTIONS[title].__name__, title=title, problem=str(error))


def members_table(material: Material) -> Table:
    """Make the table of all members, to which the pictures link. The first column is the id."""
    found = find_factors(material.rows, most_values=len(material.rows))
    names = ["pretraining_objective", *(name for factor in found for name in (factor.name, *factor.same))]
    names = [name for name in dict.fromkeys(names) if name not in ("stage", "objective")]
    rows = [
        [row["id"], row["status"], *(number_text(accuracy_of(row, part)) for part in ("val", "test"))]
        + [text_of(row[name]) for name in names]
        for row in material.rows
    ]
    return Table(
        caption="Members: final accuracies (k-NN for members without classes), and the factors that vary",
        head=("member", "status", "validation accuracy", "test accuracy", *names),
        rows=rows,
    )


def _number(count: int, noun: str, plural: str = "") -> str:
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
