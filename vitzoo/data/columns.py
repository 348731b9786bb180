"""Find the splits of a data set of `datasets` tables, and the columns of its samples and classes.

See `hub.py` and `disk.py` for where the tables come from.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from vitzoo.data.known import Spec
from vitzoo.errors import DatasetError, did_you_mean, printable, shown

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """The tables of a data set.

    Args:
        splits: Table of each split, by the split's name in the spec.
        revision: Source of the tables, as in `vitzoo.images.ImageDataset`.
        files_in: Folder of the files that rows may name; None where no row may name a file.
    """

    splits: "Mapping[str, datasets.Dataset]"
    revision: str
    files_in: Path | None = None


def requested_splits(spec: Spec) -> dict[str, str]:
    """Return the name of each split that a spec asks for, by part."""
    splits = {"train": spec.train_split, "val": spec.val_split, "test": spec.test_split}
    return {part: split for part, split in splits.items() if split is not None}


def check_splits(spec: Spec, names: Iterable[str], known: Mapping[str, object]) -> None:
    """Check that splits exist.

    Raises:
        DatasetError: One is not among the known splits.
    """
    for name in names:
        if name not in known:
            nearest = did_you_mean(name, known)
            raise DatasetError(
                f"{shown(spec.name)} has no split {shown(name)}",
                fix=f"Name its splits in the {type(spec).__name__}: train_split, val_split, test_split.{nearest}",
                dataset=spec.name,
            )


def choose_column(
    spec: Spec, rows: "datasets.Dataset", field: str, *, kind: str, fits: Callable[[str, Any], bool] | None = None
) -> str:
    """Return the column that a field of the spec names, or else the only column of a kind.

    Args:
        spec: The data set.
        rows: One of its tables.
        field: The field of the spec.
        kind: Name of the kind: the class of a feature, or a Value's type.
        fits: Returns whether a column, by name and feature, is of the kind; None for a comparison with ``kind``.

    Raises:
        DatasetError: There is no such column, or there are several.
    """
    kinds = {name: _kind(feature) for name, feature in rows.features.items()}
    column: str | None = getattr(spec, field)
    if column is not None:
        fitting = [name for name in kinds if name == column]
    elif fits is None:
        fitting = [name for name in kinds if kinds[name] == kind]
    else:
        fitting = [name for name, feature in rows.features.items() if fits(name, feature)]
    if len(fitting) != 1:
        problem = f"{len(fitting)} columns of kind {kind}" if column is None else f"no column {shown(column)}"
        raise DatasetError(
            f"{shown(spec.name)} has {problem}; its columns are "
            f"{', '.join(f'{printable(name)} ({kind})' for name, kind in kinds.items())}",
            fix=f"Name one as {field} in the {type(spec).__name__}.",
            dataset=spec.name,
        )
    return fitting[0]


def read_labels(spec: Spec, rows: "datasets.Dataset", column: str, *, of: str) -> Int64[np.ndarray, " rows"]:
    """Return the classes of all rows as numbers. ``of`` names a sample, such as "image", for the error.

    Raises:
        DatasetError: The column has other values than whole numbers, or lacks some.
    """
    import pyarrow as pa

    labels = rows.select_columns([column]).with_format("arrow")[:][column]
    if not pa.types.is_integer(labels.type) or labels.null_count:
        raise DatasetError(
            f'Column "{printable(column)}" of {shown(spec.name)} has type {printable(str(labels.type))} and '
            f"{labels.null_count} missing values",
            expected=f"whole numbers, the class of each {of}",
            fix=f"Name another label_column in the {type(spec).__name__}.",
            dataset=spec.name,
        )
    return labels.to_numpy().astype(np.int64)


def class_names(
    rows: "datasets.Dataset", column: str, labels: Int64[np.ndarray, " rows"], before: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Return the names of a ClassLabel. Plain numbers have none: the classes are counted in the first split."""
    names = getattr(rows.features[column], "names", None) or before
    return tuple(map(str, range(int(labels.max(initial=-1)) + 1))) if names is None else tuple(names)


def check_classes(spec: Spec, classes: tuple[str, ...], *, split: str, before: tuple[str, ...] | None) -> None:
    """Check that a split has the classes of the one before it.

    Raises:
        DatasetError: It has others.
    """
    if before is not None and classes != before:
        raise DatasetError(
            f"Split {shown(split)} of {shown(spec.name)} has other classes than {shown(spec.train_split)}: "
            f"{len(classes)} from {shown(classes[0])} on, and {len(before)} from {shown(before[0])} on",
            dataset=spec.name,
        )


def check_labels(
    spec: Spec, classes: tuple[str, ...], split: str, labels: Int64[np.ndarray, " rows"], *, of: str
) -> None:
    """Check that a split has samples, and that each label is a class. ``of`` names a sample, such as "image".

    Raises:
        DatasetError: It has none, or a label is not a class.
    """
    where = f"Split {shown(split)} of {shown(spec.name)}"
    if not len(labels):
        raise DatasetError(f"{where} has no {of}s", expected="one or more", dataset=spec.name)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        raise DatasetError(
            f"{where} has label {labels[wrong[0]]} at {of} {wrong[0]}",
            expected=f"0 to {len(classes) - 1}, one of its {len(classes)} classes",
            fix=f"Some data sets do not publish the labels of their test {of}s: name another test_split.",
            dataset=spec.name,
        )


def _kind(feature: Any) -> str:
    """Return the type of a plain value, or else the class of a feature."""
    kind = type(feature).__name__
    return feature.dtype if kind == "Value" else kind
