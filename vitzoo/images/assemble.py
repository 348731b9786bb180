"""Make a checked `ImageDataset` of splits: hold images out, and decode the others into memory.

See `digits.py`, `disk.py` and `vitzoo.data.hub` for where the splits come from.
"""

import os
from collections.abc import Mapping

import numpy as np

from vitzoo.data.columns import check_labels, requested_splits
from vitzoo.data.splits import evenly_spaced
from vitzoo.errors import DatasetError, shown
from vitzoo.images.splits import FileSplit, ImageDataset, ImageSplit
from vitzoo.records.dataset_spec import DatasetSpec


def assemble(
    images: DatasetSpec, *, revision: str, classes: tuple[str, ...], parts: Mapping[str, FileSplit]
) -> ImageDataset:
    """Check the splits of a data set, hold images out, and decode the images unless they are streamed.

    Raises:
        DatasetError: A split is empty, a label is not a class, or too few training images are left. Images in memory
            differ in size, cannot be decoded or would take over half of the memory.
    """
    for part, split in parts.items():
        check_labels(images, classes, requested_splits(images)[part], split.labels, of="image")
    streamed: dict[str, FileSplit] = dict(parts)
    if images.held_out:
        streamed["train"], streamed["val"] = _hold_out(images, parts["train"])
    splits: dict[str, FileSplit | ImageSplit] = dict(streamed)
    if not images.streamed:
        used = 0
        for part, split in streamed.items():
            splits[part] = decoded = _decode(images, split, used=used)
            used += decoded.images.nbytes
    if "val" not in splits:
        splits["val"] = splits["train"].part(0, 0)
    return ImageDataset(name=images.name, revision=revision, classes=classes, **splits)


def _hold_out(images: DatasetSpec, train: FileSplit) -> tuple[FileSplit, FileSplit]:
    """Split the training images into training and validation images."""
    if images.held_out >= len(train):
        raise DatasetError(
            f"held_out is {images.held_out} of {len(train)} training images of {shown(images.name)}",
            expected="fewer",
            dataset=images.name,
        )
    validation = evenly_spaced(images.held_out, len(train))
    rest = np.setdiff1d(np.arange(len(train)), validation, assume_unique=True)
    return train.take(rest), train.take(validation)


def _decode(images: DatasetSpec, split: FileSplit, *, used: int) -> ImageSplit:
    """Decode a split into memory, of which the other splits have used some bytes."""
    width, height = split.load(0).size
    size = used + len(split) * 3 * height * width
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory // 2:
        raise DatasetError(
            f"{shown(images.name)} would take {size / 2**30:,.1f} GiB of {memory / 2**30:,.1f} GiB of memory",
            expected="half of it at most",
            fix="Set streamed=True in the DatasetSpec.",
            dataset=images.name,
        )
    pixels = np.empty((len(split), 3, height, width), dtype=np.uint8)
    for place in range(len(split)):
        image = split.load(place)
        if image.size != (width, height):
            raise DatasetError(
                f"{split.describe(place)} has {image.width} x {image.height} pixels, the images of "
                f"{shown(images.name)} before it {width} x {height}",
                expected="one size for all images in memory",
                fix="Set streamed=True in the DatasetSpec.",
                dataset=images.name,
            )
        pixels[place] = np.asarray(image).transpose(2, 0, 1)
    return ImageSplit(images=pixels, labels=split.labels, indices=split.indices)
