"""Measure the parts ``steps``, ``data`` and ``timm``: the training steps of one member, all ways in turn.

`Trainee` is the trainer's own model, optimizer, step and watch without a zoo. `TimmTrainee` is timm's: the same
network, batches, precision, attention, loss and optimizer. Its step follows timm's ``train.py`` but never waits for the
device.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import count, islice, repeat
from pathlib import Path
from typing import Literal

import torch
from torch.utils.benchmark import Timer

from training.bench.members import Mode, Scale, photographs, small_images, write_photographs
from training.bench.rows import Row
from training.bench.timing import Span, Timing, measure
from training.images.loader import Batch, Batches
from training.member.device import matrix_product_rate
from training.member.execution import Execution
from training.member.start import build_model, compile_backbone
from training.member.step import Stepper, make_optimizer
from training.member.train import Watch
from training.ranks import Ranks
from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError
from vitzoo.images import FileSplit, ImageSplit

WORDS: dict[Mode, str] = {"none": "eager", "default": "compiled"}
_AHEAD = 2  # batches that each decoding process prepares in advance
_SIDE = 1024  # of the matrix product on a CPU
_write_photographs = cache(write_photographs)  # once for all members of a run


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The setting of every part.

    Args:
        scale: Members and amount of work.
        device: Device of the training.
        folder: Folder for files, which is removed afterwards.
        parts: Parts to measure.
        say: Called with a line on the current work.
    """

    scale: Scale
    device: torch.device
    folder: Path
    parts: frozenset[str]
    say: Callable[[str], None] = lambda _: None


def describe_member(name: str, planned: PlannedMember) -> str:
    """Describe a member: ``contrastive, 96 images in 192 views``."""
    training = planned.training
    views = "" if training.views == 1 else f" in {training.views * training.batch_size} views"
    return f"{name}, {training.batch_size} images{views}"


def measure_member(setting: Setting, name: str) -> Iterator[Row]:
    """Measure one of the scale's members.

    Yields:
        For ``steps``, one fixed batch: eager, compiled, and the supervised member's variants. For ``data``, the
        member's own pipeline. For ``timm``, the supervised member's network and step by timm.
    """
    scale, planned = setting.scale, setting.scale.members[name]
    label = describe_member(name, planned)
    with closing(_feed(setting, planned)) if "data" in setting.parts else nullcontext() as feed:
        ways = list(_ways(setting, name, feed))
        timings = measure(
            {way.name: way.take for way in ways},
            steps=scale.steps,
            rounds=scale.rounds,
            say=lambda text: setting.say(f"{label}; {text}"),
        )
    for way in ways:
        yield _row(way, label, planned, timings, peak=peak_rate(setting.device, planned.training.precision))
    if name == "supervised" and "timm" in setting.parts and timm_version() is None:
        yield Row(part="timm", member=label, what="timm", note="not measured: timm cannot be imported here")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    """A way of training a member: its row's part, and the way that its ratio compares with."""

    name: str
    take: Callable[[int], Span]
    part: str
    base: str | None = None
    compiled: bool = False  # whether its first step compiles


def _ways(setting: Setting, name: str, feed: "Feed | None") -> Iterator[_Way]:
    planned, device, fastest = setting.scale.members[name], setting.device, setting.scale.mode(name)
    batch = random_batch(planned, device=device)

    def repeating(trainee: "Trainee | TimmTrainee") -> Callable[[int], Span]:
        return lambda steps: trainee.repeat(batch, steps)

    for mode in dict.fromkeys(("none", fastest)):
        word, compiled = WORDS[mode], mode != "none"
        trainee = Trainee(planned, device=device, mode=mode)
        base = WORDS["none"] if compiled else None
        yield _Way(name=word, take=repeating(trainee), part="steps", base=base, compiled=compiled)
        if feed is not None:
            take = lambda steps, trainee=trainee: feed.train(trainee, steps)  # noqa: E731
            yield _Way(name=f"{word}, end to end", take=take, part="data", base=word)
        if name == "supervised" and "timm" in setting.parts and timm_version() is not None:
            take = repeating(TimmTrainee(planned, device=device, mode=mode))
            yield _Way(name=f"timm, {word}", take=take, part="timm", base=word, compiled=compiled)
    if name == "supervised" and "steps" in setting.parts:
        mode = fastest if device.type == "cuda" else "none"  # on a CPU compiling takes too long
        word, compiled = WORDS[mode], mode != "none"
        last = Trainee(planned, device=device, mode=mode, layout="channels_last")
        parts = Trainee(planned, device=device, mode=mode, accumulation=2)
        for text, trainee in (("channels last", last), ("in 2 parts", parts)):
            yield _Way(name=f"{word}, {text}", take=repeating(trainee), part="steps", base=word, compiled=compiled)


def _feed(setting: Setting, planned: PlannedMember) -> "Feed":
    scale = setting.scale
    if not planned.training.dataset.images.streamed:
        return Feed(planned, small_images(planned), device=setting.device, workers=0)
    setting.say("writing JPEGs")
    files = _write_photographs(setting.folder / "photographs", count=scale.photographs, size=scale.photograph)
    return Feed(planned, photographs(files, planned), device=setting.device, workers=Execution().decoders)


def _row(way: _Way, label: str, planned: PlannedMember, timings: dict[str, Timing], *, peak: float) -> Row:
    training, timing = planned.training, timings[way.name]
    images, seconds = training.batch_size * training.views, timing.step_seconds
    return Row(
        part=way.part,
        member=label,
        what=way.name,
        images_per_second=images / seconds,
        step_ms=1000 * seconds,
        rounds_ms=tuple(1000 * one for one in timing.rounds),
        peak_share=images * planned.image_flops / seconds / peak,
        ratio=None if way.base is None else timing.speed_to(timings[way.base]),
        ratio_to=way.base,
        waiting=sum(timing.waiting) / len(timing.waiting) if way.part == "data" else None,
        compile_seconds=timing.compile_seconds if way.compiled else None,
    )


class Trainee:
    """A member that takes training steps.

    Args:
        planned: Member to train.
        device: Device of the training.
        mode: Mode of `torch.compile`.
        accumulation: Parts of each batch.
        layout: Memory layout of images and convolution weights.
    """

    def __init__(
        self,
        planned: PlannedMember,
        *,
        device: torch.device,
        mode: str = "none",
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
        """Take a step on each batch, like the trainer.

        Returns:
            Seconds until the device has done the last step, including the time to make the batches.
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
        planned: Member of the pipeline.
        split: Training images of the member.
        device: Device of the batches.
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
        """Stop the processes that decode images."""
        self._batches.close()

    def train(self, trainee: Trainee, steps: int) -> Span:
        """Take steps on the next batches.

        Ready batches are dropped first: they were made while nothing trained, which does not happen in an epoch.
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
    """Return a batch of a member's shape, with normal pixels and random soft targets."""
    training, side = planned.training, planned.architecture.image_size
    generator = torch.Generator(device).manual_seed(0)
    shape = (training.batch_size * training.views, len(planned.architecture.mean), side, side)
    pixels = torch.randn(shape, device=device, generator=generator)
    if training.objective == "contrastive":
        return Batch(pixel_values=pixels, targets=None)
    targets = torch.rand((training.batch_size, planned.head.outputs), device=device, generator=generator)
    return Batch(pixel_values=pixels, targets=targets / targets.sum(1, keepdim=True))


def timm_version() -> str | None:
    """Return the version of timm on this machine; None if it cannot be imported."""
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError):  # torchvision for another torch raises RuntimeError
        return None
    return timm.__version__


class TimmTrainee:
    """A member's network and step by timm.

    Args:
        planned: Supervised member with a linear head.
        device: Device of the training.
        mode: Mode of `torch.compile`.
    """

    def __init__(self, planned: PlannedMember, *, device: torch.device, mode: Mode):
        import timm  # pyright: ignore[reportMissingImports]
        from timm.loss import SoftTargetCrossEntropy  # pyright: ignore[reportMissingImports]
        from timm.optim import create_optimizer_v2  # pyright: ignore[reportMissingImports]

        shape, optimizer = planned.architecture, planned.training.optimizer
        model = timm.create_model(
            "vit_small_patch16_224",
            num_classes=planned.head.outputs,
            img_size=shape.image_size,
            patch_size=shape.patch_size,
            embed_dim=shape.hidden_size,
            depth=shape.num_hidden_layers,
            num_heads=shape.num_attention_heads,
        ).to(device)
        self._optimizer = create_optimizer_v2(
            model, opt=optimizer.name, lr=optimizer.learning_rate, weight_decay=optimizer.weight_decay, fused=True
        )
        self._loss, self._device = SoftTargetCrossEntropy().to(device), device
        self._bf16 = planned.training.precision == "bf16"
        self.model = model.train()
        self._forward = self.model if mode == "none" else torch.compile(self.model, mode=mode)

    def repeat(self, batch: Batch, steps: int) -> Span:
        """Take steps on one batch."""
        self._wait()
        began = time.perf_counter()
        for pixels, targets in repeat((batch.pixel_values, batch.targets), steps):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                loss = self._loss(self._forward(pixels), targets)
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
        self._wait()
        return Span(seconds=time.perf_counter() - began)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


@cache
def peak_rate(device: torch.device, precision: Literal["fp32", "bf16"]) -> float:
    """Measure the operations a second of a square matrix product: of side 8192 on a GPU, 1024 on a CPU."""
    if device.type != "cuda":
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        left, right = (torch.randn(_SIDE, _SIDE).to(dtype) for _ in range(2))
        timer = Timer("left @ right", globals={"left": left, "right": right}, num_threads=torch.get_num_threads())
        return 2 * _SIDE**3 / min(timer.timeit(1).mean for _ in range(10))
    rate = matrix_product_rate(precision)
    if rate is None:
        raise TrainingError("The GPU's memory is full before the measurement", fix="Stop other processes on the card.")
    return rate
