"""Hold a data set: its three splits, each in memory or decoded on request.

See `load.py` for where the images come from, and `sources.py` for how an image is decoded.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from jaxtyping import Int64, UInt8

from vitzoo.data.splits import evenly_spaced
from vitzoo.images.sources import ImageFiles, ImageList, ImageRows
from vitzoo.notebook import Shown

if TYPE_CHECKING:
    from hashlib import _Hash

    from PIL.Image import Image

T = TypeVar("T", bound="_Split")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class _Split(Shown):
    """The labels of some images, and the place of each in its source."""

    _per_image: ClassVar[tuple[str, ...]] = ("labels", "indices")

    labels: Int64[np.ndarray, " images"]
    indices: Int64[np.ndarray, " images"]

    def __len__(self) -> int:
        return len(self.labels)

    def _facts(self) -> dict[str, Any]:
        return {"images": len(self), "classes": len(np.unique(self.labels))}

    def take(self: T, places: Int64[np.ndarray, " taken"]) -> T:
        """Return the images at these places of the split, in this order."""
        return replace(self, **{name: getattr(self, name)[places] for name in self._per_image})

    def part(self: T, start: int, stop: int) -> T:
        """Return the images from place ``start`` to before ``stop``, without a copy."""
        return replace(self, **{name: getattr(self, name)[start:stop] for name in self._per_image})

    def evenly(self: T, count: int) -> T:
        """Return ``count`` images evenly spaced over the split, such as the fixed subset for train metrics.

        Raises:
            DatasetError: The split has fewer.
        """
        return self.take(evenly_spaced(count, len(self)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class ImageSplit(_Split):
    """A part of a data set, in memory.

    Args:
        images: Pixels, 0 to 255.
        labels: Class of each image, an index into the data set's ``classes``.
        indices: Place of each image in the source, so that every use can be traced and compared.
    """

    _per_image: ClassVar[tuple[str, ...]] = ("images", "labels", "indices")

    images: UInt8[np.ndarray, "images channels height width"]

    def _facts(self) -> dict[str, Any]:
        return {"images": self.images, "classes": len(np.unique(self.labels))}

    def update(self, digest: "_Hash") -> None:
        """Feed every pixel, label and index to a digest."""
        for array in (self.images, self.labels, self.indices):
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class FileSplit(_Split):
    """A part of a data set whose images are decoded on request; they may differ in size.

    It can be pickled, so the workers of a `torch.utils.data.DataLoader` may have it, forked or spawned.

    Args:
        source: The encoded images.
        labels: Class of each image, an index into the data set's ``classes``.
        indices: Place of each image in ``source``.
    """

    source: ImageFiles | ImageRows | ImageList

    def load(self, place: int) -> "Image":
        """Decode the image at a place of this split to RGB.

        Raises:
            DatasetError: It cannot be decoded; the message names its file or row.
        """
        return self.source.load(int(self.indices[place]))

    def describe(self, place: int) -> str:
        """Return the file or row of an image, for messages."""
        return self.source.describe(int(self.indices[place]))

    def update(self, digest: "_Hash") -> None:
        """Feed the listing to a digest: the relative path or row of each image, its size in bytes and its label."""
        digest.update(f"listing {len(self)}\n".encode())
        self.source.update(digest, self.indices)
        for array in (self.source.sizes(self.indices), self.labels, self.indices):
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImageDataset(Shown):
    """A data set with its three splits: all in memory, or all decoded on request.

    Args:
        name: Name of the data set in a recipe.
        revision: Source of the images: ``<repo>@<commit>`` of the Hub; ``imagefolder``, ``parquet`` or ``arrow`` of a
            folder; or a package and its version.
        classes: Names of the classes, in the order of the labels.
        train: Images to train on.
        val: Images to make choices on; of length 0 where there are none.
        test: Images that are evaluated once.
    """

    name: str
    revision: str
    classes: tuple[str, ...]
    train: ImageSplit | FileSplit
    val: ImageSplit | FileSplit
    test: ImageSplit | FileSplit

    def _facts(self) -> dict[str, Any]:
        parts = {part: len(getattr(self, part)) for part in ("train", "val", "test")}
        return {"name": self.name, "revision": self.revision, "classes": self.classes} | parts

    @property
    def streamed(self) -> bool:
        """Return whether images are decoded on request."""
        return isinstance(self.train, FileSplit)

    @cached_property
    def fingerprint(self) -> str:
        """Return a digest of every image, label and index; for streamed images, of `FileSplit.update`'s listing."""
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.test):
            part.update(digest)
        return digest.hexdigest()
