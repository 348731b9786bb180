"""Measure the part ``population``: the busy fraction of a run's slots, the overhead of a member, and scaling.

A slot is busy while a worker trains a member. The worker writes down when it began and ended. A slot is idle while
workers start, while it waits for parents, while few members are left, and during the engine's work.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from training.bench.rows import Row
from training.bench.steps import Setting
from training.member.execution import Execution
from training.population.local import LocalEngine
from training.population.progress import Progress
from training.population.ray import RayEngine
from training.population.run import StartEngine
from training.population.schedule import Schedule
from training.population.selection import select_members
from training.population.worker import Job
from training.recipes.digits import digits
from training.recipes.plan import PlannedMember, plan_members
from training.workspace import Workspace

_PART = ("pt-[01]", "pt-[01]/ft-?")  # 22 members


def measure_population(setting: Setting) -> list[Row]:
    """Run plans on both engines: the digits zoo, and members that are held in place of training."""
    rows = list(_measure_engine(setting, "local", lambda job, slots: LocalEngine(job, workers=slots)))
    if find_spec("ray") is None:
        return [*rows, Row(part="population", member="digits", what="ray", note='not measured: pip install ".[ray]"')]
    return [*rows, *_measure_engine(setting, "ray", lambda job, slots: RayEngine(job, slots=slots))]


def _measure_engine(setting: Setting, name: str, start: StartEngine) -> Iterator[Row]:
    planned = plan_members(digits())
    part, _ = select_members(planned, only=_PART)
    single = None
    for train, members, slots in (("hold", planned, 1), ("train", planned, 2), ("train", part, 1), ("train", part, 2)):
        setting.say(f"{name}: {train} {len(members)} members, slots: {slots}")
        root = setting.folder / f"{name}-{time.monotonic_ns()}"
        row = time_plan(members, root, start, slots=slots, train=train)
        row = replace(row, what=f"{name}, {slots} worker{'s' if slots > 1 else ''}")
        if single is not None and row.member == single.member:
            row = replace(row, ratio=(single.seconds or 0) / (row.seconds or math.nan), ratio_to=single.what)
        single = row if slots == 1 else None
        yield row


def time_plan(planned: Sequence[PlannedMember], root: Path, start: StartEngine, *, slots: int, train: str) -> Row:
    """Run members of digits in an empty folder.

    Args:
        planned: Members, with every parent that they need.
        root: Zoo folder.
        start: Function that starts the engine.
        slots: Members at a time.
        train: Function of this module that takes a member: ``train`` or ``hold``.

    Returns:
        A row with the seconds from the start of the first member to the end, and the busy fraction of the slots.
    """
    job = Job(recipe=digits(), root=root, execution=Execution(), train=f"{__name__}:{train}")
    with Progress(planned, done=set(), console=Console(quiet=True)) as progress:
        schedule = Schedule(Workspace(root, digits()), planned, progress, attempts=1)
        began = time.time()
        engine = start(job, slots)
        try:
            schedule.run(engine)
            ended = time.time()
        finally:
            engine.close()
    intervals = [json.loads(line) for line in _intervals_file(root).read_text("utf-8").splitlines()]
    first = min(start for start, _ in intervals)
    seconds, busy = ended - first, sum(end - start for start, end in intervals)
    done = len(schedule.outcome.done)
    return Row(
        part="population",
        member=f"{train} {done} members of digits",
        seconds=seconds,
        share=busy / (slots * seconds),
        note=f"busy fraction of the slots; {1000 * seconds / done:.1f} ms a member; the first began after "
        f"{first - began:.1f} s",
    )


def train(workspace: Workspace, planned: PlannedMember, **options: Any) -> Any:
    """Train a member."""
    from training.member.train import train_member

    began = time.time()
    record = train_member(workspace, planned, **options)
    _write_interval(workspace.root, began)
    return record


def hold(workspace: Workspace, planned: PlannedMember, **options: Any) -> Any:
    """Hold a member and release it, without training."""
    with workspace.hold(planned.id):
        _write_interval(workspace.root, time.time())
    workspace.discard(planned.id)
    # The fields of a member's record that a worker reads.
    return SimpleNamespace(status="completed", final_weights=SimpleNamespace(sha256="0" * 64))


def _write_interval(root: Path, began: float) -> None:
    with open(_intervals_file(root), "a", encoding="utf-8") as file:
        file.write(f"{json.dumps([began, time.time()])}\n")


def _intervals_file(root: Path) -> Path:
    return root / ".training" / "busy.jsonl"
