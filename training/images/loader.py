"""Make the batches of a member's training from uint8 images on the device, or from images streamed from disk.

Order, augmentation and mixing are functions of the seeds, the epoch and the step (see `training.random`). So a batch is
the same on any rank and after any resume. Each rank makes its own rows. Mixing pairs rows of the global batch, so the
ranks gather them.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from training.batch import Batch
from training.images.augment import augment_cropped
from training.images.autoencoder import draw_visible
from training.images.crops import crop
from training.images.draws import draw_for_changes
from training.images.erasing import erase
from training.images.mixing import Mix, draw_mixes, mix, soft_targets
from training.images.streaming import Crops, CropStream
from training.random import Draw, Stream, permutation
from training.ranks import Ranks
from training.recipes.plan import PlannedMember
from vitzoo.images import FileSplit, ImageSplit

# Small images of many steps are augmented at once: on a CPU the calls cost more than the work.
_CHUNK_BYTES = 64 * 2**20


class ImageBatches:
    """All batches of a member that trains on images.

    Args:
        planned: Member to train.
        split: Training images.
        device: Device of the batches.
        ranks: Processes that train together.
        workers: Processes that decode streamed images.
        stream: `Stream.EVALUATION` gives views that training never draws.
    """

    def __init__(
        self,
        planned: PlannedMember,
        split: ImageSplit | FileSplit,
        *,
        device: torch.device,
        ranks: Ranks | None = None,
        workers: int = 0,
        stream: Stream = Stream.AUGMENTATION,
    ):
        self._planned, self._training, self._size = planned, planned.training, planned.architecture.image_size
        self._device, self._ranks, self._stream = device, ranks or Ranks(), stream
        self._rows = self._ranks.rows(planned.training.batch_size)
        self._labels = torch.from_numpy(split.labels).to(device)
        self._images: Tensor | CropStream = (
            torch.from_numpy(split.images).to(device)
            if isinstance(split, ImageSplit)
            else CropStream(Crops(planned, split, stream=stream), workers=workers)
        )

    def close(self) -> None:
        """Stop the processes that decode streamed images."""
        if isinstance(self._images, CropStream):
            self._images.close()

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's rows of each batch of a pass, in order, after ``epoch`` finished passes."""
        training, rows, seeds = self._training, self._rows, self._planned.seeds
        order = permutation(seeds.order, epoch=epoch, count=len(self._labels), device=self._device)
        steps = order[: training.steps_per_epoch * training.batch_size].unflatten(0, (-1, training.batch_size))
        first = epoch * training.steps_per_epoch
        mixes = draw_mixes(
            training.mixing,
            seed=seeds.augmentation,
            epoch=epoch,
            steps=range(first, first + training.steps_per_epoch),
            height=self._size,
            width=self._size,
        )
        own = steps[:, rows.start : rows.stop]
        for start, views in self._cropped(epoch, own):
            samples = own[start : start + len(views[0]) // len(rows)]
            augmented = [
                augment_cropped(
                    images,
                    training.augmentation,
                    self._draw(epoch, samples.flatten(), view=view),
                    mean=self._planned.architecture.mean,
                    std=self._planned.architecture.std,
                ).split(len(rows))
                for view, images in enumerate(views)
            ]
            for step, pixels in enumerate(zip(*augmented, strict=True), start=start):
                if training.objective == "supervised":
                    yield self._mixed(pixels[0], steps[step], mixes[step], epoch=epoch)
                    continue
                inputs = {"pixel_values": torch.cat(pixels)}
                if training.objective == "autoencoding":
                    inputs["visible"] = draw_visible(self._planned, self._mask_draw(epoch, own[step]))
                yield Batch(inputs=inputs)

    def _cropped(self, epoch: int, samples: Int64[Tensor, "steps rows"]) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield the cropped views of several steps at once, with the first step's number."""
        views = self._training.views
        if isinstance(self._images, CropStream):
            for step, images in enumerate(self._images.epoch(epoch, samples)):
                yield step, list(images.to(self._device, non_blocking=True))
            return
        bytes_per_step = len(self._rows) * views * self._images.shape[1] * self._size**2 * 4
        chunk = max(1, _CHUNK_BYTES // bytes_per_step)
        for start in range(0, len(samples), chunk):
            chosen = samples[start : start + chunk].flatten()
            images, augmentation = self._images[chosen], self._training.augmentation
            yield start, [crop(images, augmentation, self._draw(epoch, chosen, view=view)) for view in range(views)]

    def _draw(self, epoch: int, samples: Int64[Tensor, "samples"], *, view: int = 0) -> Draw:
        return Draw(seed=self._planned.seeds.augmentation, epoch=epoch, samples=samples, view=view, stream=self._stream)

    def _mask_draw(self, epoch: int, samples: Int64[Tensor, "samples"]) -> Draw:
        """Return the place of the numbers that mask patches; metrics have masks that training never draws."""
        stream = Stream.MASKING if self._stream == Stream.AUGMENTATION else self._stream
        return replace(self._draw(epoch, samples, view=self._training.views), stream=stream)

    def _mixed(self, pixels: Tensor, samples: Int64[Tensor, "batch"], drawn: Mix, *, epoch: int) -> Batch:
        """Return this rank's rows of the mixed global batch."""
        own, augmentation = samples[self._rows.start : self._rows.stop], self._training.augmentation
        options: Any = {
            "classes": self._planned.head.outputs,
            "label_smoothing": self._training.mixing.label_smoothing,
        }
        if drawn.kind == "none":
            mixed, targets = pixels, soft_targets(self._labels[own], **options)
        else:
            gathered = self._ranks.gather(pixels, len(samples))
            mixed, targets = mix(gathered, self._labels[samples], drawn, rows=self._rows, **options)
        if augmentation.erasing > 0 and augmentation.erasing_place == "after_mixing":
            mixed = erase(mixed, draw_for_changes(augmentation, self._draw(epoch, own)), augmentation)
        return Batch(inputs={"pixel_values": mixed}, targets=targets)
