"""Stream the training images of a data set larger than memory: worker processes decode and crop them.

    file -> RGB -> a random box, resized to a square, or resized and a random square -> uint8 [views, rows, 3, S, S]

PIL gives the same bytes here as `crops.crop` gives for images in memory. See `crops.py` for how the place of a crop is
drawn, and `augment.py` for the rest of the augmentation, on the device.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.images.crops import draw_boxes, draw_corners
from training.random import Draw, Stream
from training.recipes.plan import PlannedMember
from vitzoo.errors import DatasetError
from vitzoo.images import FileSplit
from vitzoo.images.resizing import resize_image, resized_shape

_PREFETCH = 2  # batches that each worker prepares in advance


class Crops(Dataset[Tensor | DatasetError]):
    """The random crops of images: a function of (seed, epoch, sample, view) in any batch and process.

    Args:
        planned: Member to train. `augment.py` makes the changes of its augmentation that follow the crop.
        split: Images of a data set.
        stream: Purpose of the random numbers.
    """

    def __init__(self, planned: PlannedMember, split: FileSplit, *, stream: Stream = Stream.AUGMENTATION):
        self._split, self._stream, self._seed = split, stream, planned.seeds.augmentation
        self._augmentation, self._views = planned.training.augmentation, planned.training.views
        self._size = planned.architecture.image_size

    def __getitem__(self, batch: tuple[int, list[int]]) -> Tensor | DatasetError:
        """Load the crops of an epoch and samples. An error is returned, since a loader would bury it in its own."""
        epoch, samples = batch
        try:
            return self.load(epoch, torch.tensor(samples))
        except DatasetError as error:
            return error

    def load(self, epoch: int, samples: Int64[Tensor, " images"]) -> UInt8[Tensor, "views images 3 size size"]:
        """Decode and crop the images at these places of the split.

        Raises:
            DatasetError: An image cannot be decoded, or has too few pixels for its crop or too many when resized.
        """
        images = [self._load(index) for index in samples.tolist()]
        crops = torch.empty((self._views, len(images), 3, self._size, self._size), dtype=torch.uint8)
        for view, squares in enumerate(crops):
            draw = Draw(seed=self._seed, epoch=epoch, samples=samples, view=view, stream=self._stream)
            boxes = self._boxes(images, draw)
            for image, box, square in zip(images, boxes, squares, strict=True):
                square.copy_(torch.from_numpy(np.array(self._cut(image, box.tolist()))).permute(2, 0, 1))
        return crops

    def _load(self, index: int) -> Image.Image:
        """Load an image, resize it if the augmentation does, and check that its crop fits."""
        image, augmentation = self._split.load(index), self._augmentation
        if augmentation.random_resized_crop is not None:
            return image
        if augmentation.resize is not None:
            named = self._split.describe(index)
            height, width = resized_shape(image.height, image.width, augmentation.resize, named=named)
            image = resize_image(image, height=height, width=width, resample="bicubic")
        size = (self._size, self._size)
        if min(image.size) < self._size or (augmentation.random_crop is None and image.size != size):
            raise DatasetError(
                f"{self._split.describe(index)} has {image.width} x {image.height} pixels when it is cropped",
                expected=f"{self._size} x {self._size}{('' if augmentation.random_crop is None else ' or more')}",
                fix="Set resize and random_crop, or random_resized_crop, in the recipe's augmentation.",
            )
        return image

    def _boxes(self, images: list[Image.Image], draw: Draw) -> Int64[Tensor, "images 4"]:
        """Draw the (top, left, height, width) of each image's crop."""
        widths, heights = (torch.tensor([image.size[side] for image in images]) for side in (0, 1))
        if self._augmentation.random_resized_crop is not None:
            return draw_boxes(self._augmentation.random_resized_crop, draw, heights=heights, widths=widths)
        corners = draw_corners(self._size, draw, heights=heights, widths=widths)
        return torch.cat((corners, torch.full_like(corners, self._size)), 1)

    def _cut(self, image: Image.Image, box: list[int]) -> Image.Image:
        top, left, height, width = box
        # Not resize(box=...), whose filter would reach beyond the box.
        cut = image.crop((left, top, left + width, top + height))
        if cut.size == (self._size, self._size):
            return cut
        return resize_image(cut, height=self._size, width=self._size, resample="bilinear")


class CropStream:
    """Load the crops of batches in worker processes, epoch by epoch.

    The workers live until `close`, or until the stream or this process ends.

    Args:
        crops: Crops of the images.
        workers: Processes that decode; 0 for this one.
    """

    def __init__(self, crops: Crops, *, workers: int):
        self._batches: list[tuple[int, list[int]]] = []  # of the current epoch; the loader reads this list
        self._loader: DataLoader | None = DataLoader(
            crops,
            batch_size=None,
            sampler=self._batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=_PREFETCH if workers else None,
            pin_memory=torch.cuda.is_available(),
        )
        self._images: Iterator[Tensor | DatasetError] | None = None
        self._epochs = 0  # started epochs

    def epoch(
        self, epoch: int, samples: Int64[Tensor, "steps rows"]
    ) -> Iterator[UInt8[Tensor, "views rows 3 size size"]]:
        """Yield the crops of each step's samples, in pinned memory where there is CUDA.

        Raises:
            DatasetError: An image cannot be decoded, or is too small; the message names it.
            RuntimeError: The stream was closed, or another epoch was started in between.
        """
        if self._loader is None:
            raise RuntimeError("the stream of images is closed")
        self._batches[:] = [(epoch, rows) for rows in samples.tolist()]
        self._epochs += 1
        started = self._epochs
        self._images = iter(self._loader)
        for _ in samples:
            if self._images is None or self._epochs != started:
                raise RuntimeError(
                    f"epoch {epoch} of the images is over: the stream was closed, or started another one"
                )
            images = next(self._images)
            if isinstance(images, DatasetError):
                raise images
            yield images

    def close(self) -> None:
        """Stop the workers."""
        self._loader = self._images = None  # the workers stop when the loader is deleted
