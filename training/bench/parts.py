"""Measure the parts ``checkpoint`` and ``start``.

``start`` runs from the call of `train_member` to the end of its first step, in a fresh process and in one that has
trained. It includes the first metrics, of the member before its first step, and the first checkpoint.
"""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from training.bench.members import starting, write_cifar
from training.bench.rows import Row
from training.bench.steps import WORDS, Setting, Trainee, describe_member, random_batch
from training.bench.timing import Span, measure, timed
from training.member.checkpoint import CheckpointThread, HostCopy, optimizer_tensors
from training.member.execution import Execution, prepare_process
from training.member.folder import MemberFolder
from training.recipes.plan import plan_members
from training.recipes.recipe import Recipe
from training.recipes.retention import Retention
from training.workspace import Workspace
from vitzoo.ids import MemberId
from vitzoo.records import TimingRecord

_MEMBER = "fine-tuning"
_CHILDREN = 3
_EPOCH = 195  # steps of a child of the paper
_METRICS: dict[str, Any] = {"step": 0, "samples_seen": 0, "learning_rate": 0.0, "train_loss_running": None}
_METRICS |= dict.fromkeys(("val_loss", "val_accuracy", "val_knn_accuracy", "test_knn_accuracy"))
_METRICS |= dict.fromkeys(("train_loss", "train_accuracy", "test_loss", "test_accuracy"), 0.5)
_METRICS |= dict.fromkeys(("weight_norm", "distance_from_start"), 1.0)


def measure_checkpoint(setting: Setting) -> list[Row]:
    """Measure the seconds that saving an epoch beside the next steps adds to them."""
    scale, planned, mode = setting.scale, setting.scale.members[_MEMBER], setting.scale.mode(_MEMBER)
    trainee = Trainee(planned, Execution(compile=mode), device=setting.device)
    batch, epochs = random_batch(planned, device=setting.device), count()
    steps = max(2 * scale.steps, 8)  # long enough for the writing to end
    thread = CheckpointThread()
    with Workspace(setting.folder / "checkpoints", scale.recipe).hold(planned.id) as work:
        folder = MemberFolder(work, planned, keep=Retention("last"), identity={"bench": True})
        folder.begin()

        def train_and_save(steps: int) -> None:
            weights, state = HostCopy(trainee.model.state_dict()), HostCopy(optimizer_tensors(trainee.optimizer))
            epoch = next(epochs)

            def save() -> None:
                timing = TimingRecord(epoch=epoch)
                folder.keep_epoch(weights.wait(), state.wait(), timing=timing, epoch=epoch, **_METRICS)

            thread.submit(save)
            trainee.repeat(batch, steps)

        def saving(steps: int) -> Span:
            span = timed(lambda: train_and_save(steps))
            thread.wait()
            return span

        try:
            ways = {"alone": lambda steps: timed(lambda: trainee.repeat(batch, steps)), "saving": saving}
            timings = measure(ways, steps=steps, rounds=scale.rounds, say=setting.say)
        finally:
            thread.close()
    alone, beside = timings["alone"], timings["saving"]
    added = statistics.median(more - less for more, less in zip(beside.rounds, alone.rounds, strict=True)) * steps
    row = Row(
        part="checkpoint",
        member=describe_member(_MEMBER, planned),
        what=f"{WORDS[mode]}, while a checkpoint is saved",
        step_ms=1000 * beside.step_seconds,
        rounds_ms=tuple(1000 * step for step in beside.rounds),
        spread=beside.spread,
        seconds=added,
        share=added / (alone.step_seconds * _EPOCH),
        note=f"added to the steps of an epoch; fraction of {_EPOCH} steps",
    )
    return [row]


def measure_start(setting: Setting) -> list[Row]:
    """Train a parent to its end and start some of its children, in a new process, and measure their starts."""
    scale, mode = setting.scale, setting.scale.mode(_MEMBER)
    test = 2 * scale.child_images
    data = write_cifar(setting.folder / "cifar", train=scale.child_images, test=test)
    setting.say("starting members in a new process")
    execution = Execution(compile=mode, data={"cifar100": data})
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        first, *others = pool.submit(time_starts, starting(scale), setting.folder / "start", execution).result()
    return [
        Row(
            part="start",
            member=f"fine-tuning, {scale.child_images:,} training images, {test:,} test images",
            what=f"{WORDS[mode]}, {what}",
            seconds=seconds,
            note=f"to the end of the first step; {note}",
        )
        for what, seconds, note in (
            ("first member of a process", first, "after imports; nothing compiled before"),
            ("its children after it", statistics.median(others), f"median of {len(others)}"),
        )
    ]


class _FirstStep(Exception):
    """A child took its first step."""


def time_starts(recipe: Recipe, root: Path, execution: Execution) -> list[float]:
    """Return the seconds to the first step's end of a parent, and of children, which stop there."""
    from torch._inductor.utils import fresh_cache
    from torch.optim.optimizer import register_optimizer_step_post_hook
    from transformers.utils.logging import disable_progress_bar

    from training.member.train import train_member

    disable_progress_bar()
    prepare_process(execution)
    seconds: dict[MemberId, float] = {}
    with fresh_cache():  # nothing is compiled before
        for planned in plan_members(recipe)[: 1 + _CHILDREN]:
            began = time.perf_counter()

            def record_time(*_: object, member: MemberId = planned.id, began: float = began) -> None:
                if member in seconds:
                    return
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds[member] = time.perf_counter() - began
                if not member.is_parent:
                    raise _FirstStep

            hook = register_optimizer_step_post_hook(record_time)
            try:
                train_member(Workspace(root, recipe), planned, execution=execution)
            except _FirstStep:
                pass
            finally:
                hook.remove()
    return list(seconds.values())
