"""Resize and crop images before normalisation, at evaluation: in batches on the device, or by PIL in workers.

Both give the bytes of transformers' image processor (see `processor.py`), with one exception. From Pillow 13 on, it
resizes images more than twice as tall as wide another way, by a few levels (see `resizing.py`). The place of the square
is transformers' too, rounded down; torchvision's is a pixel further on where (side - crop) / 2 is 1.5, 3.5, 5.5, ...
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitzoo.errors import DatasetError
from vitzoo.images.processor import ExactSize
from vitzoo.images.resizing import resize, resize_image, resized_shape
from vitzoo.images.splits import FileSplit, ImageSplit
from vitzoo.records.dataset_spec import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image


def preprocess(
    images: UInt8[Tensor, "batch channels height width"], preprocessing: Preprocessing | ExactSize
) -> UInt8[Tensor, "batch channels new_height new_width"]:
    """Resize and crop a batch of images on their device.

    Raises:
        DatasetError: The images are smaller than the crop, or too long to be resized.
    """
    if isinstance(preprocessing, ExactSize):
        height, width = preprocessing.height, preprocessing.width
        if tuple(images.shape[2:]) == (height, width):
            return images
        return resize(images, height=height, width=width, resample=preprocessing.resample)
    if preprocessing.resize is not None:
        height, width = resized_shape(images.shape[2], images.shape[3], preprocessing.resize)
        images = resize(images, height=height, width=width, resample=preprocessing.resample)
    if preprocessing.crop is not None:
        top, left = _corner(images.shape[2], images.shape[3], preprocessing.crop)
        images = images[:, :, top : top + preprocessing.crop, left : left + preprocessing.crop]
    return images


def preprocess_image(image: "Image", preprocessing: Preprocessing | ExactSize, *, named: str = "An image") -> "Image":
    """Resize and crop one image in RGB by PIL, with the errors of `preprocess`."""
    if isinstance(preprocessing, ExactSize):
        height, width = preprocessing.height, preprocessing.width
        if (image.height, image.width) == (height, width):
            return image
        return resize_image(image, height=height, width=width, resample=preprocessing.resample)
    if preprocessing.resize is not None:
        height, width = resized_shape(image.height, image.width, preprocessing.resize, named=named)
        image = resize_image(image, height=height, width=width, resample=preprocessing.resample)
    if preprocessing.crop is not None:
        top, left = _corner(image.height, image.width, preprocessing.crop)
        image = image.crop((left, top, left + preprocessing.crop, top + preprocessing.crop))
    return image


def iter_preprocessed(
    split: ImageSplit | FileSplit,
    preprocessing: Preprocessing | ExactSize,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Iterator[UInt8[Tensor, "batch channels height width"]]:
    """Yield every image of a split, in order, in batches on a device; the last batch may be smaller.

    The images of a `FileSplit` are resized and cropped by PIL, in this process or in ``workers`` others.

    Raises:
        DatasetError: An image cannot be decoded, is too small, or has another size than the others of its batch.
    """
    if isinstance(split, ImageSplit):
        images = torch.from_numpy(split.images).to(device)  # one copy, since each waits for the device's queue
        for start in range(0, len(split), batch_size):
            yield preprocess(images[start : start + batch_size], preprocessing)
        return
    loader = DataLoader(
        _Batches(split, preprocessing, batch_size=batch_size),
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        if isinstance(batch, DatasetError):
            raise batch
        yield batch.to(device, non_blocking=True)


class _Batches(Dataset):
    """The batches of a split. Errors are returned, since a loader would bury them in its own traceback."""

    def __init__(self, split: FileSplit, preprocessing: Preprocessing | ExactSize, *, batch_size: int):
        self._split, self._preprocessing, self._batch_size = split, preprocessing, batch_size

    def __len__(self) -> int:
        return -(-len(self._split) // self._batch_size)

    def __getitem__(self, batch: int) -> Tensor | DatasetError:
        split, images = self._split, []
        places = range(batch * self._batch_size, min((batch + 1) * self._batch_size, len(split)))
        try:
            for place in places:
                image = preprocess_image(split.load(place), self._preprocessing, named=split.describe(place))
                images.append(image)
                if image.size != images[0].size:
                    raise DatasetError(
                        f"{split.describe(place)} has {image.width} x {image.height} pixels, "
                        f"{split.describe(places[0])} {images[0].width} x {images[0].height}",
                        expected="one size",
                        fix="Set resize and crop in the Preprocessing.",
                    )
        except DatasetError as error:
            return error
        return torch.from_numpy(np.stack([np.asarray(image).transpose(2, 0, 1) for image in images]))


def _corner(height: int, width: int, side: int) -> tuple[int, int]:
    """Return top and left of the square in the centre."""
    if side > min(height, width):
        raise DatasetError(
            f"crop is {side} for an image of {width} x {height} pixels",
            expected=f"{min(height, width)} at most",
            fix="Set resize in the Preprocessing.",
        )
    return (height - side) // 2, (width - side) // 2
