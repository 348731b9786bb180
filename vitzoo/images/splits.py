"""ImageSplit and FileSplit: a part of a data set, in memory or decoded when asked for. ImageDataset: its three parts.

Where the images come from is `hub.py`'s, `disk.py`'s and `digits.py`'s; how one is decoded `sources.py`'s.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64, UInt8

from vitzoo.errors import DatasetError
from vitzoo.images.sources import ImageFiles, ImageRows

if TYPE_CHECKING:
    from hashlib import _Hash

    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageSplit:
    """A part of a data set, in memory.

    Args:
        images: Pixels, 0 to 255.
        labels: Class of each image, an index into the data set's ``classes``.
        indices: Place of each image in the source, so that every use can be traced and compared.
    """

    images: UInt8[np.ndarray, "images channels height width"]
    labels: Int64[np.ndarray, " images"]
    indices: Int64[np.ndarray, " images"]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Int64[np.ndarray, " taken"]) -> "ImageSplit":
        """The images at these places of the split, in this order."""
        return ImageSplit(images=self.images[places], labels=self.labels[places], indices=self.indices[places])

    def part(self, start: int, stop: int) -> "ImageSplit":
        """The images from place ``start`` to before ``stop``, without a copy."""
        chosen = slice(start, stop)
        return ImageSplit(images=self.images[chosen], labels=self.labels[chosen], indices=self.indices[chosen])

    def evenly(self, count: int) -> "ImageSplit":
        """``count`` images evenly spaced over the split: the fixed subset on which training figures are measured.

        Raises:
            DatasetError: There are not that many.
        """
        return self.take(evenly_spaced(count, len(self)))

    def update(self, digest: "_Hash") -> None:
        """Feed every pixel, label and index to a digest."""
        for array in (self.images, self.labels, self.indices):
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FileSplit:
    """A part of a data set whose images are decoded when they are asked for; they may differ in size.

    It can be pickled, so the workers of a `torch.utils.data.DataLoader` may hold it, forked or spawned.

    Args:
        source: Where the encoded images lie.
        labels: Class of each image, an index into the data set's ``classes``.
        indices: Place of each image in ``source``.
    """

    source: ImageFiles | ImageRows
    labels: Int64[np.ndarray, " images"]
    indices: Int64[np.ndarray, " images"]

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, place: int) -> "Image":
        """Decode one image, to RGB.

        Args:
            place: In this split, from 0.

        Raises:
            DatasetError: It cannot be decoded; the message names its file or row.
        """
        return self.source.load(int(self.indices[place]))

    def describe(self, place: int) -> str:
        """The file or row of an image, for messages."""
        return self.source.describe(int(self.indices[place]))

    def take(self, places: Int64[np.ndarray, " taken"]) -> "FileSplit":
        """The images at these places of the split, in this order."""
        return replace(self, labels=self.labels[places], indices=self.indices[places])

    def part(self, start: int, stop: int) -> "FileSplit":
        """The images from place ``start`` to before ``stop``."""
        return replace(self, labels=self.labels[start:stop], indices=self.indices[start:stop])

    def evenly(self, count: int) -> "FileSplit":
        """As `ImageSplit.evenly`."""
        return self.take(evenly_spaced(count, len(self)))

    def update(self, digest: "_Hash") -> None:
        """Feed the listing to a digest: the relative path or row of each image, its size in bytes and its label."""
        digest.update(f"listing {len(self)}\n".encode())
        self.source.update(digest, self.indices)
        for array in (self.source.sizes(self.indices), self.labels, self.indices):
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageDataset:
    """A data set with its three splits: all in memory, or all decoded when they are asked for.

    Args:
        name: As a recipe names it.
        revision: Where exactly it comes from: ``<repo>@<commit>`` of the Hub, ``imagefolder``, ``parquet``, ``arrow``
            of a folder, or a package and its version.
        classes: Names of the classes, in the order of the labels.
        train: What is trained on.
        val: What choices are made on; of length 0 where there is none.
        test: What is read once.
    """

    name: str
    revision: str
    classes: tuple[str, ...]
    train: ImageSplit | FileSplit
    val: ImageSplit | FileSplit
    test: ImageSplit | FileSplit

    @property
    def streamed(self) -> bool:
        """Whether images are decoded when they are asked for."""
        return isinstance(self.train, FileSplit)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of every image, label and index of all splits; of streamed ones, of `FileSplit.update`'s list."""
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.test):
            part.update(digest)
        return digest.hexdigest()


def evenly_spaced(count: int, total: int) -> Int64[np.ndarray, " count"]:
    """``count`` places evenly spaced over ``total``, the first of them 0.

    Raises:
        DatasetError: There are not that many.
    """
    if not 1 <= count <= total:
        raise DatasetError(f"{count} images were asked of a split of {total}", expected=f"1 to {total}")
    return np.arange(count) * total // count
