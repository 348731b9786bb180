"""Choose the part of an image to train on: a box of random area and aspect, or a square at a random place.

A place is a function of a `Draw` and of the image's size. The device crops in batches (`crop`), and workers crop the
images that they have just decoded (see `streaming.py`). Both get the same places.
"""

import math

import torch
from jaxtyping import Float32, Float64, Int, Int64, UInt8
from torch import Tensor

from training.images.draws import BOX_SIZES, CROP_LEFT, CROP_TOP
from training.random import Draw
from training.recipes.augmentation import Augmentation, RandomResizedCrop
from vitzoo.images.resizing import resize, resize_and_crop, resize_boxes, resized_shape

_ATTEMPTS = 10  # torchvision's


def draw_boxes(
    crop: RandomResizedCrop, draw: Draw, *, heights: Int[Tensor, "samples"], widths: Int[Tensor, "samples"]
) -> Int64[Tensor, "samples 4"]:
    """Draw the box (top, left, height, width) of each image: the first of ten that fits, or one from the centre.

    Source: torchvision's ``RandomResizedCrop.get_params``: area uniform, aspect log-uniform, sides rounded; where none
        fits, the largest box from the centre whose aspect is within the bounds.
    """
    heights, widths = heights.long(), widths.long()
    draws = draw.uniforms(BOX_SIZES.stop)
    sizes = draws[:, BOX_SIZES].double().unflatten(1, (_ATTEMPTS, 2))  # float64: a box is the same in every batch
    areas = (heights * widths)[:, None] * (crop.scale[0] + (crop.scale[1] - crop.scale[0]) * sizes[..., 0])
    low, high = (math.log(aspect) for aspect in crop.ratio)
    aspects = (low + (high - low) * sizes[..., 1]).exp()
    wide, tall = _round((areas * aspects).sqrt()), _round((areas / aspects).sqrt())
    fits = (wide > 0) & (wide <= widths[:, None]) & (tall > 0) & (tall <= heights[:, None])
    first = fits.byte().argmax(1, keepdim=True)
    fitting = fits.any(1)
    # Where none fits, take as much of the image's centre as the bounds of the aspect allow.
    whole = widths.double() / heights.double()
    narrow = _round((heights.double() * crop.ratio[1]).minimum(widths.double())).clamp(min=1)
    flat = _round((widths.double() / crop.ratio[0]).minimum(heights.double())).clamp(min=1)
    wide = torch.where(fitting, wide.gather(1, first)[:, 0], torch.where(whole > crop.ratio[1], narrow, widths))
    tall = torch.where(fitting, tall.gather(1, first)[:, 0], torch.where(whole < crop.ratio[0], flat, heights))
    corners = _corners(draws, heights=heights - tall, widths=widths - wide)
    centred = torch.stack(((heights - tall) // 2, (widths - wide) // 2), 1)
    return torch.cat((torch.where(fitting[:, None], corners, centred), tall[:, None], wide[:, None]), 1)


def draw_corners(
    side: int, draw: Draw, *, heights: Int[Tensor, "samples"], widths: Int[Tensor, "samples"]
) -> Int64[Tensor, "samples 2"]:
    """Draw the (top, left) corner of each image's square, uniform over all places inside.

    No image may be smaller than the square, which is not checked, since a check would wait for the device.

    Source: torchvision's ``RandomCrop``.
    """
    return _corners(draw.uniforms(CROP_LEFT + 1), heights=heights - side, widths=widths - side)


def crop(
    images: UInt8[Tensor, "batch channels height width"], augmentation: Augmentation, draw: Draw
) -> UInt8[Tensor, "batch channels new_height new_width"]:
    """Resize and crop images, before `training.images.augment.augment_cropped`.

    Raises:
        ValueError: The images are smaller than their square.
        DatasetError: The images are so long that they would have more than 2^26 pixels when resized.
    """
    height, width = images.shape[2:]
    ones = torch.ones(len(images), dtype=torch.int64, device=images.device)
    if augmentation.random_resized_crop is not None:
        boxes = draw_boxes(augmentation.random_resized_crop, draw, heights=height * ones, widths=width * ones)
        return resize_boxes(images, boxes, size=augmentation.random_resized_crop.size, resample="bilinear")
    if augmentation.resize is not None:
        height, width = resized_shape(height, width, augmentation.resize)
    side = augmentation.random_crop
    if side is None:
        if augmentation.resize is None:
            return images
        return resize(images, height=height, width=width, resample="bicubic")
    if side > min(height, width):
        raise ValueError(
            f"random_crop is {side} for images of {height} x {width} pixels; expected at most {min(height, width)}"
        )
    corners = draw_corners(side, draw, heights=height * ones, widths=width * ones)
    if augmentation.resize is None:
        line = torch.arange(side, device=images.device)
        rows, columns = corners[:, :1] + line, corners[:, 1:] + line
        places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)[:, None]
        return images.flatten(2).gather(2, places.expand(-1, images.shape[1], -1)).unflatten(2, (side, side))
    return resize_and_crop(images, corners, height=height, width=width, side=side, resample="bicubic")


def _corners(
    draws: Float32[Tensor, "samples draws"], *, heights: Int[Tensor, "samples"], widths: Int[Tensor, "samples"]
) -> Int64[Tensor, "samples 2"]:
    """Return places from (0, 0) to the spare heights and widths, ends included."""
    spare = torch.stack((heights, widths), 1)
    return (draws[:, CROP_TOP : CROP_LEFT + 1].double() * (spare + 1)).floor().long()


def _round(sides: Float64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Round to whole pixels; halves to the even number, like Python."""
    return sides.round().long()
