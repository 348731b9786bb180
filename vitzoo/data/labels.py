"""Match the labels of a user's samples with the classes of a model. See `columns.py` for the labels of a data set."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from vitzoo.errors import DatasetError, did_you_mean, printable, shown

if TYPE_CHECKING:
    import datasets

_STRINGS = ("string", "large_string")
_UNNAMED = "LABEL_"  # transformers' names of classes without names


def match_labels(labels: Any, classes: Sequence[str], *, count: int) -> Int64[np.ndarray, " samples"]:
    """Return labels as places in the classes of a model.

    Args:
        labels: A class of each sample: all by name, or all by place; an array, a tensor or a list.
        classes: Names of the model's classes, in the order of its logits.
        count: Number of samples.

    Raises:
        DatasetError: Labels are missing, of another number than the samples, or not a class of the model.
    """
    if labels is None:
        raise DatasetError(
            f"The {count} samples have no labels",
            expected="a class of each sample",
            fix="Give them with labels=[...], by name or by place in the model's classes.",
        )
    values = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if len(values) != count:
        raise DatasetError(f"There are {len(values)} labels of {count} samples", expected="a label for each sample")
    places: dict[Any, int] = {name: place for place, name in enumerate(classes)}
    places |= {place: place for place in range(len(classes))}
    for number, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value not in places:
            raise DatasetError(
                f"Sample {number} has label {shown(value)}, which the model does not have",
                expected=f"0 to {len(classes) - 1}, or a name as text",
                fix=did_you_mean(value, map(shown, classes)),
            )
    return np.array([places[value] for value in values], dtype=np.int64)


def match_names(names: Sequence[str], classes: Sequence[str]) -> Int64[np.ndarray, " names"]:
    """Return the place of each class of a data set in the classes of a model.

    Classes match by name. If the model has no names (``LABEL_0``), they match by place.

    Raises:
        DatasetError: The model does not have a class, or has no names and another number of classes.
    """
    if all(name.startswith(_UNNAMED) for name in classes) and len(names) == len(classes):
        return np.arange(len(names))
    unknown = next((name for name in names if name not in classes), None)
    if unknown is not None:
        raise DatasetError(
            f"The samples have a class {shown(unknown)}, which the model does not have",
            fix=did_you_mean(unknown, classes),
        )
    return match_labels(list(names), classes, count=len(names))


def is_table(samples: Any) -> bool:
    """Return whether samples are a `datasets.Dataset`, without importing `datasets`."""
    return hasattr(samples, "features") and hasattr(samples, "select_columns")


def find_column(rows: "datasets.Dataset", kind: str, *, fits: Callable[[str, Any], bool]) -> str:
    """Return the only column of a kind.

    Args:
        rows: The table.
        kind: Name of the kind, for the error.
        fits: Returns whether a column, by name and feature, is of the kind.

    Raises:
        DatasetError: There is none, or several.
    """
    found = [name for name, feature in rows.features.items() if fits(name, feature)]
    if len(found) != 1:
        raise DatasetError(
            f"The table has {len(found)} columns of {kind}; its columns are {printable(', '.join(rows.column_names))}",
            expected="one",
            fix="Select columns first: dataset.select_columns([...]), or rename_column.",
        )
    return found[0]


def is_text(feature: Any) -> bool:
    """Return whether a feature is text."""
    return getattr(feature, "dtype", None) in _STRINGS


def table_labels(rows: "datasets.Dataset", classes: Sequence[str]) -> list[Any]:
    """Return the labels of a table, by name or by place in the classes of a model, for `match_labels`.

    Raises:
        DatasetError: There are no labels, or the model does not have one of the table's classes.
    """
    column = find_column(
        rows, "labels", fits=lambda name, feature: type(feature).__name__ == "ClassLabel" or name == "label"
    )
    values = list(rows[column])
    names = getattr(rows.features[column], "names", None)
    if names is None:
        return values
    places = dict(enumerate(match_names(names, classes).tolist()))
    return [places.get(value, value) for value in values]
