"""A member whose steps are timed: the trainer's own model, optimizer, step and watch, without a zoo around them.

`Trainee` takes steps on whatever batches it is given: one that is repeated (`random_batch`) or those of its own
pipeline (`Feed`).
"""

from collections.abc import Iterable, Iterator
from itertools import count, islice, repeat
from typing import Literal

import torch

from training.bench.rounds import Span
from training.bench.scale import Mode
from training.images.loader import Batch, Batches
from training.member.start import build_model, compile_backbone
from training.member.step import Stepper, make_optimizer
from training.member.watch import Watch
from training.ranks import Ranks
from training.recipes.plan import PlannedMember
from vitzoo.images import FileSplit, ImageSplit

_AHEAD = 2  # batches that each decoding process makes ahead


class Trainee:
    """A member under training.

    Args:
        planned: The member.
        device: Where.
        mode: Of `torch.compile`.
        accumulation: Parts that each batch is cut into.
        layout: Of images and of the weights of convolutions in memory.
    """

    def __init__(
        self,
        planned: PlannedMember,
        *,
        device: torch.device,
        mode: Mode = "none",
        accumulation: int = 1,
        layout: Literal["contiguous", "channels_last"] = "contiguous",
    ):
        self.planned, self.device = planned, device
        self._format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.model = build_model(planned, tuple(map(str, range(planned.head.outputs))))
        self.model.to(device=device, memory_format=self._format)  # pyright: ignore[reportCallIssue]
        self.optimizer = make_optimizer(planned.training.optimizer, self.model)
        compile_backbone(self.model, mode)
        self.model.train()
        self._stepper = Stepper(self.model, self.optimizer, planned.training, accumulation=accumulation)
        self._step = 0

    def repeat(self, batch: Batch, steps: int) -> Span:
        """Take steps on one batch."""
        batch = Batch(pixel_values=batch.pixel_values.contiguous(memory_format=self._format), targets=batch.targets)
        return Span(seconds=self.take(repeat(batch, steps)))

    def take(self, batches: Iterable[Batch]) -> float:
        """Take a step on each batch, as the trainer does.

        Returns:
            Seconds until the device has done the last one, the time for making the batches included.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        watch = Watch(
            self.device,
            first_step=self._step,
            images_per_step=self.planned.training.batch_size,
            ranks=Ranks(),
            look=lambda *_: None,
        )
        for batch in batches:
            watch.step(self._stepper(batch, self._step))
            self._step += 1
        return watch.end()[1]


class Feed:
    """The batches of a member's own pipeline, epoch after epoch.

    Args:
        planned: The member.
        split: Its training images.
        device: Where batches are wanted.
        workers: Processes that decode images from files.
    """

    def __init__(self, planned: PlannedMember, split: ImageSplit | FileSplit, *, device: torch.device, workers: int):
        architecture = planned.architecture
        self._ahead = _AHEAD * workers if isinstance(split, FileSplit) else 0
        self._batches = Batches(
            split,
            planned.training,
            classes=planned.head.outputs,
            mean=architecture.mean,
            std=architecture.std,
            seeds=planned.seeds,
            image_size=architecture.image_size,
            device=device,
            workers=workers,
        )
        self._endless = self._epochs()

    def close(self) -> None:
        """End the processes that decode images."""
        self._batches.close()

    def train(self, trainee: Trainee, steps: int) -> Span:
        """Take steps on the next batches.

        Those that lie ready are thrown away before: they were made while nobody trained, which no epoch grants.
        """
        for _ in islice(self._endless, self._ahead):
            pass
        before = self._batches.waited_seconds
        seconds = trainee.take(islice(self._endless, steps))
        waited = self._batches.waited_seconds
        return Span(seconds=seconds, waited=waited - before if waited >= before else waited)

    def _epochs(self) -> Iterator[Batch]:
        for epoch in count():
            yield from self._batches.epoch(epoch)


def random_batch(planned: PlannedMember, *, device: torch.device) -> Batch:
    """A batch of a member's shape, of normal pixels and random soft targets."""
    training, side = planned.training, planned.architecture.image_size
    generator = torch.Generator(device).manual_seed(0)
    shape = (training.batch_size * training.views, len(planned.architecture.mean), side, side)
    pixels = torch.randn(shape, device=device, generator=generator)
    if training.objective == "contrastive":
        return Batch(pixel_values=pixels, targets=None)
    targets = torch.rand((training.batch_size, planned.head.outputs), device=device, generator=generator)
    return Batch(pixel_values=pixels, targets=targets / targets.sum(1, keepdim=True))
