"""Augment images one by one, in batches, on their device.

    uint8 images -> resize, crop -> flip -> one affine map, zeros outside -> colour -> grey -> blur    still bytes
                 -> normalise -> erase a rectangle

The result for a sample is a function of its `training.random.Draw` alone. Each step has its own file and gives PIL's
bytes, except that the bilinear map keeps fractions of a level. See `draws.py` for the use of each random number,
`loader.py` for batches, and `vitzoo.models.evaluation` for evaluation, where nothing is random.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from training.images import draws as places
from training.images.blur import gaussian_blur
from training.images.colour import grey, jitter
from training.images.erasing import erase
from training.images.geometry import transform, transform_nearest
from training.random import Draw
from training.recipes.augmentation import Augmentation
from vitzoo.models.evaluation import normalise

# Float32 pixels worked on at once. On a CPU they fit its cache, which is several times faster than whole batches.
_CPU_BYTES, _DEVICE_BYTES = 2**21, 2**29


def augment_cropped(
    images: UInt8[Tensor, "batch channels height width"],
    augmentation: Augmentation,
    draw: Draw,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Float32[Tensor, "batch channels height width"]:
    """Make every change after the crop to images that `training.images.crops.crop` has cropped.

    Each result is a function of its place in the draw, in any batch. A whole epoch of small images may be one call,
    which costs little more than a batch. See `loader.py` for erasing after mixing.

    Args:
        images: Values 0 to 255, in RGB where colours change.
        augmentation: Changes to make.
        draw: Place of the random numbers.
        mean: Mean of each channel, for pixels scaled to [0, 1].
        std: Standard deviation of each channel, likewise.

    Returns:
        Normalised images. Pixels outside the image are 0 before normalisation, erased ones 0 or noise after it.
    """
    draws = places.draw_for_changes(augmentation, draw)
    at_once = max(1, (_CPU_BYTES if images.device.type == "cpu" else _DEVICE_BYTES) // (images[:1].numel() * 4 + 1))
    if len(images) <= at_once:
        return _change(images, augmentation, draws, mean=mean, std=std)
    changed = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    for pixels, numbers, target in zip(*(x.split(at_once) for x in (images, draws, changed)), strict=True):
        target.copy_(_change(pixels, augmentation, numbers, mean=mean, std=std))
    return changed


def _change(
    images: UInt8[Tensor, "batch channels height width"],
    augmentation: Augmentation,
    draws: Float32[Tensor, "batch draws"],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Float32[Tensor, "batch channels height width"]:
    """Make every change of some images."""
    if augmentation.horizontal_flip > 0:
        flipped = draws[:, places.FLIP] < augmentation.horizontal_flip
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    moved = _move(images, augmentation, draws)
    normal = normalise(_colour(moved, augmentation, draws), mean=mean, std=std).contiguous()
    if augmentation.erasing_place == "after_mixing" or augmentation.erasing == 0:
        return normal
    return erase(normal, draws, augmentation)


def _move(
    images: UInt8[Tensor, "batch channels height width"],
    augmentation: Augmentation,
    draws: Float32[Tensor, "batch draws"],
) -> UInt8[Tensor, "batch channels height width"] | Float32[Tensor, "batch channels height width"]:
    """Turn, shift and scale images. Only the bilinear map returns float32."""
    if augmentation.rotation == augmentation.translate == augmentation.scale == 0:
        return images
    signed = (2 * draws.double() - 1).unbind(1)  # float64, so that rounding cannot tell one batch from another
    rotation, right = augmentation.rotation * signed[places.ROTATION], augmentation.translate * signed[places.RIGHT]
    down, scale = augmentation.translate * signed[places.DOWN], 1 + augmentation.scale * signed[places.SCALE]
    if augmentation.interpolation == "nearest":
        return transform_nearest(images, rotation=rotation, right=right, down=down, scale=scale)
    return transform(images.float(), rotation=rotation, right=right, down=down, scale=scale)


def _colour(
    pixels: UInt8[Tensor, "batch channels height width"] | Float32[Tensor, "batch channels height width"],
    augmentation: Augmentation,
    draws: Float32[Tensor, "batch draws"],
) -> UInt8[Tensor, "batch channels height width"] | Float32[Tensor, "batch channels height width"]:
    """Colour, grey and blur images in bytes, after rounding the bilinear map's fractions."""
    if augmentation.color_jitter is None and augmentation.grayscale == 0 and augmentation.blur is None:
        return pixels
    images = pixels if pixels.dtype == torch.uint8 else (pixels + 0.5).to(torch.uint8)
    if augmentation.color_jitter is not None:
        images = jitter(images, augmentation.color_jitter, draws)
    if augmentation.grayscale > 0:
        images = grey(images, draws[:, places.GRAYSCALE] < augmentation.grayscale)
    if augmentation.blur is not None:
        low, high = augmentation.blur.sigma
        sigmas = low + (high - low) * draws[:, places.SIGMA].double()
        chosen = draws[:, places.BLUR] < augmentation.blur.probability
        blurred = gaussian_blur(images, sigmas, kernel_size=augmentation.blur.kernel_size)
        images = torch.where(chosen[:, None, None, None], blurred, images)
    return images
