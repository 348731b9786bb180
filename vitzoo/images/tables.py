"""Make a data set of images of `datasets` tables. See `vitzoo.data.columns` for how the columns are found."""

from typing import TYPE_CHECKING

import numpy as np

from vitzoo.data.columns import Tables, check_classes, choose_column, class_names, read_labels, requested_splits
from vitzoo.errors import DatasetError, printable, shown
from vitzoo.images.assemble import assemble
from vitzoo.images.sources import ImageRows
from vitzoo.images.splits import FileSplit, ImageDataset
from vitzoo.records.dataset_spec import DatasetSpec

if TYPE_CHECKING:
    import datasets


def assemble_tables(images: DatasetSpec, tables: Tables) -> ImageDataset:
    """Make a data set of the tables of its splits. Rows without bytes may name files in ``files_in`` alone.

    Raises:
        DatasetError: A column does not exist or has another type, the splits have different classes, or as `assemble`.
    """
    parts: dict[str, FileSplit] = {}
    classes: tuple[str, ...] | None = None
    for part, name in requested_splits(images).items():
        rows = tables.splits[name]
        image_column = choose_column(images, rows, "image_column", kind="Image")
        label_column = choose_column(images, rows, "label_column", kind="ClassLabel")
        labels = read_labels(images, rows, label_column, of="image")
        names = class_names(rows, label_column, labels, classes)
        check_classes(images, names, split=name, before=classes)
        classes = names
        source = ImageRows(
            rows=_encoded(images, rows, image_column),
            column=image_column,
            name=f"{printable(images.name)}, split {shown(name)}",
            files_in=tables.files_in,
        )
        parts[part] = FileSplit(source=source, labels=labels, indices=np.arange(len(labels), dtype=np.int64))
    return assemble(images, revision=tables.revision, classes=classes or (), parts=parts)


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
