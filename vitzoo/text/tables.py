"""Make a data set of texts of `datasets` tables. See `vitzoo.data.columns` for how the columns are found."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from vitzoo.data.columns import Tables, check_classes, choose_column, class_names, read_labels, requested_splits
from vitzoo.errors import DatasetError, printable, shown
from vitzoo.records.dataset_spec import TextSpec
from vitzoo.text.assemble import TextParts, choose_texts
from vitzoo.text.sources import TableTexts

if TYPE_CHECKING:
    import datasets

_STRINGS = ("string", "large_string")
_LABEL = "label"  # the column of the classes, where a spec names none


def choose_table_texts(spec: TextSpec, tables: Tables, *, special_tokens: tuple[str, ...]) -> TextParts:
    """Choose the texts of the tables of a data set's splits.

    Raises:
        DatasetError: A column does not exist or has another type, the splits have different classes, or as
            `choose_texts`.
    """
    splits: dict[str, TableTexts] = {}
    classes: tuple[str, ...] | None = None
    for part, name in requested_splits(spec).items():
        rows = tables.splits[name]
        columns = _text_columns(spec, rows)
        labels = None
        if not spec.packed:
            column = choose_column(
                spec,
                rows,
                "label_column",
                kind=f"ClassLabel, or called {_LABEL}",
                fits=lambda column, feature: type(feature).__name__ == "ClassLabel" or column == _LABEL,
            )
            labels, names = _labels(spec, rows, column, classes)
            check_classes(spec, names, split=name, before=classes)
            classes = names
        splits[part] = TableTexts(
            rows=rows.select_columns([*columns]).with_format(None),
            columns=columns,
            name=f"{printable(spec.name)}, split {shown(name)}",
            labels=labels,
            indices=np.arange(len(rows), dtype=np.int64),
        )
    return choose_texts(
        spec, revision=tables.revision, classes=classes or (), splits=splits, special_tokens=special_tokens
    )


def _text_columns(spec: TextSpec, rows: "datasets.Dataset") -> tuple[str, ...]:
    """Return the columns of the texts, and of the second texts if the spec names them."""
    others = {spec.pair_column, spec.label_column or _LABEL}
    first = choose_column(
        spec,
        rows,
        "text_column",
        kind="string",
        fits=lambda column, feature: getattr(feature, "dtype", None) in _STRINGS and column not in others,
    )
    columns = (first,)
    if spec.pair_column is not None:
        columns = (first, choose_column(spec, rows, "pair_column", kind="string"))
    for field, column in zip(("text_column", "pair_column"), columns, strict=False):
        kind = getattr(rows.features[column], "dtype", type(rows.features[column]).__name__)
        if kind not in _STRINGS or columns.count(column) > 1:
            raise DatasetError(
                f'Column "{printable(column)}" of {shown(spec.name)} has type {printable(str(kind))}'
                f"{' and is named twice' if columns.count(column) > 1 else ''}",
                expected="string, the texts",
                fix=f"Name another {field} in the TextSpec.",
                dataset=spec.name,
            )
    return columns


def _labels(
    spec: TextSpec, rows: "datasets.Dataset", column: str, before: tuple[str, ...] | None
) -> tuple[Int64[np.ndarray, " rows"], tuple[str, ...]]:
    """Return the class of each row and the names of the classes, which strings of the training split may be."""
    if getattr(rows.features[column], "dtype", None) not in _STRINGS:
        labels = read_labels(spec, rows, column, of="text")
        return labels, class_names(rows, column, labels, before)
    values: list[str | None] = rows[:][column] if len(rows) else []
    known = before or tuple(sorted({value for value in values if value is not None}))
    number = {name: place for place, name in enumerate(known)}
    wrong = next((place for place, value in enumerate(values) if value not in number), None)
    if wrong is not None:
        raise DatasetError(
            f'Column "{printable(column)}" of {shown(spec.name)} has label {shown(values[wrong])} at text {wrong}',
            expected=f"one of the {len(known)} classes of {shown(spec.train_split)}",
            fix="Correct the labels, or name another label_column in the TextSpec.",
            dataset=spec.name,
        )
    return np.array([number[str(value)] for value in values], dtype=np.int64), known
