"""Which part of an image is trained on: a box of random area and aspect, or a square at a random place.

A place is a function of (seed, epoch, sample, view) and of the image's size. Whoever crops, the device in batches
(`training.images.augment.crop`) or a worker that has just decoded an image, asks here and gets the same place.
"""

import math

import torch
from jaxtyping import Float32, Float64, Int, Int64, UInt8
from torch import Tensor

from training.images.draws import BOX_SIZES, CROP_LEFT, CROP_TOP
from training.images.random import Stream, uniforms
from training.recipes.augmentation import Augmentation, RandomResizedCrop
from vitzoo.images.resizing import resize_and_crop, resize_boxes, resize_shorter, resized_shape

_ATTEMPTS = 10  # as torchvision's


def draw_boxes(
    crop: RandomResizedCrop,
    *,
    heights: Int[Tensor, "samples"],
    widths: Int[Tensor, "samples"],
    seed: int,
    epoch: int,
    samples: Int[Tensor, "samples"],
    view: int = 0,
    stream: Stream = Stream.AUGMENTATION,
) -> Int64[Tensor, "samples 4"]:
    """The box of each image that becomes its square: of ten attempts the first that fits, or one from the centre.

    Args:
        crop: How large the boxes are.
        heights: Of each image, pixels.
        widths: Likewise.
        seed: The augmentation seed, in [0, 2^32).
        epoch: In [0, 2^32).
        samples: Index of each image in its data set.
        view: Which of an image's views.
        stream: As `training.images.augment.augment`'s.

    Returns:
        (top, left, height, width), inside the image, on the samples' device.

    Source: torchvision's ``RandomResizedCrop.get_params``: area uniform, aspect log-uniform, sides rounded; where none
        fits, the largest box from the centre whose aspect is within the bounds.
    """
    draws = uniforms(seed, stream, epoch=epoch, samples=samples, view=view, draws=BOX_SIZES.stop)
    return _boxes(crop, draws, heights=heights, widths=widths)


def draw_corners(
    side: int,
    *,
    heights: Int[Tensor, "samples"],
    widths: Int[Tensor, "samples"],
    seed: int,
    epoch: int,
    samples: Int[Tensor, "samples"],
    view: int = 0,
    stream: Stream = Stream.AUGMENTATION,
) -> Int64[Tensor, "samples 2"]:
    """The top left corner of each image's square, uniform over all places inside.

    Args:
        side: Of the square, pixels.
        heights: Of each image as it is cropped, so after any resize, pixels, at least ``side`` (not checked: a check
            would wait for the device).
        widths: Likewise.
        seed: The augmentation seed, in [0, 2^32).
        epoch: In [0, 2^32).
        samples: Index of each image in its data set.
        view: Which of an image's views.
        stream: As `training.images.augment.augment`'s.

    Returns:
        (top, left), on the samples' device.

    Source: torchvision's ``RandomCrop``.
    """
    draws = uniforms(seed, stream, epoch=epoch, samples=samples, view=view, draws=CROP_LEFT + 1)
    return _corners(draws, heights=heights - side, widths=widths - side)


def crop_drawn(
    images: UInt8[Tensor, "batch channels height width"],
    augmentation: Augmentation,
    draws: Float32[Tensor, "batch draws"],
) -> UInt8[Tensor, "batch channels new_height new_width"]:
    """The part of each image that its draws choose, resized as the augmentation says.

    Raises:
        ValueError: The images are smaller than the square that is cut from them.
        DatasetError: They are so long that they would have more than 2^26 pixels when resized.
    """
    height, width = images.shape[2:]
    if augmentation.random_resized_crop is not None:
        sides = torch.ones(len(images), dtype=torch.int64, device=images.device)
        boxes = _boxes(augmentation.random_resized_crop, draws, heights=height * sides, widths=width * sides)
        return resize_boxes(images, boxes, size=augmentation.random_resized_crop.size, resample="bilinear")
    if augmentation.resize is not None:
        height, width = resized_shape(height, width, augmentation.resize)
    side = augmentation.random_crop
    if side is None and augmentation.resize is not None:
        return resize_shorter(images, augmentation.resize, resample="bicubic")
    if side is None:
        return images
    if side > min(height, width):
        raise ValueError(
            f"random_crop is {side} for images of {height} x {width} pixels; expected at most {min(height, width)}: "
            "resize them to more before"
        )
    spare = torch.ones(len(images), dtype=torch.int64, device=images.device)
    corners = _corners(draws, heights=(height - side) * spare, widths=(width - side) * spare)
    if augmentation.resize is None:
        return _squares(images, corners, side)
    return resize_and_crop(images, corners, height=height, width=width, side=side, resample="bicubic")


def _boxes(
    crop: RandomResizedCrop,
    draws: Float32[Tensor, "samples draws"],
    *,
    heights: Int[Tensor, "samples"],
    widths: Int[Tensor, "samples"],
) -> Int64[Tensor, "samples 4"]:
    heights, widths = heights.long(), widths.long()
    sizes = draws[:, BOX_SIZES].double().unflatten(1, (_ATTEMPTS, 2))  # float64: a box is the same in every batch
    areas = (heights * widths)[:, None] * (crop.scale[0] + (crop.scale[1] - crop.scale[0]) * sizes[..., 0])
    low, high = (math.log(aspect) for aspect in crop.ratio)
    aspects = (low + (high - low) * sizes[..., 1]).exp()
    wide, tall = _rounded((areas * aspects).sqrt()), _rounded((areas / aspects).sqrt())
    fits = (wide > 0) & (wide <= widths[:, None]) & (tall > 0) & (tall <= heights[:, None])
    first = fits.byte().argmax(1, keepdim=True)
    found = fits.any(1)
    # Where none fits: as much of the image's centre as the bounds of the aspect allow.
    whole = widths.double() / heights.double()
    narrow = _rounded((heights.double() * crop.ratio[1]).minimum(widths.double())).clamp(min=1)
    flat = _rounded((widths.double() / crop.ratio[0]).minimum(heights.double())).clamp(min=1)
    wide = torch.where(found, wide.gather(1, first)[:, 0], torch.where(whole > crop.ratio[1], narrow, widths))
    tall = torch.where(found, tall.gather(1, first)[:, 0], torch.where(whole < crop.ratio[0], flat, heights))
    corners = _corners(draws, heights=heights - tall, widths=widths - wide)
    centred = torch.stack(((heights - tall) // 2, (widths - wide) // 2), 1)
    return torch.cat((torch.where(found[:, None], corners, centred), tall[:, None], wide[:, None]), 1)


def _corners(
    draws: Float32[Tensor, "samples draws"], *, heights: Int[Tensor, "samples"], widths: Int[Tensor, "samples"]
) -> Int64[Tensor, "samples 2"]:
    """A place from (0, 0) to what is left of height and width, ends included."""
    spare = torch.stack((heights, widths), 1)
    return (draws[:, CROP_TOP : CROP_LEFT + 1].double() * (spare + 1)).floor().long()


def _squares(
    images: UInt8[Tensor, "batch channels height width"], corners: Int64[Tensor, "batch 2"], side: int
) -> UInt8[Tensor, "batch channels side side"]:
    line = torch.arange(side, device=images.device)
    rows, columns = corners[:, :1] + line, corners[:, 1:] + line
    places = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)[:, None]
    return images.flatten(2).gather(2, places.expand(-1, images.shape[1], -1)).unflatten(2, (side, side))


def _rounded(sides: Float64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Whole pixels; halves to the even number, as Python rounds."""
    return sides.round().long()
