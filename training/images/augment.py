"""Augmentation of images one by one, in batches, on the device that holds them.

    uint8 images -> resize, crop -> flip -> one affine map, zeros outside -> colour -> grey -> blur    still bytes
                 -> normalise -> erase a rectangle

What a sample gets is a function of (seed, epoch, sample, view) alone: see `random.py`, and `draws.py` for which number
decides what. Each step is in a file of its own, and as PIL does it; but the bilinear map, which keeps fractions of a
level. At evaluation nothing is random: `vitzoo.models.evaluation`. What mixes the images of a batch with one another is
`mixing.py`; batches are made in `loader.py`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float32, Int, UInt8
from torch import Tensor

from training.images import draws as places
from training.images.blur import blur_some
from training.images.colour import grey, jitter
from training.images.crops import crop_drawn
from training.images.draws import draw_for_changes, draw_for_crop
from training.images.erasing import erase_drawn
from training.images.geometry import transform, transform_nearest
from training.images.random import Stream
from training.recipes.augmentation import Augmentation
from vitzoo.models.evaluation import normalise

# Float32 pixels worked on at once: on a CPU what fits its cache, which is several times faster than whole batches.
_CPU_BYTES, _DEVICE_BYTES = 2**21, 2**29


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
) -> Float32[Tensor, "batch channels new_height new_width"]:
    """Augmented, normalised images: each a function of (seed, epoch, sample, view), whatever batch it is in.

    A whole epoch of small images may be one call, which costs little more than a batch. Erasing is left out where it
    comes after mixing: see `erase`.

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
        Normalised images; outside the image, pixels are 0 before normalisation, erased ones 0 or noise after it.

    Raises:
        ValueError: as many samples as images were not given, mean and std do not fit the channels, the images are too
            small to be cropped or blurred so, or their channels have no colours.
    """
    cropped = crop(images, augmentation, seed=seed, epoch=epoch, samples=samples, view=view, stream=stream)
    return augment_cropped(
        cropped,
        augmentation,
        mean=mean,
        std=std,
        seed=seed,
        epoch=epoch,
        samples=samples,
        view=view,
        stream=stream,
    )


def crop(
    images: UInt8[Tensor, "batch channels height width"],
    augmentation: Augmentation,
    *,
    seed: int,
    epoch: int,
    samples: Int[Tensor, "samples"],
    view: int = 0,
    stream: Stream = Stream.AUGMENTATION,
) -> UInt8[Tensor, "batch channels new_height new_width"]:
    """The first part of `augment`, resize and crop: what a worker does to each image that it decodes.

    Args:
        images: values 0 to 255.
        augmentation: of which ``resize``, ``random_crop`` and ``random_resized_crop`` are done.
        seed: as `augment`'s, and all below.
        epoch: in [0, 2^32).
        samples: index of each image in its data set, on the images' device.
        view: which of an image's views.
        stream: what the numbers are for.

    Returns:
        The images cropped; themselves where nothing is done.

    Raises:
        ValueError: as many samples as images were not given, or the images are smaller than what is cut from them.
    """
    _check_samples(images, samples)
    if (augmentation.resize, augmentation.random_crop, augmentation.random_resized_crop) == (None, None, None):
        return images
    draws = draw_for_crop(augmentation, seed=seed, stream=stream, epoch=epoch, samples=samples, view=view)
    return crop_drawn(images, augmentation, draws)


def augment_cropped(
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
    """The rest of `augment`, from the flip on, of images that `crop` has cropped; arguments and errors are its own."""
    _check_samples(images, samples)
    draws = draw_for_changes(augmentation, seed=seed, stream=stream, epoch=epoch, samples=samples, view=view)
    at_once = max(1, (_CPU_BYTES if images.device.type == "cpu" else _DEVICE_BYTES) // (images[:1].numel() * 4 + 1))
    if len(images) <= at_once:
        return _changed(images, augmentation, draws, mean=mean, std=std)
    done = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    for pixels, numbers, finished in zip(images.split(at_once), draws.split(at_once), done.split(at_once), strict=True):
        finished.copy_(_changed(pixels, augmentation, numbers, mean=mean, std=std))
    return done


def erase(
    images: Float32[Tensor, "batch channels height width"],
    augmentation: Augmentation,
    *,
    seed: int,
    epoch: int,
    samples: Int[Tensor, "samples"],
    view: int = 0,
    stream: Stream = Stream.AUGMENTATION,
) -> Float32[Tensor, "batch channels height width"]:
    """The last part of an augmentation that erases after mixing: what `augment` would do before it.

    Args:
        images: normalised and mixed.
        augmentation: of which ``erasing`` and ``erasing_fill`` are done.
        seed: as `augment`'s, and all below.
        epoch: in [0, 2^32).
        samples: index in its data set of the image that each was before mixing, on the images' device.
        view: which of an image's views.
        stream: what the numbers are for.

    Returns:
        The images, some with a rectangle erased.

    Raises:
        ValueError: as many samples as images were not given.
    """
    _check_samples(images, samples)
    if augmentation.erasing == 0:
        return images
    draws = draw_for_changes(augmentation, seed=seed, stream=stream, epoch=epoch, samples=samples, view=view)
    return erase_drawn(images, draws, augmentation)


def _changed(
    images: UInt8[Tensor, "batch channels height width"],
    augmentation: Augmentation,
    draws: Float32[Tensor, "batch draws"],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Float32[Tensor, "batch channels height width"]:
    """All that is done after the crop."""
    if augmentation.horizontal_flip > 0:
        flipped = draws[:, places.FLIP] < augmentation.horizontal_flip
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    moved = _moved(images, augmentation, draws)
    normal = normalise(_coloured(moved, augmentation, draws), mean=mean, std=std).contiguous()
    if augmentation.erasing_place == "after_mixing" or augmentation.erasing == 0:
        return normal
    return erase_drawn(normal, draws, augmentation)


def _moved(
    images: UInt8[Tensor, "batch channels height width"],
    augmentation: Augmentation,
    draws: Float32[Tensor, "batch draws"],
) -> UInt8[Tensor, "batch channels height width"] | Float32[Tensor, "batch channels height width"]:
    """Turned, shifted and scaled; bytes but after the bilinear map."""
    if augmentation.rotation == augmentation.translate == augmentation.scale == 0:
        return images
    signed = (2 * draws.double() - 1).unbind(1)  # float64, so that rounding cannot tell one batch from another
    rotation, right = augmentation.rotation * signed[places.ROTATION], augmentation.translate * signed[places.RIGHT]
    down, scale = augmentation.translate * signed[places.DOWN], 1 + augmentation.scale * signed[places.SCALE]
    if augmentation.interpolation == "nearest":
        return transform_nearest(images, rotation=rotation, right=right, down=down, scale=scale)
    return transform(images.float(), rotation=rotation, right=right, down=down, scale=scale)


def _coloured(
    pixels: UInt8[Tensor, "batch channels height width"] | Float32[Tensor, "batch channels height width"],
    augmentation: Augmentation,
    draws: Float32[Tensor, "batch draws"],
) -> UInt8[Tensor, "batch channels height width"] | Float32[Tensor, "batch channels height width"]:
    """Coloured, grey and blurred: in bytes, to which what the bilinear map has left is rounded before."""
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
        images = blur_some(images, chosen, sigmas, kernel_size=augmentation.blur.kernel_size)
    return images


def _check_samples(images: Tensor, samples: Int[Tensor, "samples"]) -> None:
    if len(samples) != len(images):
        raise ValueError(f"{len(samples)} samples for {len(images)} images; expected the index of each image")
