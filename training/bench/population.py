"""Measure the part ``population``: the busy fraction of a run's slots, the overhead of a member, and scaling.

A slot is busy while a worker trains a member, or sleeps in its place. The worker writes down when it began and ended. A
slot is idle while workers start, while it waits for parents, while few members are left, and during the engine's work.
"""

import json
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from rich.console import Console

from training.bench.rows import Row
from training.bench.steps import Setting
from training.member.execution import Execution
from training.population.engine import Engine
from training.population.progress import Progress
from training.population.run import StartEngine
from training.population.schedule import Schedule
from training.population.selection import select_members
from training.population.worker import Job
from training.recipes.digits import digits
from training.recipes.plan import PlannedMember, plan_members
from training.workspace import Workspace

_PART = ("pt-[01]", "pt-[01]/ft-?")  # 22 members
_SHORTEST = 10.0  # seconds


class Run(NamedTuple):
    """Finished members, seconds before the first began, seconds from then to the end, busy fraction of the slots."""

    members: int
    ready: float
    seconds: float
    share: float


def measure_population(setting: Setting) -> list[Row]:
    """Run plans on both engines: the digits zoo, and members that are held or sleep in place of training."""
    rows = list(_measure_engine(setting, "local", _start_local))
    if find_spec("ray") is None:
        return [*rows, Row(part="population", member="digits", what="ray", note='not measured: pip install ".[ray]"')]
    return [*rows, *_measure_engine(setting, "ray", _start_ray)]


def _start_local(job: Job, slots: int) -> Engine:
    from training.population.local import LocalEngine

    return LocalEngine(job, workers=slots)


def _start_ray(job: Job, slots: int) -> Engine:
    from training.population.ray import RayEngine

    return RayEngine(job, slots=slots)


def _measure_engine(setting: Setting, name: str, start: StartEngine) -> Iterator[Row]:
    planned = plan_members(digits())
    chosen = select_members(planned, only=_PART).requested
    part = [member for member in planned if member.id in chosen]
    single: Run | None = None
    for train, members, slots in (
        ("hold", planned, 1),
        ("sleep", part, 2),
        ("train", planned, 2),
        ("train", part, 1),
        ("train", part, 2),
    ):
        setting.say(f"{name}: {train} {len(members)} members, slots: {slots}")
        root = setting.folder / f"{name}-{time.monotonic_ns()}"
        run = time_plan(members, root, start, slots=slots, train=train)
        yield Row(
            part="population",
            member=f"{train} {run.members} members of digits",
            what=f"{name}, {slots} worker{'s' if slots > 1 else ''}",
            seconds=run.seconds,
            share=run.share,
            ratio=None if single is None else single.seconds / run.seconds,
            ratio_to=None if single is None else f"{name}, 1 worker",
            note=f"busy fraction of the slots; {1000 * run.seconds / run.members:.1f} ms a member; "
            f"the first began after {run.ready:.1f} s",
        )
        single = run if members is part and slots == 1 else None


def time_plan(planned: Sequence[PlannedMember], root: Path, start: StartEngine, *, slots: int, train: str) -> Run:
    """Run members of digits in an empty folder.

    Args:
        planned: Members, with every parent that they need.
        root: Zoo folder.
        start: Function that starts the engine.
        slots: Members at a time.
        train: Function of this module that takes a member: ``train``, ``sleep`` or ``hold``.
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
    return Run(len(schedule.outcome.done), first - began, seconds, busy / (slots * seconds))


def train(workspace: Workspace, planned: PlannedMember, **options: Any) -> Any:
    """Train a member."""
    from training.member.train import train_member

    began = time.time()
    record = train_member(workspace, planned, **options)
    _write_interval(workspace.root, began)
    return record


def sleep(workspace: Workspace, planned: PlannedMember, **options: Any) -> Any:
    """Hold a member in proportion to its operations, at least 10 s."""
    shortest = min(member.flops for member in plan_members(digits()))
    return hold(workspace, planned, seconds=_SHORTEST * planned.flops / shortest)


def hold(workspace: Workspace, planned: PlannedMember, *, seconds: float = 0.0, **options: Any) -> Any:
    """Hold a member and release it."""
    with workspace.hold(planned.id):
        began = time.time()
        time.sleep(seconds)
        _write_interval(workspace.root, began)
    workspace.discard(planned.id)
    # The fields of a member's record that a worker reads.
    return SimpleNamespace(status="completed", final_weights=SimpleNamespace(sha256="0" * 64))


def _write_interval(root: Path, began: float) -> None:
    with open(_intervals_file(root), "a", encoding="utf-8") as file:
        file.write(f"{json.dumps([began, time.time()])}\n")


def _intervals_file(root: Path) -> Path:
    return root / ".training" / "busy.jsonl"
