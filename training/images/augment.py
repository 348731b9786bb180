"""Augmentation of images one by one, in batches, on the device that holds them.

    uint8 images -> flip -> one affine map, bilinear, zeros outside -> normalise -> erase a rectangle

What a sample gets is a function of (seed, epoch, sample, view) alone: see `random.py`. At evaluation images are only
normalised: `vitzoo.evaluation`. What mixes the images of a batch with one another is `mixing.py`; batches
are made in `loader.py`.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor
from torch.nn import functional

from training.images.random import Stream, uniforms
from training.recipes.training import Augmentation
from vitzoo.evaluation import normalise

# A sample's draws, by place. The places are frozen: they are part of what a recipe means.
_ROTATION, _RIGHT, _DOWN, _SCALE, _FLIP, _ERASE, _TOP, _LEFT = range(8)
_ERASE_ATTEMPTS = 10  # as timm's; each takes two draws, (area, aspect), from place 8 on
_DRAWS = 8 + 2 * _ERASE_ATTEMPTS

_ERASE_AREA = (0.02, 1 / 3)
_ERASE_ASPECT = (0.3, 3.3)


def augment(
    images: UInt8[Tensor, "batch channels height width"],
    augmentation: Augmentation,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    epoch: int,
    samples: Int[Tensor, "samples"],
    view: int = 0,
    stream: Stream = Stream.AUGMENTATION,
) -> Float32[Tensor, "batch channels height width"]:
    """Augmented, normalised images: each a function of (seed, epoch, sample, view), whatever batch it is in.

    A whole epoch of small images may be one call, which costs little more than a batch.

    Args:
        images: values 0 to 255.
        augmentation: how they are changed.
        mean: a value a channel, for pixels scaled to [0, 1].
        std: the same.
        seed: the augmentation seed, in [0, 2^32).
        epoch: in [0, 2^32).
        samples: index of each image in its data set, on the images' device.
        view: which of an image's views, for contrastive training.
        stream: `Stream.EVALUATION` gives views that training never sees.

    Returns:
        Normalised images; outside the image, pixels are 0 before normalisation, erased ones 0 after it.

    Raises:
        ValueError: as many samples as images were not given, or mean and std do not fit the channels.
    """
    if len(samples) != len(images):
        raise ValueError(f"{len(samples)} samples for {len(images)} images; expected the index of each image")
    draws = uniforms(seed, stream, epoch=epoch, samples=samples, view=view, draws=_DRAWS)
    if augmentation.horizontal_flip > 0:
        flipped = draws[:, _FLIP] < augmentation.horizontal_flip
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    pixels = images.float()
    if augmentation.rotation > 0 or augmentation.translate > 0 or augmentation.scale > 0:
        signed = (2 * draws.double() - 1).unbind(1)  # float64, so that rounding cannot tell one batch from another
        pixels = transform(
            pixels,
            rotation=augmentation.rotation * signed[_ROTATION],
            right=augmentation.translate * signed[_RIGHT],
            down=augmentation.translate * signed[_DOWN],
            scale=1 + augmentation.scale * signed[_SCALE],
        )
    normal = normalise(pixels, mean=mean, std=std)
    return _erase(normal, draws, augmentation.erasing) if augmentation.erasing > 0 else normal


def transform(
    pixels: Float32[Tensor, "batch channels height width"],
    *,
    rotation: Float[Tensor, "batch"],
    right: Float[Tensor, "batch"],
    down: Float[Tensor, "batch"],
    scale: Float[Tensor, "batch"],
) -> Float32[Tensor, "batch channels height width"]:
    """Scale about the centre, then rotate about it, then shift: one bilinear look-up, with zeros outside the image.

    Args:
        pixels: the images.
        rotation: degrees, counter-clockwise as displayed, a value an image, as all below, in float64.
        right: shift as a fraction of the width.
        down: shift as a fraction of the height.
        scale: factor of size, above 0.

    Returns:
        The images transformed.
    """
    height, width = pixels.shape[-2:]
    angle = torch.deg2rad(rotation)
    cosine, sine = (angle.cos() / scale).float(), (angle.sin() / scale).float()
    # Where each output pixel comes from, in pixels from the centre. Plain products rather than a matrix product: a
    # matrix product may round differently in batches of different sizes.
    x = _centred(width, pixels) - (right * width).float()[:, None, None]
    y = _centred(height, pixels)[:, None] - (down * height).float()[:, None, None]
    cosine, sine = cosine[:, None, None], sine[:, None, None]
    source_x, source_y = cosine * x - sine * y, sine * x + cosine * y
    grid = torch.stack((source_x * (2 / width), source_y * (2 / height)), dim=-1)
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _erase(
    images: Float32[Tensor, "batch channels height width"], draws: Float32[Tensor, "batch draws"], probability: float
) -> Float32[Tensor, "batch channels height width"]:
    """Zero a rectangle of some images: the first of ten attempts that is smaller than the image, as in timm.

    Source:
        Zhong et al., "Random erasing data augmentation", 2020, algorithm 1.
    """
    height, width = images.shape[-2:]
    sizes = draws[:, 8:].double().unflatten(1, (_ERASE_ATTEMPTS, 2))  # float64: as in `augment`
    areas = height * width * (_ERASE_AREA[0] + (_ERASE_AREA[1] - _ERASE_AREA[0]) * sizes[..., 0])
    low, high = (math.log(aspect) for aspect in _ERASE_ASPECT)
    aspects = (low + (high - low) * sizes[..., 1]).exp()
    tall, wide = (areas * aspects).sqrt().round(), (areas / aspects).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.byte().argmax(1, keepdim=True)
    erased = (draws[:, _ERASE] < probability) & fits.any(1)
    tall, wide = tall.gather(1, first), wide.gather(1, first)
    top = (draws[:, _TOP, None].double() * (height - tall + 1)).floor()
    left = (draws[:, _LEFT, None].double() * (width - wide + 1)).floor()
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    in_rows = (rows >= top) & (rows < top + tall) & erased[:, None]
    in_columns = (columns >= left) & (columns < left + wide)
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0.0)


def _centred(length: int, like: Tensor) -> Float32[Tensor, "length"]:
    """Pixel positions along an axis, measured from its centre."""
    return torch.arange(length, device=like.device, dtype=torch.float32) - (length - 1) / 2
