"""From a `datasets.Dataset` to a split: which column holds the images, which the classes.

The columns are those of the spec, or the only ones that can be meant. `hub.py` and `disk.py` say where rows come from.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitzoo.errors import DatasetError, did_you_mean, printable, shown
from vitzoo.images.assemble import Found, wanted_splits
from vitzoo.images.sources import ImageRows
from vitzoo.images.splits import FileSplit
from vitzoo.records.dataset_spec import DatasetSpec

if TYPE_CHECKING:
    import datasets


def find_in_tables(
    images: DatasetSpec, tables: "Mapping[str, datasets.Dataset]", *, revision: str, within: Path | None = None
) -> Found:
    """The splits that a spec asks for, of tables.

    Args:
        images: Which data set, complete.
        tables: By split.
        revision: Where they come from.
        within: Folder that a row without an image may name a file of; None where none may.

    Raises:
        DatasetError: A split or a column is not there, or is none of images or classes.
    """
    parts: dict[str, FileSplit] = {}
    classes: tuple[str, ...] | None = None
    for part, name in wanted_splits(images).items():
        if name not in tables:
            raise no_split(images, name, tables)
        rows = tables[name]
        image_column = _choose(images, rows, "image_column", images.image_column, ("Image",))
        label_column = _choose(images, rows, "label_column", images.label_column, ("ClassLabel",))
        labels = _labels(images, rows, label_column)
        names = _class_names(rows, label_column, labels, classes)
        if classes is not None and names != classes:
            raise DatasetError(
                f"Split {shown(name)} of {shown(images.name)} has other classes than {shown(images.train_split)} has: "
                f"{len(names)} from {shown(names[0])} on, and {len(classes)} from {shown(classes[0])} on.",
                dataset=images.name,
            )
        classes = names
        source = ImageRows(
            rows=_encoded(rows, image_column),
            column=image_column,
            name=f"{printable(images.name)}, split {shown(name)}",
            within=within,
        )
        parts[part] = FileSplit(source=source, labels=labels, indices=np.arange(len(labels), dtype=np.int64))
    return Found(revision=revision, classes=classes or (), parts=parts)


def no_split(images: DatasetSpec, name: str, known: Mapping[str, object]) -> DatasetError:
    """The error of a split that is not there."""
    return DatasetError(
        f"{shown(images.name)} has no split {shown(name)}.{did_you_mean(name, known)} Name its splits in the "
        "DatasetSpec: train_split, val_split, test_split.",
        dataset=images.name,
    )


def _choose(
    images: DatasetSpec, rows: "datasets.Dataset", field: str, wanted: str | None, kinds: tuple[str, ...]
) -> str:
    """The column of a spec, or the only one of a kind."""
    features = {name: type(feature).__name__ for name, feature in rows.features.items()}
    listed = ", ".join(f"{printable(name)} ({kind})" for name, kind in features.items())
    if wanted is not None:
        if wanted not in features:
            raise DatasetError(
                f"{shown(images.name)} has no column {shown(wanted)}; it has {listed}",
                fix=f"Mend {field} in the DatasetSpec.",
                dataset=images.name,
            )
        return wanted
    fitting = [name for name, kind in features.items() if kind in kinds]
    if len(fitting) != 1:
        raise DatasetError(
            f"{shown(images.name)} has {len(fitting)} columns of kind {' or '.join(kinds)}; its columns are {listed}",
            fix=f"Name one as {field} in the DatasetSpec.",
            dataset=images.name,
        )
    return fitting[0]


def _encoded(rows: "datasets.Dataset", column: str) -> "datasets.Dataset":
    """The column alone, as Arrow, nothing decoded."""
    import datasets
    import pyarrow as pa

    feature = rows.features[column]
    if isinstance(feature, datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    else:
        kind = rows.features.arrow_schema.field(column).type
        encoded = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
        if not (pa.types.is_binary(encoded) or pa.types.is_large_binary(encoded)):
            raise DatasetError(
                f'Column "{printable(column)}" holds {printable(str(kind))}',
                expected="images, encoded as bytes",
                fix="Name another image_column in the DatasetSpec.",
            )
    return rows.select_columns([column]).with_format("arrow")


def _labels(images: DatasetSpec, rows: "datasets.Dataset", column: str) -> np.ndarray:
    import pyarrow as pa

    found = rows.select_columns([column]).with_format("arrow")[:][column]
    if not pa.types.is_integer(found.type) or found.null_count:
        raise DatasetError(
            f'Column "{printable(column)}" of {shown(images.name)} holds {printable(str(found.type))}, '
            f"with {found.null_count} values missing",
            expected="whole numbers, the class of each image",
            fix="Name another label_column in the DatasetSpec.",
            dataset=images.name,
        )
    return found.to_numpy().astype(np.int64)


def _class_names(
    rows: "datasets.Dataset", column: str, labels: np.ndarray, before: tuple[str, ...] | None
) -> tuple[str, ...]:
    """The names of a ClassLabel; of plain numbers, the numbers, counted on the first split that is looked at."""
    names = getattr(rows.features[column], "names", None)
    if names is not None:
        return tuple(names)
    if before is not None:
        return before
    return tuple(map(str, range(int(labels.max(initial=-1)) + 1)))
