"""Parts ``steps``, ``data`` and ``timm``: the training steps of one member, all ways of taking them in turn."""

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from training.bench.floor import peak_rate
from training.bench.images import photographs, small_images, write_photographs
from training.bench.peers import TimmTrainee, timm_version
from training.bench.rounds import Subject, Timing, measure
from training.bench.scale import Mode, Scale
from training.bench.table import Row
from training.bench.trainee import Feed, Trainee, random_batch
from training.images.loader import Batch
from training.member.execution import Execution
from training.recipes.plan import PlannedMember

_files = cache(write_photographs)  # once for all members of a run
WORDS: dict[Mode, str] = {"none": "eager", "default": "compiled"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What every part is measured in.

    Args:
        scale: What is trained, and how much of it.
        device: Where.
        folder: For what has to lie on disk; removed afterwards.
        parts: That were asked for.
        say: Told what is being done.
    """

    scale: Scale
    device: torch.device
    folder: Path
    parts: frozenset[str]
    say: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    """A way of training a member: its row is of a part, and a ratio to another way's."""

    subject: Subject
    part: str
    base: str | None = None
    compiled: bool = False  # for the first time, by this way


def describe_member(name: str, planned: PlannedMember) -> str:
    """``contrastive, 96 images in 192 views``."""
    training = planned.training
    views = "" if training.views == 1 else f" in {training.views * training.batch_size} views"
    return f"{name}, {training.batch_size} images{views}"


def measure_member(setting: Setting, name: str) -> Iterator[Row]:
    """Measure one of the scale's members.

    Args:
        setting: Of the whole benchmark.
        name: The member's.

    Yields:
        For ``steps``, one fixed batch: eager, compiled, and of the supervised member its variants; for ``data``, the
        member's own pipeline; for ``timm``, the supervised member's network and step by timm.
    """
    scale, planned = setting.scale, setting.scale.members[name]
    label = describe_member(name, planned)
    with closing(_feed(setting, planned)) if "data" in setting.parts else nullcontext() as feed:
        ways = list(_ways(setting, name, feed))
        timings = measure(
            [way.subject for way in ways],
            steps=scale.steps,
            rounds=scale.rounds,
            say=lambda text: setting.say(f"{label}; {text}"),
        )
    for way in ways:
        yield _row(way, label, planned, timings, peak=peak_rate(setting.device, planned.training.precision))
    if name == "supervised" and "timm" in setting.parts and timm_version() is None:
        yield Row(part="timm", member=label, what="timm", note="not measured: timm cannot be imported here")


def _ways(setting: Setting, name: str, feed: Feed | None) -> Iterator[_Way]:
    planned, device = setting.scale.members[name], setting.device
    batch = random_batch(planned, device=device)
    for mode in dict.fromkeys(("none", setting.scale.mode(name))):
        word, compiled = WORDS[mode], mode != "none"
        trainee = Trainee(planned, device=device, mode=mode)
        base = WORDS["none"] if compiled else None
        yield _Way(subject=_repeating(word, trainee, batch), part="steps", base=base, compiled=compiled)
        if feed is not None:
            yield _Way(subject=_fed(f"{word}, end to end", trainee, feed), part="data", base=word)
        if name == "supervised" and "timm" in setting.parts and timm_version() is not None:
            peer = TimmTrainee(planned, device=device, mode=mode)
            yield _Way(subject=_repeating(f"timm, {word}", peer, batch), part="timm", base=word, compiled=compiled)
    if name == "supervised" and "steps" in setting.parts:
        mode = setting.scale.mode(name) if device.type == "cuda" else "none"  # on a CPU compiling takes too long
        word, compiled = WORDS[mode], mode != "none"
        last = Trainee(planned, device=device, mode=mode, layout="channels_last")
        parts = Trainee(planned, device=device, mode=mode, accumulation=2)
        for text, trainee in (("channels last", last), ("in 2 parts", parts)):
            subject = _repeating(f"{word}, {text}", trainee, batch)
            yield _Way(subject=subject, part="steps", base=word, compiled=compiled)


def _repeating(name: str, trainee: Trainee | TimmTrainee, batch: Batch) -> Subject:
    return Subject(name=name, take=lambda steps: trainee.repeat(batch, steps))


def _fed(name: str, trainee: Trainee, feed: Feed) -> Subject:
    return Subject(name=name, take=lambda steps: feed.train(trainee, steps))


def _feed(setting: Setting, planned: PlannedMember) -> Feed:
    scale = setting.scale
    if not planned.training.dataset.images.streamed:
        return Feed(planned, small_images(planned), device=setting.device, workers=0)
    setting.say("writing JPEGs")
    files = _files(setting.folder / "photographs", count=scale.photographs, size=scale.photograph)
    return Feed(planned, photographs(files, planned), device=setting.device, workers=Execution().decoders)


def _row(way: _Way, label: str, planned: PlannedMember, timings: dict[str, Timing], *, peak: float) -> Row:
    training, timing = planned.training, timings[way.subject.name]
    images, seconds = training.batch_size * training.views, timing.step_seconds
    return Row(
        part=way.part,
        member=label,
        what=way.subject.name,
        images_per_second=images / seconds,
        step_ms=1000 * seconds,
        rounds_ms=tuple(1000 * one for one in timing.rounds),
        peak_share=images * planned.image_flops / seconds / peak,
        ratio=None if way.base is None else timing.speed_to(timings[way.base]),
        ratio_to=way.base,
        waiting=sum(timing.waiting) / len(timing.waiting) if way.part == "data" else None,
        compile_seconds=timing.compile_seconds if way.compiled else None,
    )
