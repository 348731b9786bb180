"""Read the rows of the members table as the pictures and the page need them: accuracies, factors, text."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from vitzoo.records import FACTORS
from vitzoo.tables.columns import MEMBERS

Row = Mapping[str, Any]
_SEEDS = ("init_group", "init_seed", "head_seed", "order_seed", "augmentation_seed")  # of no order and many values


def accuracy_of(row: Row, part: str) -> float | None:
    """Return a member's final accuracy on a part; k-NN's for a member without classes, None if neither is known."""
    accuracy = row[f"final_{part}_accuracy"]
    return row[f"final_{part}_knn_accuracy"] if accuracy is None else accuracy


def metric_name(row: Row, part: str) -> str:
    """Return the name of `accuracy_of` of a member."""
    kind = {"embedding": "k-NN accuracy", "masked": "accuracy of masked tokens"}.get(row["head_role"], "accuracy")
    return f"{part} {kind}"


def find_factors(rows: Sequence[Row], *, most_values: int) -> dict[str, float]:
    """Find the factors that vary, by falling difference of mean validation accuracy between their values.

    Seeds are left out. Of factors that divide the members alike, such as two settings of one optimizer, the first
    counts. Columns that a lab added count as factors.

    Args:
        rows: Members.
        most_values: Factors with more values are left out.

    Returns:
        Name to the largest difference of two values' means; 0 without validation accuracies.
    """
    extra = [name for name in rows[0] if name not in MEMBERS]
    names = ["pretraining_objective", *(name for name in FACTORS if name not in _SEEDS), *extra]
    found: dict[str, float] = {}
    divisions: set[frozenset[tuple[int, ...]]] = set()
    for name in names:
        groups: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            groups[text_of(row[name])].append(place)
        division = frozenset(map(tuple, groups.values()))
        if 2 <= len(groups) <= most_values and division not in divisions:
            divisions.add(division)
            means = [
                fmean(known)
                for places in groups.values()
                if (known := [value for place in places if (value := accuracy_of(rows[place], "val")) is not None])
            ]
            found[name] = max(means) - min(means) if means else 0.0
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def text_of(value: object) -> str:
    """Write a value of a table for people, null included."""
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


def number_text(value: float | None) -> str:
    """Write a share with three digits, or a dash for None."""
    return "-" if value is None else f"{value:.3f}"
