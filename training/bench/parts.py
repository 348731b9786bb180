"""Measure the parts ``checkpoint``, ``start`` and ``deterministic``.

``start`` runs from the call of `train_member` to the end of its first step, in a fresh process and in one that has
trained. It includes the first metrics, of the member before its first step, and the first checkpoint.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from training.bench.members import Scale, starting, write_cifar
from training.bench.rows import Row
from training.bench.steps import WORDS, Setting, Trainee, describe_member, random_batch
from training.bench.timing import Span, Timing, measure, timed
from training.member.checkpoint import CheckpointThread, HostCopy, optimizer_tensors
from training.member.execution import Execution, prepare_process
from training.member.folder import MemberFolder
from training.recipes.plan import plan_members
from training.recipes.recipe import Recipe
from training.recipes.retention import Retention
from training.workspace import Workspace
from vitzoo.records import TimingRecord

P = ParamSpec("P")
T = TypeVar("T")

_MEMBER = "fine-tuning"
_CHILDREN = 3
_EPOCH = 195  # steps of a child of the paper
_METRICS = dict.fromkeys(("train_loss_running", "val_loss", "val_accuracy", "val_knn_accuracy", "test_knn_accuracy"))
_METRICS |= dict.fromkeys(("train_loss", "train_accuracy", "test_loss", "test_accuracy"), 0.5)
_METRICS |= dict.fromkeys(("weight_norm", "distance_from_start"), 1.0)


def measure_checkpoint(setting: Setting) -> Iterator[Row]:
    """Take steps with and without saving an epoch at the same time.

    Yields:
        One row: the seconds that a checkpoint adds, and their fraction of an epoch of 195 steps.
    """
    scale, planned, mode = setting.scale, setting.scale.members[_MEMBER], setting.scale.mode(_MEMBER)
    trainee = Trainee(planned, device=setting.device, mode=mode)
    batch = random_batch(planned, device=setting.device)
    workspace = Workspace(setting.folder / "checkpoints", scale.recipe)
    label = describe_member(_MEMBER, planned)
    steps = max(2 * scale.steps, 8)  # long enough for the writing to end
    thread, epochs = CheckpointThread(), iter(range(10**6))
    with workspace.hold(planned.id) as work:
        folder = MemberFolder(work, planned, keep=Retention("last"), identity={"bench": True})
        folder.begin()

        def save() -> None:
            weights, state = HostCopy(trainee.model.state_dict()), HostCopy(optimizer_tensors(trainee.optimizer))
            position = {"epoch": next(epochs), "step": 0, "samples_seen": 0, "learning_rate": 0.0}
            timing = TimingRecord(epoch=position["epoch"])
            thread.submit(
                lambda: folder.keep_epoch(weights.wait(), state.wait(), timing=timing, **position, **_METRICS) and None
            )

        def saving(steps: int) -> Span:
            span = timed(lambda: (save(), trainee.repeat(batch, steps)))
            thread.wait()
            return span

        try:
            timings = measure(
                {"alone": lambda steps: timed(lambda: trainee.repeat(batch, steps)), "saving": saving},
                steps=steps,
                rounds=scale.rounds,
                say=lambda text: setting.say(f"{label}; {text}"),
            )
        finally:
            thread.close()
    alone, beside = timings["alone"], timings["saving"]
    added = statistics.median(more - less for more, less in zip(beside.rounds, alone.rounds, strict=True)) * steps
    yield Row(
        part="checkpoint",
        member=label,
        what=f"{WORDS[mode]}, while a checkpoint is saved",
        step_ms=1000 * beside.step_seconds,
        rounds_ms=tuple(1000 * one for one in beside.rounds),
        seconds=added,
        share=added / (alone.step_seconds * _EPOCH),
        note=f"added to the steps of an epoch; fraction of {_EPOCH} steps",
    )


def measure_start(setting: Setting) -> Iterator[Row]:
    """Train a parent to its end and start some of its children, in a new process.

    Yields:
        A row of the parent's start, and one of the children's median start.
    """
    scale, mode = setting.scale, setting.scale.mode(_MEMBER)
    test = 2 * scale.child_images
    data = write_cifar(setting.folder / "cifar", train=scale.child_images, test=test)
    setting.say("starting members in a new process")
    root = setting.folder / "start"
    execution = Execution(compile=mode, data={"cifar100": data})
    first, *others = in_fresh_process(time_starts, starting(scale), root, execution)
    member = f"fine-tuning, {scale.child_images:,} training images, {test:,} test images"
    note = "to the end of the first step"
    yield Row(
        part="start",
        member=member,
        what=f"{WORDS[mode]}, first member of a process",
        seconds=first,
        note=f"{note}, after imports; nothing compiled before",
    )
    yield Row(
        part="start",
        member=member,
        what=f"{WORDS[mode]}, its children after it",
        seconds=statistics.median(others),
        note=f"{note}; median of {len(others)}",
    )


def time_starts(recipe: Recipe, folder: Path, execution: Execution) -> list[float]:
    """Return the seconds to the first step's end of a parent, and of children, which stop there."""
    from transformers.utils.logging import disable_progress_bar

    from training.member.train import train_member

    disable_progress_bar()
    prepare_process(execution)
    parent, *children = plan_members(recipe)
    workspace = Workspace(folder / "zoo", recipe)
    seconds: list[float] = []
    with nothing_compiled(folder / "compiled"):
        for planned in (parent, *children[:_CHILDREN]):
            with _until_first_step(seconds, stop=planned is not parent):
                train_member(workspace, planned, execution=execution)
    return seconds


class _FirstStep(Exception):
    """A member took its first step."""


@contextmanager
def _until_first_step(seconds: list[float], *, stop: bool) -> Iterator[None]:
    """Append the seconds to the end of the first optimizer step, and stop the training there if asked."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    count, began = len(seconds), time.perf_counter()

    def note(*_: object) -> None:
        if len(seconds) > count:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        if stop:
            raise _FirstStep

    hook = register_optimizer_step_post_hook(note)
    try:
        yield
    except _FirstStep:
        pass
    finally:
        hook.remove()


def measure_deterministic(setting: Setting) -> Iterator[Row]:
    """Take steps of one member with and without `Execution.deterministic`, in a new process.

    Yields:
        A row for each mode of compilation; on a CPU one that says that there is nothing to measure.
    """
    planned = setting.scale.members[_MEMBER]
    label = describe_member(_MEMBER, planned)
    if setting.device.type != "cuda":
        yield Row(part="deterministic", member=label, what="deterministic", note="not measured: CPUs always are")
        return
    setting.say(f"{label}; with and without deterministic kernels, in a new process")
    timings = in_fresh_process(time_deterministic, setting.scale)
    images = planned.training.batch_size * planned.training.views
    for word in (name for name in timings if f"{name}, deterministic" in timings):
        equal = timings[f"{word}, deterministic"]
        yield Row(
            part="deterministic",
            member=label,
            what=f"{word}, deterministic",
            images_per_second=images / equal.step_seconds,
            step_ms=1000 * equal.step_seconds,
            rounds_ms=tuple(1000 * one for one in equal.rounds),
            ratio=equal.speed_to(timings[word]),
            ratio_to=word,
        )


def time_deterministic(scale: Scale) -> dict[str, Timing]:
    """Time ``eager``, ``compiled`` and both with ``, deterministic``; only ``eager`` where nothing is compiled."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    planned = scale.members[_MEMBER]
    batch = random_batch(planned, device=device)
    subjects = {}
    for execution in (Execution(), Execution(deterministic=True)):  # Inductor's setting stays on, so it comes last
        for mode in dict.fromkeys(("none", scale.mode(_MEMBER))):
            trainee = Trainee(planned, device=device, mode=mode)

            def take(steps: int, trainee: Trainee = trainee, execution: Execution = execution) -> Span:
                prepare_process(execution)
                return trainee.repeat(batch, steps)

            subjects[WORDS[mode] + (", deterministic" if execution.deterministic else "")] = take
    return measure(subjects, steps=scale.steps, rounds=scale.rounds)


def in_fresh_process(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call a module's function in a new process, which ends afterwards."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **options).result()


@contextmanager
def nothing_compiled(folder: Path) -> Iterator[None]:
    """Have this process and its children compile into an empty folder, like the first time."""
    folder.mkdir(parents=True)
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]
        if before is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before
