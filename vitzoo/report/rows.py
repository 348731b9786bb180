"""Read the rows of the members table as the pictures and the page need them: accuracies, factors, text."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any

from vitzoo.records import FACTORS, SEEDS
from vitzoo.tables.columns import MEMBERS

Row = Mapping[str, Any]


def accuracy_of(row: Row, part: str) -> float | None:
    """Return a member's final accuracy on a part; k-NN's for a member without classes, None if neither is known."""
    accuracy = row[f"final_{part}_accuracy"]
    return row[f"final_{part}_knn_accuracy"] if accuracy is None else accuracy


def metric_name(row: Row, part: str) -> str:
    """Return the name of `accuracy_of` of a member."""
    kind = {"embedding": "k-NN accuracy", "masked": "accuracy of masked tokens"}.get(row["head_role"], "accuracy")
    return f"{part} {kind}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Factor:
    """A factor that varies among members.

    Args:
        name: Its column.
        same: Other columns that divide the members alike, such as another setting of one optimizer.
        difference: The largest difference of mean validation accuracy between two values; 0 if it is unknown.
    """

    name: str
    same: tuple[str, ...]
    difference: float

    @property
    def title(self) -> str:
        """The name, with the columns that vary with it."""
        return f"{self.name} (and with it {', '.join(self.same)})" if self.same else self.name


def find_factors(rows: Sequence[Row], *, most_values: int) -> list[Factor]:
    """Find the factors that vary, by falling difference of accuracy. Seeds are left out; a lab's own columns count.

    Args:
        rows: Members.
        most_values: Factors with more values are left out.
    """
    extra = [name for name in rows[0] if name not in MEMBERS]
    divisions: dict[frozenset[tuple[int, ...]], list[str]] = defaultdict(list)
    for name in ["pretraining_objective", *(name for name in FACTORS if name not in SEEDS), *extra]:
        groups: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            groups[text_of(row[name])].append(place)
        if 2 <= len(groups) <= most_values:
            divisions[frozenset(map(tuple, groups.values()))].append(name)
    factors = []
    for division, (name, *same) in divisions.items():
        by_value = [[accuracy_of(rows[place], "val") for place in places] for places in division]
        means = [fmean(known) for values in by_value if (known := [value for value in values if value is not None])]
        difference = max(means) - min(means) if means else 0.0
        factors.append(Factor(name=name, same=tuple(same), difference=difference))
    return sorted(factors, key=lambda factor: -factor.difference)


def text_of(value: object) -> str:
    """Write a value of a table for people, null included."""
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


def number_text(value: float | None) -> str:
    """Write a number with three decimals, or a dash for None and NaN."""
    return "-" if value is None or not isfinite(value) else f"{value:.3f}"
