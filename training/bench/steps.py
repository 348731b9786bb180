"""Measure the parts ``steps``, ``data`` and ``timm``: all ways of training a member in turn.

`Trainee` is the trainer's own model, optimizer, step and watch without a zoo. The plain loop has the same network,
batch, precision, loss and optimizer. The part ``timm`` is the plain loop with timm's network. See `measure_rate` for
the speed that ``run --dry-run`` measures.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice, repeat
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn

from training.batch import Batch
from training.bench.members import Scale, photographs, write_cifar, write_photographs
from training.bench.rows import Row, Take, measure
from training.images.autoencoder import example_masks
from training.images.loader import ImageBatches
from training.member.execution import Execution, prepare_process
from training.member.start import add_pretext, build_model, compile_parts, load_inputs
from training.member.step import Stepper, make_optimizer
from training.member.train import Watch
from training.ranks import Ranks
from training.recipes.data import TextData, image_data
from training.recipes.plan import PlannedMember
from vitzoo.models.loading import MemberModel

WORDS = {"none": "eager", "default": "compiled"}
_AHEAD = 2  # batches that each decoding process prepares in advance
_ENOUGH = 0.5  # seconds of a step on a CPU, for `measure_rate`: more images only take longer
_SECONDS = 2.0  # of its timed steps
_FEWEST = 4  # images of the smallest batch of InfoNCE
_Draw = Callable[[int], Iterator[Batch]]  # returns the next batches of a pipeline


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

    @property
    def data(self) -> dict[str, Path]:
        """Return the folder of the children's images by the name of their data set; it is written once."""
        train = self.scale.recipe.children.training.dataset.n_train
        return {"cifar100": write_cifar(self.folder / "cifar", train=train)}


def describe_member(name: str, planned: PlannedMember) -> str:
    """Describe a member: ``contrastive, 96 images in 192 views``."""
    training = planned.training
    views = "" if training.views == 1 else f" in {training.views * training.batch_size} views"
    return f"{name}, {training.batch_size} images{views}"


def measure_member(setting: Setting, *, name: str) -> list[Row]:
    """Measure one of the scale's members, in every way of the setting's parts."""
    scale, planned = setting.scale, setting.scale.members[name]
    label = describe_member(name, planned)
    with _pipeline(setting, planned) if "data" in setting.parts else nullcontext() as draw:
        ways = [(replace(row, member=label), take) for row, take in _ways(setting, name, draw)]
        say = lambda text: setting.say(f"{label}; {text}")  # noqa: E731
        rows = measure(ways, steps=scale.steps, rounds=scale.rounds, say=say)
    images = planned.training.batch_size * planned.training.views
    for number, row in enumerate(rows):
        speed = 1000 * images / (row.step_ms or math.nan)
        rows[number] = replace(row, images_per_second=speed, peak_share=speed * planned.unit_flops / setting.peak)
    if name == "supervised" and "timm" in setting.parts and timm_version() is None:
        rows.append(Row(part="timm", member=label, what="timm", note="not measured: timm cannot be imported here"))
    return rows


def _ways(setting: Setting, name: str, draw: _Draw | None) -> Iterator[tuple[Row, Take]]:
    planned, device, parts = setting.scale.members[name], setting.device, setting.parts
    batch = random_batch(planned, device=device)
    modes: tuple[Literal["none", "default"], ...] = ("none", "default") if device.type == "cuda" else ("none",)
    for mode in modes:
        word, trainee = WORDS[mode], Trainee(planned, Execution(compile=mode), device=device)
        yield Row(part="steps", what=word, ratio_to=None if mode == "none" else "eager"), partial(trainee.repeat, batch)
        if draw is not None:
            take = lambda steps, trainee=trainee: trainee.take(draw(steps))  # noqa: E731
            yield Row(part="data", what=f"{word}, end to end", ratio_to=word), take
        if name == "supervised" and "steps" in parts:
            loop = plain_loop(make_model(planned), planned, batch, mode=mode)
            yield Row(part="steps", what=f"plain loop, {word}", ratio_to=word), loop
        if name == "supervised" and "timm" in parts and timm_version() is not None:
            loop = plain_loop(_timm_model(planned), planned, batch, mode=mode)
            yield Row(part="timm", what=f"timm, {word}", ratio_to=word), loop


def make_model(planned: PlannedMember) -> MemberModel:
    """Build a member's model with numbered classes."""
    return build_model(planned, tuple(map(str, range(planned.head.outputs))))


class Trainee:
    """Takes the training steps of a member.

    Args:
        planned: Member to train.
        execution: Compilation, and parts of each batch.
        device: Device of the training.
    """

    def __init__(self, planned: PlannedMember, execution: Execution, *, device: torch.device):
        self.planned, self.execution, self.device = planned, execution, device
        self.model = add_pretext(planned, make_model(planned)).to(device).train()  # pyright: ignore[reportArgumentType]
        self.optimizer = make_optimizer(planned.training.optimizer, self.model)
        compile_parts(self.model, execution.compile_mode)
        self._stepper = Stepper(self.model, self.optimizer, planned.training, accumulation=execution.accumulation)
        self._step = 0

    def repeat(self, batch: Batch, steps: int) -> float:
        """Take steps on one batch."""
        return self.take(repeat(batch, steps))

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
            units_per_step=self.planned.training.batch_size,
            ranks=Ranks(),
            on_progress=lambda *_: None,
        )
        for batch in batches:
            watch.step(self._stepper(batch, self._step))
            self._step += 1
        return watch.end()[1]


@contextmanager
def _pipeline(setting: Setting, planned: PlannedMember) -> Iterator[_Draw]:
    """Yield a function that returns the next batches of a member's own pipeline, epoch after epoch.

    It drops ready batches first: they were made while nothing trained, which does not happen in an epoch.
    """
    setting.say("writing images")
    if image_data(planned.training.dataset).images.streamed:
        split, workers = photographs(write_photographs(setting.folder / "photographs"), planned), Execution().decoders
    else:
        split, workers = load_inputs(planned, data=setting.data).dataset.train, 0
    with closing(ImageBatches(planned, split, device=setting.device, workers=workers)) as batches:
        endless = (batch for epoch in count() for batch in batches.epoch(epoch))

        def draw(steps: int) -> Iterator[Batch]:
            for _ in islice(endless, _AHEAD * workers):
                pass
            return islice(endless, steps)

        yield draw


def random_batch(planned: PlannedMember, *, device: torch.device) -> Batch:
    """Return a batch of a member's shape: normal pixels and random soft targets, or random tokens of full rows."""
    if isinstance(planned.training.dataset, TextData):
        return _random_rows(planned, planned.training.dataset, device=device)
    training, side = planned.training, planned.architecture.image_size
    generator = torch.Generator(device).manual_seed(0)
    shape = (training.batch_size * training.views, len(planned.architecture.mean), side, side)
    pixels = torch.randn(shape, device=device, generator=generator)
    if training.objective != "supervised":
        return Batch(inputs={"pixel_values": pixels, **example_masks(planned, training.batch_size, device=device)})
    targets = torch.rand((training.batch_size, planned.head.outputs), device=device, generator=generator)
    return Batch(inputs={"pixel_values": pixels}, targets=targets / targets.sum(1, keepdim=True))


def _random_rows(planned: PlannedMember, dataset: TextData, *, device: torch.device) -> Batch:
    training, generator = planned.training, torch.Generator(device).manual_seed(0)
    rows, length, tokens = training.batch_size, dataset.texts.max_length, planned.architecture.vocab_size
    ids = torch.randint(tokens, (rows, length), device=device, generator=generator)
    if training.masking is None:
        targets = torch.rand((rows, planned.head.outputs), device=device, generator=generator)
        return Batch(inputs={"input_ids": ids}, targets=targets / targets.sum(1, keepdim=True))
    places = torch.arange(max(1, int(training.masking.share * length)), device=device).expand(rows, -1)
    return Batch(
        inputs={"input_ids": ids}, targets=ids.gather(1, places), positions=places, masks_per_row=places.shape[1]
    )


def units_per_row(planned: PlannedMember) -> int:
    """Return the views of an image, or the tokens of a row, of `random_batch`."""
    dataset = planned.training.dataset
    return dataset.texts.max_length if isinstance(dataset, TextData) else planned.training.views


def measure_rate(planned: PlannedMember, execution: Execution | None = None) -> float:
    """Return images or tokens a second of training steps on one fixed batch, for `training.recipes.cost.estimate`.

    On a GPU the batch is the recipe's, or the largest half, quarter, ... that fits, compiled like the members. On a CPU
    it has as many images as fill half a second.

    Args:
        planned: Member to train.
        execution: Choices of this machine.

    Returns:
        Images a second of this process' device, each view of an image counted, or tokens.

    Raises:
        TrainingError: The batch cannot be cut into the execution's parts.
    """
    execution = execution or Execution()
    prepare_process(execution)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    most, units = planned.training.batch_size, units_per_row(planned)
    fewest = min(most, _FEWEST * execution.accumulation)

    def step_seconds(trainee: Trainee, rows: int, *, steps: int = 1) -> float:
        sized = replace(planned, training=replace(planned.training, batch_size=rows))
        batch = random_batch(sized, device=device)
        trainee.repeat(batch, 1)  # compiles, and warms up
        seconds = trainee.repeat(batch, 1)
        steps = min(steps, max(1, int(_SECONDS / seconds)))
        return seconds if steps == 1 else trainee.repeat(batch, steps) / steps

    rows = most
    if device.type == "cpu":
        rows, eager = fewest, Trainee(planned, replace(execution, compile="none"), device=device)
        while rows < most and step_seconds(eager, rows) < _ENOUGH:
            rows = min(2 * rows, most)
    trainee = Trainee(planned, execution, device=device)
    while True:
        try:
            return rows * units / step_seconds(trainee, rows, steps=50)
        except torch.OutOfMemoryError:
            if rows == fewest:
                raise
        rows = max(rows // 2, fewest)
        torch.cuda.empty_cache()


def plain_loop(model: nn.Module, planned: PlannedMember, batch: Batch, *, mode: str) -> Take:
    """Return a function that takes a supervised member's steps in a plain PyTorch loop, which never waits.

    Args:
        model: Network that returns logits, or an output with logits.
        planned: Member whose optimizer and precision are used.
        batch: Batch of every step.
        mode: Mode of `torch.compile`; ``none`` for eager.
    """
    device, bf16 = batch.inputs["pixel_values"].device, planned.training.precision == "bf16"
    model = model.to(device).train()
    optimizer = make_optimizer(planned.training.optimizer, model)
    forward = model if mode == "none" else torch.compile(model, mode=mode)
    targets = cast(torch.Tensor, batch.targets)  # this loop has no contrastive loss

    def take(steps: int) -> float:
        _wait(device)
        began = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                output = forward(batch.inputs["pixel_values"])
                loss = nn.functional.cross_entropy(getattr(output, "logits", output), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        _wait(device)
        return time.perf_counter() - began

    return take


def timm_version() -> str | None:
    """Return the version of timm on this machine; None if it cannot be imported."""
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError):  # torchvision for another torch raises RuntimeError
        return None
    return timm.__version__


def _timm_model(planned: PlannedMember) -> nn.Module:
    import timm  # pyright: ignore[reportMissingImports]

    shape = planned.architecture
    return timm.create_model(
        "vit_small_patch16_224",
        num_classes=planned.head.outputs,
        img_size=shape.image_size,
        patch_size=shape.patch_size,
        embed_dim=shape.hidden_size,
        depth=shape.num_hidden_layers,
        num_heads=shape.num_attention_heads,
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
