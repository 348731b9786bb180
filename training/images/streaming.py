"""Stream the training images of a data set larger than memory: worker processes decode and crop them.

    file -> RGB -> a random box, resized to a square, or resized and a random square -> uint8 [views, batch, 3, S, S]

PIL gives the same bytes here as `crops.crop` gives for images in memory. See `crops.py` for how the place of a crop is
drawn, and `augment.py` for the rest of the augmentation, on the device.
"""

import time
from collections.abc import Iterator
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.images.crops import draw_boxes, draw_corners
from training.random import Draw, Stream, permutation
from training.recipes.augmentation import Augmentation
from vitzoo.errors import DatasetError
from vitzoo.images import FileSplit
from vitzoo.images.resizing import resize_image, resized_shape

_PREFETCH = 2  # batches that each worker prepares in advance


class CropStream:
    """The views of one rank's rows of every batch, epoch by epoch.

    The workers live until `close`, or until the stream or this process ends.

    Args:
        split: Training images.
        augmentation: Its crops are used; `augment.py` makes its other changes.
        batch_size: Images a step, over all ranks.
        views: Crops of each image.
        order_seed: Seed of the order in which an epoch visits the images.
        augmentation_seed: Seed of the crops' places.
        rank: Index of this rank's rows, ``rank`` of ``ranks`` equal parts of a batch.
        ranks: Processes that train together.
        workers: Processes that decode; 0 for this one.
        image_size: Side of the squares, pixels.
        stream: `Stream.EVALUATION` gives crops that training never draws.
        start_method: Start method of the workers, ``fork`` or ``spawn``; None for the platform's default.

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
        """Seconds that the current or last epoch has waited for images."""

    def epoch(
        self, epoch: int, steps: int
    ) -> Iterator[tuple[Int64[Tensor, " rows"], UInt8[Tensor, "views rows 3 size size"]]]:
        """Yield this rank's rows of an epoch's batches, in order. Batches that are not taken are dropped.

        Args:
            epoch: Finished passes: 0 for the first.
            steps: Batches, at most as many as are full.

        Yields:
            Index of each image in the split, and its views, in pinned memory where there is CUDA.

        Raises:
            ValueError: The epoch has fewer full batches.
            DatasetError: An image cannot be decoded, or is too small; the message names it.
            RuntimeError: The stream was closed, or another epoch was started in between.
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
                raise RuntimeError(
                    f"epoch {epoch} of the images is over: the stream was closed, or started another one"
                )
            images = next(self._images)
            self.waited_seconds += time.perf_counter() - began
            if isinstance(images, DatasetError):
                raise images
            yield own, images
            began = time.perf_counter()

    def close(self) -> None:
        """Stop the workers."""
        self._loader = self._images = None  # the workers stop when the loader is deleted

    def __enter__(self) -> "CropStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Crops:
    """The random crops of chosen images: a function of (seed, epoch, sample, view) in any batch and process.

    Args:
        split: Images of a data set.
        augmentation: Its crops are used.
        views: Crops of each image.
        seed: Augmentation seed.
        image_size: Side of the squares, pixels.
        stream: Purpose of the random numbers.

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
            samples: Index of each image in the split.

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


class _Epoch(Sampler[tuple[int, list[int]]]):
    """The current epoch, and the images of each batch, as the workers get them."""

    def __init__(self) -> None:
        self.epoch, self.samples = 0, torch.empty((0, 0), dtype=torch.int64)

    def begin(self, epoch: int, samples: Int64[Tensor, "steps rows"]) -> None:
        self.epoch, self.samples = epoch, samples

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return ((self.epoch, own.tolist()) for own in self.samples)


class _Batches(Dataset[Tensor | DatasetError]):
    """Crops by epoch and images. Errors are returned, since a loader would bury them in its own traceback."""

    def __init__(self, crops: Crops):
        self._crops = crops

    def __getitem__(self, batch: tuple[int, list[int]]) -> Tensor | DatasetError:
        epoch, samples = batch
        try:
            return self._crops.load(epoch, torch.tensor(samples))
        except DatasetError as error:
            return error
