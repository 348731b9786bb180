"""The image data sets that members are trained and tested on, by name, as uint8 images with fixed splits.

Splits are index-listed: the same images in the same order on every machine, proved by a fingerprint. What is done
to the images in training is `training.images`' business; together with `vitzoo.hub` this is the only module of
the library that may touch the network (so far nothing here does).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

import numpy as np
from jaxtyping import Int64, UInt8

from vitzoo.errors import DatasetError, did_you_mean, shown
from vitzoo.images.spec import DatasetSpec, Preprocessing

__all__ = ["DatasetSpec", "ImageDataset", "ImageSplit", "Preprocessing", "load_images"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageSplit:
    """A part of a data set.

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

    def evenly(self, count: int) -> "ImageSplit":
        """``count`` images evenly spaced over the split: the fixed subset on which training figures are measured.

        Raises:
            DatasetError: There are not that many.
        """
        if not 1 <= count <= len(self):
            raise DatasetError(
                f"{count} images were asked of a split of {len(self)}; expected 1 to {len(self)}.", dataset=None
            )
        places = np.arange(count) * len(self) // count
        return ImageSplit(images=self.images[places], labels=self.labels[places], indices=self.indices[places])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageDataset:
    """A data set with its three splits.

    Args:
        name: As a recipe names it.
        revision: Where exactly it comes from.
        classes: Names of the classes, in the order of the labels.
        train: What is trained on.
        val: What choices are made on.
        test: What is read once.
    """

    name: str
    revision: str
    classes: tuple[str, ...]
    train: ImageSplit
    val: ImageSplit
    test: ImageSplit

    @property
    def fingerprint(self) -> str:
        """Digest of every image, label and index of all splits."""
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.test):
            for array in (part.images, part.labels, part.indices):
                digest.update(f"{array.dtype} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


# scikit-learn's digits lie in the order in which 43 people wrote them: contiguous blocks keep most writers on one side.
_DIGITS_BLOCKS = {"train": (0, 1078), "val": (1078, 1437), "test": (1437, 1797)}


def _digits(name: str, classes: tuple[int, ...]) -> ImageDataset:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise DatasetError(
            f'The images of "{name}" are bundled with scikit-learn, which is not installed: pip install scikit-learn.',
            dataset=name,
        ) from error
    pixels, digits = load_digits(return_X_y=True)
    grey = np.round(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)  # stored as 0 to 16
    parts = {}
    for part, (start, stop) in _DIGITS_BLOCKS.items():
        indices = np.arange(start, stop)
        indices = indices[np.isin(digits[indices], classes)].astype(np.int64)
        parts[part] = ImageSplit(
            images=np.repeat(grey[indices], 3, axis=1),
            labels=np.searchsorted(classes, digits[indices]).astype(np.int64),
            indices=indices,
        )
    return ImageDataset(
        name=name, revision=f"scikit-learn {version('scikit-learn')}", classes=tuple(map(str, classes)), **parts
    )


_DATASETS: dict[str, Callable[[str], ImageDataset]] = {
    "digits-0-5": lambda name: _digits(name, (0, 1, 2, 3, 4, 5)),
    "digits-6-9": lambda name: _digits(name, (6, 7, 8, 9)),
}


def load_images(images: DatasetSpec | str) -> ImageDataset:
    """A data set; loaded once a process.

    Args:
        images: Which; a name alone for what is bundled: ``digits-0-5`` or ``digits-6-9``, scikit-learn's 1,797
            handwritten digits of 8 x 8 pixels, cut into contiguous train, validation and test blocks and filtered by
            class, grey repeated on three channels.

    Raises:
        DatasetError: No data set has this name, or the package that holds it is not installed.

    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (UCI).
    """
    return _load(DatasetSpec(name=images) if isinstance(images, str) else images)


@cache
def _load(images: DatasetSpec) -> ImageDataset:
    if images.name not in _DATASETS:
        raise DatasetError(
            f"No image data set is called {shown(images.name)}.{did_you_mean(images.name, _DATASETS)}",
            dataset=images.name,
        )
    return _DATASETS[images.name](images.name)
