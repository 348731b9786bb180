"""The training images of a data set that no memory holds: decoded and cropped by worker processes, keyed as all else.

    file -> RGB -> a random box, resized to a square, or resized and a random square -> uint8 [views, batch, 3, S, S]

PIL does here what `augment.crop` does to images in memory, to the same bytes; the rest of the augmentation is done on
the device (`augment.py`). Which place is cut from an image is drawn in `crops.py`, from (seed, epoch, sample, view).
"""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.images.crops import draw_boxes, draw_corners
from training.images.random import Stream, permutation
from training.recipes.augmentation import Augmentation
from vitzoo.errors import DatasetError
from vitzoo.images import FileSplit
from vitzoo.images.resizing import resize_image, resized_shape

_PREFETCH = 2  # batches that each worker makes ahead


class CropStream:
    """The views of one rank's rows of every batch, for as many epochs as are asked for.

    The workers live until `close`, or until the stream or this process ends.

    Args:
        split: The training images.
        augmentation: How they are cropped; its other changes are made elsewhere.
        batch_size: Images a step, over all ranks.
        views: Crops of each image.
        order_seed: Of the order in which an epoch visits the images.
        augmentation_seed: Of the places that are cut out.
        rank: Which rows of a batch, ``rank`` of ``ranks`` equal parts.
        ranks: Processes that train together.
        workers: Processes that decode; 0 for this one.
        image_size: Side of the squares, pixels.
        stream: `Stream.EVALUATION` gives crops that training never sees.
        start_method: How workers start, ``fork`` or ``spawn``; None for the platform's way.

    Raises:
        ValueError: The ranks do not divide the batch, or the augmentation cuts squares of another size.
    """

    def __init__(
        self,
        split: FileSplit,
        augmentation: Augmentation,
        *,
        batch_size: int,
        views: int,
        order_seed: int,
        augmentation_seed: int,
        rank: int,
        ranks: int,
        workers: int,
        image_size: int,
        stream: Stream = Stream.AUGMENTATION,
        start_method: str | None = None,
    ):
        if not 0 <= rank < ranks or batch_size % ranks:
            raise ValueError(f"rank {rank} of {ranks} for batches of {batch_size}; expected ranks that divide a batch")
        crops = Crops(split, augmentation, views=views, seed=augmentation_seed, image_size=image_size, stream=stream)
        self._count, self._batch_size, self._order_seed = len(split), batch_size, order_seed
        self._rows = slice(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)
        self._epoch = _Epoch()
        self._loader: DataLoader | None = DataLoader(
            _Batches(crops),
            batch_size=None,
            sampler=self._epoch,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=_PREFETCH if workers else None,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=start_method if workers else None,
        )
        self._images: Iterator[Tensor | DatasetError] | None = None
        self.waited_seconds = 0.0
        """How long the epoch under way, or the last one, has waited for images."""

    def epoch(
        self, epoch: int, steps: int
    ) -> Iterator[tuple[Int64[Tensor, " rows"], UInt8[Tensor, "views rows 3 size size"]]]:
        """This rank's rows of an epoch's batches, in order; what is not taken of an epoch is thrown away.

        Args:
            epoch: Finished passes: 0 for the first.
            steps: Batches, at most as many as are full.

        Yields:
            Place of each image in the split, and its views, in pinned memory where there is CUDA.

        Raises:
            ValueError: There are not so many full batches.
            DatasetError: An image cannot be decoded, or is too small; the message names it.
            RuntimeError: The stream was closed, or another epoch was begun meanwhile.
        """
        full = self._count // self._batch_size
        if not 0 <= steps <= full:
            raise ValueError(
                f"steps is {steps} for {self._count} images in batches of {self._batch_size}; expected 0 to {full}"
            )
        if self._loader is None:
            raise RuntimeError("the stream of images is closed")
        order = permutation(self._order_seed, epoch=epoch, count=self._count)[: steps * self._batch_size]
        samples = order.unflatten(0, (steps, self._batch_size))[:, self._rows]
        self._epoch.begin(epoch, samples)
        self.waited_seconds = 0.0
        began = time.perf_counter()
        self._images = iter(self._loader)
        for own in samples:
            if self._images is None or self._epoch.samples is not samples:
                raise RuntimeError(f"epoch {epoch} of the images was left: the stream was closed, or began another one")
            images = next(self._images)
            self.waited_seconds += time.perf_counter() - began
            if isinstance(images, DatasetError):
                raise images
            yield own, images
            began = time.perf_counter()

    def close(self) -> None:
        """End the workers."""
        self._loader = self._images = None  # which end them when they go

    def __enter__(self) -> "CropStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Crops:
    """The random crops of chosen images: a function of (seed, epoch, sample, view), whichever batch or process asks.

    Args:
        split: The images.
        augmentation: How they are cropped.
        views: Crops of each image.
        seed: The augmentation seed.
        image_size: Side of the squares, pixels.
        stream: What the random numbers are for.

    Raises:
        ValueError: The augmentation cuts squares of another size.
    """

    def __init__(
        self,
        split: FileSplit,
        augmentation: Augmentation,
        *,
        views: int,
        seed: int,
        image_size: int,
        stream: Stream = Stream.AUGMENTATION,
    ):
        box, square = augmentation.random_resized_crop, augmentation.random_crop
        side = box.size if box is not None else square
        if side not in (None, image_size):
            raise ValueError(f"the augmentation cuts squares of {side} pixels; expected the model's {image_size}")
        self._split, self._augmentation, self._views = split, augmentation, views
        self._seed, self._size, self._stream = seed, image_size, stream

    def load(self, epoch: int, samples: Int64[Tensor, " images"]) -> UInt8[Tensor, "views images 3 size size"]:
        """Decode images and crop them.

        Args:
            epoch: Finished passes.
            samples: Place of each image in the split.

        Raises:
            DatasetError: An image cannot be decoded, or has too few pixels for its crop or too many when resized.
        """
        images = [self._load(place) for place in samples.tolist()]
        crops = torch.empty((self._views, len(images), 3, self._size, self._size), dtype=torch.uint8)
        for view, squares in enumerate(crops):
            boxes = self._boxes(images, epoch=epoch, samples=samples, view=view)
            for image, box, square in zip(images, boxes, squares, strict=True):
                square.copy_(torch.from_numpy(np.array(self._cut(image, box.tolist()))).permute(2, 0, 1))
        return crops

    def _load(self, place: int) -> Image.Image:
        """An image, resized if all of it is to be, and large enough for what is cut from it."""
        image, augmentation = self._split.load(place), self._augmentation
        if augmentation.random_resized_crop is not None:
            return image
        if augmentation.resize is not None:
            named = self._split.describe(place)
            height, width = resized_shape(image.height, image.width, augmentation.resize, named=named)
            image = resize_image(image, height=height, width=width, resample="bicubic")
        size = (self._size, self._size)
        if min(image.size) < self._size or (augmentation.random_crop is None and image.size != size):
            raise DatasetError(
                f"{self._split.describe(place)} has {image.width} x {image.height} pixels when it is cropped; expected "
                f"{self._size} x {self._size}{'' if augmentation.random_crop is None else ' or more'}. Set resize and "
                "random_crop, or random_resized_crop, in the recipe's augmentation.",
                dataset=None,
            )
        return image

    def _boxes(
        self, images: list[Image.Image], *, epoch: int, samples: Int64[Tensor, " images"], view: int
    ) -> Int64[Tensor, "images 4"]:
        """(top, left, height, width) of what is cut from each image."""
        widths, heights = (torch.tensor([image.size[side] for image in images]) for side in (0, 1))
        drawn: dict[str, Any] = {"heights": heights, "widths": widths, "seed": self._seed, "epoch": epoch}
        drawn |= {"samples": samples, "view": view, "stream": self._stream}
        if self._augmentation.random_resized_crop is not None:
            return draw_boxes(self._augmentation.random_resized_crop, **drawn)
        corners = draw_corners(self._size, **drawn)
        return torch.cat((corners, torch.full_like(corners, self._size)), 1)

    def _cut(self, image: Image.Image, box: list[int]) -> Image.Image:
        top, left, height, width = box
        # Not resize(box=...): its filter would reach beyond the box.
        cut = image.crop((left, top, left + width, top + height))
        if cut.size == (self._size, self._size):
            return cut
        return resize_image(cut, height=self._size, width=self._size, resample="bilinear")


class _Epoch(Sampler[tuple[int, list[int]]]):
    """What the workers are asked for: the epoch under way and the places of each batch."""

    def __init__(self) -> None:
        self.epoch, self.samples = 0, torch.empty((0, 0), dtype=torch.int64)

    def begin(self, epoch: int, samples: Int64[Tensor, "steps rows"]) -> None:
        self.epoch, self.samples = epoch, samples

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return ((self.epoch, own.tolist()) for own in self.samples)


class _Batches(Dataset[Tensor | DatasetError]):
    """Crops by epoch and places; what is wrong is returned, for a loader would bury it in a traceback of its own."""

    def __init__(self, crops: Crops):
        self._crops = crops

    def __getitem__(self, asked: tuple[int, list[int]]) -> Tensor | DatasetError:
        epoch, samples = asked
        try:
            return self._crops.load(epoch, torch.tensor(samples))
        except DatasetError as error:
            return error
