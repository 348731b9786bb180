"""Erase a rectangle of an image after normalisation: set it to zero or to noise."""

import math
from functools import cache

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from training.images import draws as places
from training.random import Stream, normals, tensor_id
from training.recipes.augmentation import Augmentation

_ATTEMPTS = 10  # timm's
_AREA = (0.02, 1 / 3)
_NOISE = 2**20  # standard normal numbers in the table


def erase(
    images: Float32[Tensor, "batch channels height width"],
    draws: Float32[Tensor, "batch draws"],
    augmentation: Augmentation,
) -> Float32[Tensor, "batch channels height width"]:
    """Erase a rectangle of some normalised images: of ten attempts the first that is smaller than the image.

    Noise is standard normal for each pixel and channel. A number for each pixel of each image would cost more than the
    rest of the augmentation. So there are 2^20 fixed numbers, and each image reads them from a random place on.

    Source:
        Zhong et al., "Random erasing data augmentation", 2020, algorithm 1; timm's `RandomErasing`, whose modes
        ``const`` and ``pixel`` are the two fills.
    """
    erased = _rectangles(images.shape[2], images.shape[3], draws, augmentation)[:, None]
    if augmentation.erasing_fill == "zero":
        return images.masked_fill(erased, 0.0)
    offsets, count = (draws[:, places.NOISE].double() * _NOISE).long(), images[0].numel()
    noise = _noise_table(count, images.device).unfold(0, count, 1).index_select(0, offsets)  # row i starts at number i
    return torch.where(erased, noise.view_as(images), images)


def _rectangles(
    height: int, width: int, draws: Float32[Tensor, "batch draws"], augmentation: Augmentation
) -> Bool[Tensor, "batch height width"]:
    """Return a mask of the erased pixels."""
    sizes = draws[:, places.ERASE_SIZES].double().unflatten(1, (_ATTEMPTS, 2))  # float64: the same in every batch
    areas = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * sizes[..., 0])
    low, high = (math.log(aspect) for aspect in augmentation.erasing_aspect)
    aspects = (low + (high - low) * sizes[..., 1]).exp()
    tall, wide = (areas * aspects).sqrt().round(), (areas / aspects).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.byte().argmax(1, keepdim=True)
    erased = (draws[:, places.ERASE] < augmentation.erasing) & fits.any(1)
    tall, wide = tall.gather(1, first), wide.gather(1, first)
    top = (draws[:, places.ERASE_TOP, None].double() * (height - tall + 1)).floor()
    left = (draws[:, places.ERASE_LEFT, None].double() * (width - wide + 1)).floor()
    rows, columns = torch.arange(height, device=draws.device), torch.arange(width, device=draws.device)
    in_rows = (rows >= top) & (rows < top + tall) & erased[:, None]
    in_columns = (columns >= left) & (columns < left + wide)
    return in_rows[:, :, None] & in_columns[:, None, :]


@cache
def _noise_table(count: int, device: torch.device) -> Float32[Tensor, "numbers"]:
    """Return the numbers, with their beginning repeated for images that start near the end. Takes 0.1 s once."""
    numbers = normals(0, Stream.NOISE, tensor=tensor_id("erasing"), count=_NOISE)
    return numbers[torch.arange(_NOISE + count - 1) % _NOISE].to(device)
