"""Part ``start``: from `train_member` called to the end of its first step, in a fresh process and in one that trained.

The first figures, of the member before its first step, and the first checkpoint are among it, as in any run.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.bench.apart import in_fresh_process, nothing_compiled
from training.bench.images import write_cifar
from training.bench.scale import starting
from training.bench.steps import WORDS, Setting
from training.bench.table import Row
from training.member.execution import Execution
from training.recipes.plan import plan_members
from training.recipes.recipe import Recipe
from training.workspace import Workspace

_CHILDREN = 3


def measure_start(setting: Setting) -> Iterator[Row]:
    """Train a parent to its end and start some of its children, in a process of their own.

    Yields:
        A row of the parent's start, and one of the children's median start.
    """
    scale = setting.scale
    test = 2 * scale.child_images
    folder = write_cifar(setting.folder / "cifar", train=scale.child_images, test=test)
    execution = Execution(compile=scale.mode("fine-tuning"), data={"cifar100": folder})
    setting.say("starting members in a process of their own")
    root = setting.folder / "start"
    root.mkdir()
    cold, *warm = in_fresh_process(time_starts, starting(scale), root, execution)
    label = f"fine-tuning, {scale.child_images:,} images, {test:,} to test on"
    word = WORDS[scale.mode("fine-tuning")]
    yield Row(
        part="start",
        member=label,
        what=f"{word}, first member of a process",
        seconds=cold,
        note="to the first step's end, after imports; nothing compiled before",
    )
    yield Row(
        part="start",
        member=label,
        what=f"{word}, its children after it",
        seconds=statistics.median(warm),
        note=f"to the first step's end; median of {len(warm)}",
    )


def time_starts(recipe: Recipe, folder: Path, execution: Execution) -> list[float]:
    """Seconds to the first step's end of a parent, which is trained to its end, and of children, which are not.

    Args:
        recipe: Of one parent.
        folder: An empty one.
        execution: How members are carried out; with their data.
    """
    from transformers.utils.logging import disable_progress_bar

    from training.member.execution import prepare_process
    from training.member.train import train_member

    disable_progress_bar()
    prepare_process(execution)
    parent, *children = plan_members(recipe)
    workspace = Workspace(folder / "zoo", recipe)
    seconds = []
    with nothing_compiled(folder / "compiled"):
        for planned in (parent, *children[:_CHILDREN]):
            with _until_first_step(seconds, go_on=planned is parent):
                train_member(workspace, planned, execution=execution)
    return seconds


class _FirstStep(Exception):
    """A member took its first step."""


@contextmanager
def _until_first_step(seconds: list[float], *, go_on: bool) -> Iterator[None]:
    """Note when the first optimizer step inside is done, and end what is inside then unless it is to go on."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    count, began = len(seconds), time.perf_counter()

    def note(*_: object) -> None:
        if len(seconds) > count:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        if not go_on:
            raise _FirstStep

    hook = register_optimizer_step_post_hook(note)
    try:
        yield
    except _FirstStep:
        pass
    finally:
        hook.remove()
