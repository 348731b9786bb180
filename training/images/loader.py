"""The batches of an epoch, from images that lie on the device as uint8.

Order, augmentation and mixing are functions of the seeds, the epoch and the step (`random.py`), so a batch is the same
whoever asks for it, and after any resume.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from training.images.augment import augment
from training.images.mixing import draw_mixes, mix
from training.images.random import permutation
from training.recipes.recipe import Seeds
from training.recipes.training import Training

_CHUNK_BYTES = 64 * 2**20  # small images are augmented many steps at once: on a CPU the calls cost more than the work


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """What one step trains on.

    Args:
        pixel_values: Augmented, normalised images; for contrastive training the first views, then the second.
        targets: Soft targets; None for contrastive training.
    """

    pixel_values: Float[Tensor, "views channels height width"]
    targets: Float[Tensor, "batch classes"] | None


def iter_batches(
    images: UInt8[Tensor, "images channels height width"],
    labels: Int64[Tensor, " images"],
    training: Training,
    *,
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seeds: Seeds,
    epoch: int,
) -> Iterator[Batch]:
    """The global batches of one pass over the images, in order.

    Args:
        images: All training images, on the device.
        labels: Their classes, likewise.
        training: How they are augmented, mixed and batched.
        classes: How many classes the targets have.
        mean: Of each channel, with pixels scaled to 0 to 1.
        std: Of each channel, likewise.
        seeds: Of order and augmentation.
        epoch: Finished passes: 0 for the first.

    Yields:
        ``training.steps_per_epoch`` batches.
    """
    size, steps = training.batch_size, training.steps_per_epoch
    order = permutation(seeds.order, epoch=epoch, count=len(images), device=images.device)
    views = 2 if training.objective == "contrastive" else 1
    first_step = epoch * steps
    height, width = images.shape[-2:]
    mixes = draw_mixes(
        training.mixing,
        seed=seeds.augmentation,
        epoch=epoch,
        steps=range(first_step, first_step + steps),
        height=height,
        width=width,
    )
    chunk = max(1, _CHUNK_BYTES // (size * views * images[0].numel() * 4))  # in steps
    for start in range(0, steps, chunk):
        samples = order[start * size : min(start + chunk, steps) * size]
        augmented = [
            augment(
                images[samples],
                training.augmentation,
                mean=mean,
                std=std,
                seed=seeds.augmentation,
                epoch=epoch,
                samples=samples,
                view=view,
            ).split(size)
            for view in range(views)
        ]
        for step, pixels in enumerate(zip(*augmented, strict=True), start=start):
            if training.objective == "contrastive":
                yield Batch(pixel_values=torch.cat(pixels), targets=None)
                continue
            mixed, targets = mix(
                pixels[0],
                labels[order[step * size : (step + 1) * size]],
                mixes[step],
                classes=classes,
                label_smoothing=training.mixing.label_smoothing,
            )
            yield Batch(pixel_values=mixed, targets=targets)
