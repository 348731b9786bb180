"""Take a user's images as a split: arrays, PIL images, class folders, or a table of `datasets`.

See `load.py` for data sets by name.
"""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from vitzoo.data.disk import subfolders
from vitzoo.data.labels import find_column, is_table, match_labels, match_names, table_labels
from vitzoo.errors import DatasetError, printable
from vitzoo.images.disk import list_class_folders
from vitzoo.images.sources import ImageList, ImageRows
from vitzoo.images.splits import FileSplit, ImageSplit

_EXPECTED = (
    "images: a split such as load_images(...).test, a uint8 array [images, channels, height, width], a list of PIL "
    "images or of such arrays, a folder of class folders, or a datasets.Dataset"
)


def split_images(samples: Any, *, labels: Any = None, classes: Sequence[str]) -> ImageSplit | FileSplit:
    """Return images with the labels of a model's classes.

    Args:
        samples: A split; a uint8 array or tensor ``[images, channels, height, width]``; a list of PIL images or of
            arrays of one size; a folder with a folder of images for each class, by name; or a `datasets.Dataset`.
        labels: Class of each image, by name or place; None where the samples have their own.
        classes: Names of the model's classes, in the order of its logits.

    Raises:
        DatasetError: The samples are of another kind or of none, or labels are missing or not the model's.
    """
    source: Any
    if isinstance(samples, (ImageSplit, FileSplit)):
        split = samples
        labels = split.labels if labels is None else labels
    elif isinstance(samples, (str, PathLike)):
        split = _class_folders(Path(samples).expanduser(), classes)
        labels = split.labels if labels is None else labels
    else:
        if is_table(samples):
            import datasets

            column = find_column(samples, "images", fits=lambda _, feature: isinstance(feature, datasets.Image))
            labels = table_labels(samples, classes) if labels is None else labels
            rows = samples.select_columns([column]).cast_column(column, datasets.Image(decode=False))
            anywhere = Path("/")  # a user's own table may name any file
            source = ImageRows(rows=rows.with_format("arrow"), column=column, name="the table", files_in=anywhere)
        else:
            samples = source = _listed(samples)
        count = len(samples)
        unknown = np.full(count, -1)
        if isinstance(source, np.ndarray):
            split = ImageSplit(images=source, labels=unknown, indices=np.arange(count))
        else:
            split = FileSplit(source=source, labels=unknown, indices=np.arange(count))
    if not len(split):
        raise DatasetError("There are 0 images", expected="one or more")
    return replace(split, labels=match_labels(labels, classes, count=len(split)))


def _class_folders(root: Path, classes: Sequence[str]) -> FileSplit:
    if not root.is_dir():
        raise DatasetError(
            f"{printable(str(root))} is not a folder", expected="a folder with a folder of images for each class"
        )
    names = tuple(folder.name for folder in subfolders(root))
    places = match_names(names, classes)
    split = list_class_folders(root, names, of="the model")
    return replace(split, labels=places[split.labels])


def _listed(samples: Any) -> "np.ndarray | ImageList":
    """Return an array, or PIL images."""
    images = samples.numpy(force=True) if hasattr(samples, "numpy") else samples
    if isinstance(images, (list, tuple)):
        if all(hasattr(image, "convert") for image in images):
            return ImageList(images=images)
        shapes = list(dict.fromkeys(np.shape(image) for image in images))
        if len(shapes) > 1:
            raise DatasetError(f"Images have shapes {shapes[0]} and {shapes[1]}", expected="one shape, or PIL images")
        images = np.stack([np.asarray(image) for image in images])
    if not isinstance(images, np.ndarray):
        raise DatasetError(f"The samples are of type {type(samples).__name__}", expected=_EXPECTED)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DatasetError(
            f"The images are {images.dtype} {list(images.shape)}",
            expected="uint8 [images, channels, height, width], pixels from 0 to 255",
            fix="Put the channels first, as with images.transpose(0, 3, 1, 2), and do not normalise.",
        )
    return images
