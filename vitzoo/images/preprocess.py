"""What is done to images before they are normalised, at evaluation: in batches on the device, or by PIL in workers.

Both give the same bytes, those of transformers' image processor (`processor.py`) but for one thing: from Pillow 13 on,
which resizes images more than twice as tall as wide another way, that processor differs there by a few levels
(`resizing.py`). The place of the square is transformers' too, rounded down; torchvision's lies a pixel further on where
(side - crop) / 2 is 1.5, 3.5, 5.5, ...
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitzoo.errors import DatasetError
from vitzoo.images.resizing import resize_image, resize_shorter, resized_shape
from vitzoo.images.splits import FileSplit, ImageSplit
from vitzoo.records.dataset_spec import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image


def preprocess(
    images: UInt8[Tensor, "batch channels height width"], preprocessing: Preprocessing
) -> UInt8[Tensor, "batch channels new_height new_width"]:
    """Images resized and cropped, on their device.

    Args:
        images: Values 0 to 255.
        preprocessing: What is done.

    Raises:
        DatasetError: The images are smaller than what is cut from them, or too long to be resized.
    """
    if preprocessing.resize is not None:
        images = resize_shorter(images, preprocessing.resize, resample=preprocessing.resample)
    if preprocessing.crop is not None:
        top, left = _corner(images.shape[2], images.shape[3], preprocessing)
        images = images[:, :, top : top + preprocessing.crop, left : left + preprocessing.crop]
    return images


def preprocess_image(image: "Image", preprocessing: Preprocessing, *, named: str = "An image") -> "Image":
    """The same of one image, by PIL.

    Args:
        image: In RGB.
        preprocessing: What is done.
        named: What the image is called in messages.

    Raises:
        DatasetError: The image is smaller than what is cut from it, or too long to be resized.
    """
    if preprocessing.resize is not None:
        height, width = resized_shape(image.height, image.width, preprocessing.resize, named=named)
        image = resize_image(image, height=height, width=width, resample=preprocessing.resample)
    if preprocessing.crop is not None:
        top, left = _corner(image.height, image.width, preprocessing)
        image = image.crop((left, top, left + preprocessing.crop, top + preprocessing.crop))
    return image


def iter_preprocessed(
    split: ImageSplit | FileSplit,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Iterator[UInt8[Tensor, "batch channels height width"]]:
    """Every image of a split, in order, in batches on a device.

    Args:
        split: The images; those of a `FileSplit` are decoded, resized and cropped by PIL.
        preprocessing: What is done to them.
        batch_size: Images a batch; the last may be smaller.
        workers: Processes that decode; 0 for this one.
        device: Where the batches are wanted, and where those in memory are resized.

    Raises:
        DatasetError: An image cannot be decoded, is too small, or has another size than the others of its batch.
    """
    if isinstance(split, ImageSplit):
        images = torch.from_numpy(split.images).to(device)  # at once: each copy waits for what is queued
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
    """The batches of a split; what is wrong with an image is returned, for a loader would bury it in a traceback."""

    def __init__(self, split: FileSplit, preprocessing: Preprocessing, *, batch_size: int):
        self._split, self._preprocessing, self._batch_size = split, preprocessing, batch_size

    def __len__(self) -> int:
        return -(-len(self._split) // self._batch_size)

    def __getitem__(self, batch: int) -> Tensor | DatasetError:
        places = range(batch * self._batch_size, min((batch + 1) * self._batch_size, len(self._split)))
        try:
            images = [self._load(place) for place in places]
            for place, image in zip(places, images, strict=True):
                if image.size != images[0].size:
                    raise DatasetError(
                        f"{self._split.describe(place)} has {image.width} x {image.height} pixels, "
                        f"{self._split.describe(places[0])} {images[0].width} x {images[0].height}: expected one size",
                        fix="Set resize and crop in the Preprocessing.",
                    )
        except DatasetError as error:
            return error
        return torch.from_numpy(np.stack([np.asarray(image).transpose(2, 0, 1) for image in images]))

    def _load(self, place: int) -> "Image":
        return preprocess_image(self._split.load(place), self._preprocessing, named=self._split.describe(place))


def _corner(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Top and left of the square in the centre."""
    side = preprocessing.crop or 0
    if side > min(height, width):
        raise DatasetError(
            f"A square of {side} pixels was to be cut from an image of {width} x {height}",
            fix="Set resize in the Preprocessing.",
        )
    return (height - side) // 2, (width - side) // 2
