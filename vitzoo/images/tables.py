"""Make a data set of `datasets` tables: find the columns of the images and of the classes.

See `hub.py` and `disk.py` for where the tables come from.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitzoo.errors import DatasetError, did_you_mean, printable, shown
from vitzoo.images.assemble import assemble, requested_splits
from vitzoo.images.sources import ImageRows
from vitzoo.images.splits import FileSplit, ImageDataset
from vitzoo.records.dataset_spec import DatasetSpec

if TYPE_CHECKING:
    import datasets


def assemble_tables(
    images: DatasetSpec, tables: "Mapping[str, datasets.Dataset]", *, revision: str, files_in: Path | None = None
) -> ImageDataset:
    """Make a data set of the tables of its splits. Rows without bytes may name files in ``files_in`` alone.

    Raises:
        DatasetError: A column does not exist or has another type, the splits have different classes, or as `assemble`.
    """
    parts: dict[str, FileSplit] = {}
    classes: tuple[str, ...] | None = None
    for part, name in requested_splits(images).items():
        rows = tables[name]
        image_column = _choose(images, rows, "image_column", "Image")
        label_column = _choose(images, rows, "label_column", "ClassLabel")
        labels = _labels(images, rows, label_column)
        names = _class_names(rows, label_column, labels, classes)
        if classes is not None and names != classes:
            raise DatasetError(
                f"Split {shown(name)} of {shown(images.name)} has other classes than {shown(images.train_split)}: "
                f"{len(names)} from {shown(names[0])} on, and {len(classes)} from {shown(classes[0])} on",
                dataset=images.name,
            )
        classes = names
        source = ImageRows(
            rows=_encoded(images, rows, image_column),
            column=image_column,
            name=f"{printable(images.name)}, split {shown(name)}",
            files_in=files_in,
        )
        parts[part] = FileSplit(source=source, labels=labels, indices=np.arange(len(labels), dtype=np.int64))
    return assemble(images, revision=revision, classes=classes or (), parts=parts)


def check_splits(images: DatasetSpec, names: Iterable[str], known: Mapping[str, object]) -> None:
    """Check that splits exist.

    Raises:
        DatasetError: One is not among the known splits.
    """
    for name in names:
        if name not in known:
            nearest = did_you_mean(name, known)
            raise DatasetError(
                f"{shown(images.name)} has no split {shown(name)}",
                fix=f"Name its splits in the DatasetSpec: train_split, val_split, test_split.{nearest}",
                dataset=images.name,
            )


def _choose(images: DatasetSpec, rows: "datasets.Dataset", field: str, kind: str) -> str:
    """Return the column that a field of the spec names, or else the only column of a kind."""
    kinds = {name: type(feature).__name__ for name, feature in rows.features.items()}
    column: str | None = getattr(images, field)
    fitting = [name for name in kinds if name == column or (column is None and kinds[name] == kind)]
    if len(fitting) != 1:
        problem = f"{len(fitting)} columns of kind {kind}" if column is None else f"no column {shown(column)}"
        raise DatasetError(
            f"{shown(images.name)} has {problem}; its columns are "
            f"{', '.join(f'{printable(name)} ({kind})' for name, kind in kinds.items())}",
            fix=f"Name one as {field} in the DatasetSpec.",
            dataset=images.name,
        )
    return fitting[0]


def _encoded(images: DatasetSpec, rows: "datasets.Dataset", column: str) -> "datasets.Dataset":
    """Return the column alone, as Arrow structs of bytes and path, nothing decoded."""
    import datasets

    kind = rows.features.arrow_schema.field(column).type
    try:
        if not isinstance(rows.features[column], datasets.List | datasets.LargeList):  # a list would be encoded here
            return rows.cast_column(column, datasets.Image(decode=False)).select_columns([column]).with_format("arrow")
    except (TypeError, ValueError, NotImplementedError):
        pass
    raise DatasetError(
        f'Column "{printable(column)}" of {shown(images.name)} has type {printable(str(kind))}',
        expected="images, encoded as bytes",
        fix="Name another image_column in the DatasetSpec.",
        dataset=images.name,
    )


def _labels(images: DatasetSpec, rows: "datasets.Dataset", column: str) -> np.ndarray:
    import pyarrow as pa

    labels = rows.select_columns([column]).with_format("arrow")[:][column]
    if not pa.types.is_integer(labels.type) or labels.null_count:
        raise DatasetError(
            f'Column "{printable(column)}" of {shown(images.name)} has type {printable(str(labels.type))} and '
            f"{labels.null_count} missing values",
            expected="whole numbers, the class of each image",
            fix="Name another label_column in the DatasetSpec.",
            dataset=images.name,
        )
    return labels.to_numpy().astype(np.int64)


def _class_names(
    rows: "datasets.Dataset", column: str, labels: np.ndarray, before: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Return the names of a ClassLabel. Plain numbers have none: the classes are counted in the first split."""
    names = getattr(rows.features[column], "names", None) or before
    return tuple(map(str, range(int(labels.max(initial=-1)) + 1))) if names is None else tuple(names)
