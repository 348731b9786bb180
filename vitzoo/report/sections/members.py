"""The sections from the tables alone: the family tree, accuracies by factor, training curves, the table of members."""

from collections.abc import Sequence
from statistics import fmean, stdev

from vitzoo.errors import SelectionError
from vitzoo.report import plots
from vitzoo.report.material import Material, Picture, Section, Table
from vitzoo.report.rows import Row, accuracy_of, find_factors, number_text, text_of

_MOST_VALUES = 8  # of a factor that is drawn
_MOST_CURVES = 300  # lines of one picture


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
