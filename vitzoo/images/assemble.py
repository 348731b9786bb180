"""From the splits that were found somewhere to a checked `ImageDataset`: what is held out, what is held in memory."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vitzoo.errors import DatasetError, printable, shown
from vitzoo.images.splits import FileSplit, ImageDataset, ImageSplit, evenly_spaced
from vitzoo.records.dataset_spec import DatasetSpec


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Found:
    """What was found of a data set.

    Args:
        revision: Where, as `ImageDataset.revision` says it.
        classes: Names of the classes, in the order of the labels.
        parts: ``train``, ``test`` and, where the spec has one, ``val``.
    """

    revision: str
    classes: tuple[str, ...]
    parts: Mapping[str, ImageSplit | FileSplit]


def wanted_splits(images: DatasetSpec) -> dict[str, str]:
    """The splits that a spec asks for, by part."""
    wanted = {"train": images.train_split, "val": images.val_split, "test": images.test_split}
    return {part: split for part, split in wanted.items() if split is not None}


def assemble(images: DatasetSpec, found: Found) -> ImageDataset:
    """Hold out, decode into memory, check.

    Args:
        images: Which data set, complete.
        found: Its splits.

    Raises:
        DatasetError: A split is empty or its labels are not the classes', fewer training images are there than are held
            out, or images that are to be in memory differ in size, cannot be decoded or would take over half of it.
    """
    parts: dict[str, ImageSplit | FileSplit] = dict(found.parts)
    for part, split in parts.items():
        _check_labels(images, found.classes, part, split)
    if images.held_out:
        parts["train"], parts["val"] = _hold_out(images, parts["train"])
    if not images.streamed:
        held = 0
        for part, split in parts.items():
            parts[part] = in_memory = _in_memory(images, split, held=held)
            held += in_memory.images.nbytes
    if "val" not in parts:
        parts["val"] = parts["train"].part(0, 0)
    return ImageDataset(name=images.name, revision=found.revision, classes=found.classes, **parts)


def _check_labels(images: DatasetSpec, classes: tuple[str, ...], part: str, split: ImageSplit | FileSplit) -> None:
    name = wanted_splits(images)[part]
    if not len(split):
        raise DatasetError(f"Split {shown(name)} of {shown(images.name)} holds no images.", dataset=images.name)
    wrong = np.flatnonzero((split.labels < 0) | (split.labels >= len(classes)))
    if len(wrong):
        raise DatasetError(
            f"Split {shown(name)} of {shown(images.name)} has label {split.labels[wrong[0]]} at image {wrong[0]}",
            expected=f"0 to {len(classes) - 1}, one of its {len(classes)} classes. Of some data sets the labels "
            "of the test images are not published: name another test_split",
            dataset=images.name,
        )


def _hold_out(
    images: DatasetSpec, train: ImageSplit | FileSplit
) -> tuple[ImageSplit | FileSplit, ImageSplit | FileSplit]:
    """The rest, and the images that are validation instead."""
    if images.held_out >= len(train):
        raise DatasetError(
            f"held_out is {images.held_out} of {len(train)} training images of {shown(images.name)}",
            expected="fewer",
            dataset=images.name,
        )
    held = evenly_spaced(images.held_out, len(train))
    rest = np.setdiff1d(np.arange(len(train)), held, assume_unique=True)
    return train.take(rest), train.take(held)


def _in_memory(images: DatasetSpec, split: ImageSplit | FileSplit, *, held: int) -> ImageSplit:
    """The images decoded, beside ``held`` bytes of the other splits."""
    if isinstance(split, ImageSplit):
        return split
    pixels: np.ndarray | None = None
    for place in range(len(split)):
        image = np.asarray(split.load(place)).transpose(2, 0, 1)
        if pixels is None:
            _check_memory(images, held + len(split) * image.nbytes)
            pixels = np.empty((len(split), *image.shape), dtype=np.uint8)
        if image.shape != pixels.shape[1:]:
            height, width = pixels.shape[2:]
            raise DatasetError(
                f"{split.describe(place)} has {image.shape[2]} x {image.shape[1]} pixels, the images of "
                f"{shown(images.name)} before it {width} x {height}: images of different sizes are not held "
                "in memory",
                fix="Set streamed=True in the DatasetSpec.",
                dataset=images.name,
            )
        pixels[place] = image
    if pixels is None:
        raise DatasetError(f"{shown(printable(images.name))} holds no images.", dataset=images.name)
    return ImageSplit(images=pixels, labels=split.labels, indices=split.indices)


def _check_memory(images: DatasetSpec, wanted: int) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > total // 2:
        raise DatasetError(
            f"{shown(images.name)} would take {wanted / 2**30:,.1f} GiB of {total / 2**30:,.1f} GiB of memory",
            expected="half of it at most",
            fix="Set streamed=True in the DatasetSpec.",
            dataset=images.name,
        )
