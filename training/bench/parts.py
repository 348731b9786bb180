"""Measure the parts ``checkpoint`` and ``start``.

``start`` runs from the call of `train_member` to the end of its first step, in a fresh process and in one that has
trained. It includes the first metrics, of the member before its first step, and the first checkpoint.
"""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from training.bench.members import starting
from training.bench.rows import Row, measure
from training.bench.steps import Setting, Trainee, describe_member, random_batch
from training.member.checkpoint import CheckpointThread, HostCopy, optimizer_tensors
from training.member.execution import Execution, prepare_process
from training.member.folder import MemberFolder
from training.recipes.plan import plan_members
from training.recipes.recipe import Recipe
from training.recipes.retention import Retention
from training.workspace import Workspace
from vitzoo.ids import MemberId
from vitzoo.records import EpochRecord, TimingRecord

_MEMBER = "fine-tuning"
_CHILDREN = 3
_EPOCH = 195  # steps of a child of the paper


def measure_checkpoint(setting: Setting) -> list[Row]:
    """Measure the seconds that saving an epoch beside the next steps adds to them."""
    scale, planned = setting.scale, setting.scale.members[_MEMBER]
    trainee = Trainee(planned, Execution(), device=setting.device)
    batch, epochs = random_batch(planned, device=setting.device), count()
    steps = max(2 * scale.steps, 8)  # long enough for the writing to end
    given = ("epoch", "weights_id", "backbone_id", "extra")
    metrics: dict[str, Any] = {name: 0 for name in EpochRecord.__struct_fields__ if name not in given}
    with (
        closing(CheckpointThread()) as thread,
        Workspace(setting.folder / "checkpoints", scale.recipe).hold(planned.id) as work,
    ):
        folder = MemberFolder(work, planned, keep=Retention("last"), identity={"bench": True})
        folder.begin()

        def save(weights: HostCopy, state: HostCopy, epoch: int) -> None:
            folder.keep_epoch(weights.wait(), state.wait(), timing=TimingRecord(epoch=epoch), epoch=epoch, **metrics)

        def take_and_save(steps: int) -> float:
            began = time.perf_counter()
            weights, state = HostCopy(trainee.model.state_dict()), HostCopy(optimizer_tensors(trainee.optimizer))
            thread.submit(partial(save, weights, state, next(epochs)))
            trainee.repeat(batch, steps)
            seconds = time.perf_counter() - began
            thread.wait()
            return seconds

        row = Row(part="checkpoint", member=describe_member(_MEMBER, planned), what="while a checkpoint is saved")
        ways = [(Row(part="checkpoint", what="alone"), partial(trainee.repeat, batch)), (row, take_and_save)]
        alone, saving = measure(ways, steps=steps, rounds=scale.rounds, say=setting.say)
    added = statistics.median(more - less for more, less in zip(saving.rounds_ms, alone.rounds_ms, strict=True))
    share = added * steps / _EPOCH / statistics.median(alone.rounds_ms)
    note = f"added to the steps of an epoch; fraction of {_EPOCH} steps"
    return [replace(saving, seconds=added * steps / 1000, share=share, note=note)]


def measure_start(setting: Setting) -> list[Row]:
    """Train a parent to its end and start some of its children, in a new process, and measure their starts."""
    setting.say("starting members in a new process")
    recipe = starting(setting.scale.recipe)
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        execution = Execution(data=setting.data)
        first, *others = pool.submit(time_starts, recipe, setting.folder / "start", execution).result()
    images = recipe.children.training.dataset.n_train
    row = partial(Row, part="start", member=f"fine-tuning, {images:,} training images, twice as many test images")
    note, median = "to the end of the first step;", statistics.median(others)
    return [
        row(what="first member of a process", seconds=first, note=f"{note} after imports; nothing compiled before"),
        row(what="its children after it", seconds=median, note=f"{note} median of {len(others)}"),
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
