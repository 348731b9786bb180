"""Measure the parts ``steps``, ``data``, ``timm`` and ``deterministic``: all ways of training a member in turn.

`Trainee` is the trainer's own model, optimizer, step and watch without a zoo. The way ``timm`` has the same network,
batches, precision, attention, loss and optimizer. Its step follows timm's ``train.py`` but never waits for the device.
"""

from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, islice, repeat
from pathlib import Path

import torch

from training.bench.members import Scale, photographs, small_images, write_photographs
from training.bench.rows import Row
from training.bench.timing import Span, Take, measure, timed
from training.images.loader import Batch
from training.member.execution import Execution, prepare_process
from training.member.start import build_model, compile_backbone, make_batches
from training.member.step import Stepper, make_optimizer
from training.member.train import Watch
from training.ranks import Ranks
from training.recipes.plan import PlannedMember
from vitzoo.images import FileSplit, ImageSplit

WORDS = {"none": "eager", "default": "compiled"}
_AHEAD = 2  # batches that each decoding process prepares in advance
_write_photographs = cache(write_photographs)  # once for all members of a run


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The setting of every part.

    Args:
        scale: Members and amount of work.
        device: Device of the training.
        folder: Folder for files, which is removed afterwards.
        parts: Parts to measure.
        peak: Rate of the device's matrix products, operations a second.
        say: Called with a line on the current work.
    """

    scale: Scale
    device: torch.device
    folder: Path
    parts: Set[str]
    peak: float
    say: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    """A way of training a member: its row's part, and the way that its ratio compares with."""

    name: str
    take: Take
    part: str = "steps"
    base: str | None = None


def describe_member(name: str, planned: PlannedMember) -> str:
    """Describe a member: ``contrastive, 96 images in 192 views``."""
    training = planned.training
    views = "" if training.views == 1 else f" in {training.views * training.batch_size} views"
    return f"{name}, {training.batch_size} images{views}"


def measure_member(setting: Setting, *, name: str) -> list[Row]:
    """Measure one of the scale's members, in every way of the setting's parts.

    The ways are one fixed batch, eager and compiled; the member's own pipeline (``data``); timm's network and step
    (``timm``); the supervised member's other layouts; and `Execution.deterministic`, on a GPU (``deterministic``).
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
    images = planned.training.batch_size * planned.training.views
    rows = []
    for way in ways:
        timing, seconds = timings[way.name], timings[way.name].step_seconds
        compiles = WORDS["default"] in way.name and way.part != "data"
        row = Row(
            part=way.part,
            member=label,
            what=way.name,
            images_per_second=images / seconds,
            step_ms=1000 * seconds,
            rounds_ms=tuple(1000 * step for step in timing.rounds),
            spread=timing.spread,
            peak_share=images * planned.image_flops / seconds / setting.peak,
            ratio=None if way.base is None else timing.speed_to(timings[way.base]),
            ratio_to=way.base,
            waiting=timing.waiting if way.part == "data" else None,
            compile_seconds=max(0.0, timing.first_seconds - seconds) if compiles else None,
        )
        rows.append(row)
    if name == "supervised" and "timm" in setting.parts and timm_version() is None:
        rows.append(Row(part="timm", member=label, what="timm", note="not measured: timm cannot be imported here"))
    return rows


def _ways(setting: Setting, name: str, feed: "Feed | None") -> Iterator[_Way]:
    planned, device, parts = setting.scale.members[name], setting.device, setting.parts
    batch, fastest = random_batch(planned, device=device), setting.scale.mode(name)
    modes = dict.fromkeys(("none", fastest))
    for mode in modes:
        word, trainee = WORDS[mode], Trainee(planned, Execution(compile=mode), device=device)
        yield _Way(name=word, take=partial(trainee.repeat, batch), base=None if mode == "none" else WORDS["none"])
        if feed is not None:
            yield _Way(name=f"{word}, end to end", take=partial(feed.train, trainee), part="data", base=word)
        if name == "supervised" and "timm" in parts and timm_version() is not None:
            yield _Way(name=f"timm, {word}", take=timm_steps(planned, batch, mode=mode), part="timm", base=word)
    if name == "supervised" and "steps" in parts:
        mode = fastest if device.type == "cuda" else "none"  # on a CPU compiling takes too long
        last = Trainee(planned, Execution(compile=mode), device=device, layout=torch.channels_last)
        halves = Trainee(planned, Execution(compile=mode, accumulation=2), device=device)
        for text, trainee in (("channels last", last), ("in 2 parts", halves)):
            yield _Way(name=f"{WORDS[mode]}, {text}", take=partial(trainee.repeat, batch), base=WORDS[mode])
    if name == "fine-tuning" and "deterministic" in parts and device.type == "cuda":
        for mode in modes:  # after these first steps Inductor's setting stays on, so they come last
            trainee, word = Trainee(planned, Execution(compile=mode, deterministic=True), device=device), WORDS[mode]
            take = partial(trainee.repeat, batch)
            yield _Way(name=f"{word}, deterministic", take=take, part="deterministic", base=word)


class Trainee:
    """Takes the training steps of a member.

    Args:
        planned: Member to train.
        execution: Compilation, parts of each batch, deterministic kernels.
        device: Device of the training.
        layout: Memory layout of images and convolution weights.
    """

    def __init__(
        self,
        planned: PlannedMember,
        execution: Execution,
        *,
        device: torch.device,
        layout: torch.memory_format = torch.contiguous_format,
    ):
        self.planned, self.execution, self.device, self._layout = planned, execution, device, layout
        self.model = build_model(planned, tuple(map(str, range(planned.head.outputs))))
        self.model.to(device=device, memory_format=layout)  # pyright: ignore[reportCallIssue]
        self.optimizer = make_optimizer(planned.training.optimizer, self.model)
        compile_backbone(self.model, execution.compile_mode)
        self.model.train()
        self._stepper = Stepper(self.model, self.optimizer, planned.training, accumulation=execution.accumulation)
        self._step = 0

    def repeat(self, batch: Batch, steps: int) -> Span:
        """Take steps on one batch."""
        batch = Batch(pixel_values=batch.pixel_values.contiguous(memory_format=self._layout), targets=batch.targets)
        return Span(self.take(repeat(batch, steps)))

    def take(self, batches: Iterable[Batch]) -> float:
        """Take a step on each batch, like the trainer.

        Returns:
            Seconds until the device has done the last step, including the time to make the batches.
        """
        prepare_process(self.execution)
        _wait(self.device)
        watch = Watch(
            self.device,
            first_step=self._step,
            images_per_step=self.planned.training.batch_size,
            ranks=Ranks(),
            on_progress=lambda *_: None,
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
    """

    def __init__(self, planned: PlannedMember, split: ImageSplit | FileSplit, *, device: torch.device):
        workers = Execution().decoders if isinstance(split, FileSplit) else 0
        self._ready = _AHEAD * workers
        self._batches = make_batches(planned, split, device=device, workers=workers)
        self._endless = (batch for epoch in count() for batch in self._batches.epoch(epoch))

    def close(self) -> None:
        """Stop the processes that decode images."""
        self._batches.close()

    def train(self, trainee: Trainee, steps: int) -> Span:
        """Take steps on the next batches.

        Ready batches are dropped first: they were made while nothing trained, which does not happen in an epoch.
        """
        for _ in islice(self._endless, self._ready):
            pass
        before = self._batches.waited_seconds
        seconds = trainee.take(islice(self._endless, steps))
        waited = self._batches.waited_seconds
        return Span(seconds, waited - before if waited >= before else waited)


def _feed(setting: Setting, planned: PlannedMember) -> Feed:
    if not planned.training.dataset.images.streamed:
        return Feed(planned, small_images(planned), device=setting.device)
    setting.say("writing JPEGs")
    scale = setting.scale
    files = _write_photographs(setting.folder / "photographs", count=scale.photographs, size=scale.photograph)
    return Feed(planned, photographs(files, planned), device=setting.device)


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


def timm_steps(planned: PlannedMember, batch: Batch, *, mode: str) -> Take:
    """Return a function that takes steps on a supervised member's batch with timm's network, loss and optimizer."""
    import timm  # pyright: ignore[reportMissingImports]
    from timm.loss import SoftTargetCrossEntropy  # pyright: ignore[reportMissingImports]
    from timm.optim import create_optimizer_v2  # pyright: ignore[reportMissingImports]

    shape, recipe, device = planned.architecture, planned.training.optimizer, batch.pixel_values.device
    model = timm.create_model(
        "vit_small_patch16_224",
        num_classes=planned.head.outputs,
        img_size=shape.image_size,
        patch_size=shape.patch_size,
        embed_dim=shape.hidden_size,
        depth=shape.num_hidden_layers,
        num_heads=shape.num_attention_heads,
    )
    model = model.to(device).train()
    optimizer = create_optimizer_v2(
        model, opt=recipe.name, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    loss_of, bf16 = SoftTargetCrossEntropy().to(device), planned.training.precision == "bf16"
    forward = model if mode == "none" else torch.compile(model, mode=mode)

    def train(steps: int) -> None:
        for _ in range(steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = loss_of(forward(batch.pixel_values), batch.targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        _wait(device)

    def take(steps: int) -> Span:
        _wait(device)
        return timed(lambda: train(steps))

    return take


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
