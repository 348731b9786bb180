"""Measure the part ``population``: the busy fraction of a run's slots, the overhead of a member, and scaling.

A slot is busy while a worker trains a member, or sleeps in place of that, and notes when it began and ended. The rest
is the start of the workers, waiting for parents, the end with fewer members than slots, and the engine's own work.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
_SLOTS = 2
_SHORTEST = 10.0  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """The times of a run.

    Args:
        members: Finished members.
        slots: Members at a time.
        ready: Seconds until the first worker began.
        seconds: Seconds from then to the end.
        busy: Busy seconds of all slots.
    """

    members: int
    slots: int
    ready: float
    seconds: float
    busy: float

    @property
    def share(self) -> float:
        """Return the busy fraction of the slots' time, 0 to 1."""
        return self.busy / (self.slots * self.seconds)


def measure_population(setting: Setting) -> Iterator[Row]:
    """Run plans on both engines.

    Yields:
        For each engine a row of held members, of sleeping ones and of the digits zoo, and the scaling.
    """
    for name, start in _engines():
        if start is None:
            yield Row(part="population", member="digits", what=name, note='not measured: pip install ".[ray]"')
        else:
            yield from _measure_engine(setting, name, start)


def _measure_engine(setting: Setting, name: str, start: StartEngine) -> Iterator[Row]:
    def timed(members: Sequence[PlannedMember], train: str, *, slots: int) -> Timed:
        setting.say(f"{name}: {train}, {len(members)} members, slots: {slots}")
        root = setting.folder / f"{name}-{time.monotonic_ns()}"
        return time_plan(members, root, start, slots=slots, train=train)

    planned = plan_members(digits())
    chosen = select_members(planned, only=_PART).requested
    part = [member for member in planned if member.id in chosen]
    held = timed(planned, "hold", slots=1)
    yield Row(
        part="population",
        member="members that are held and released",
        what=f"{name}, 1 worker",
        seconds=held.seconds / held.members,
        note=f"a member, without training; {held.members} of them, after {held.ready:.1f} s",
    )
    sleeping = timed(part, "sleep", slots=_SLOTS)
    yield _row(f"{sleeping.members} members that sleep 10 s and more", name, sleeping)
    yield _row(f"digits, {len(planned)} members", name, timed(planned, "train", slots=_SLOTS))
    one = timed(part, "train", slots=1)
    yield _row(f"digits, {one.members} members", name, one)
    two = timed(part, "train", slots=_SLOTS)
    yield _row(f"digits, {two.members} members", name, two, note=f"{one.seconds / two.seconds:.2f} times one worker")


def time_plan(planned: Sequence[PlannedMember], root: Path, start: StartEngine, *, slots: int, train: str) -> Timed:
    """Run members of digits in an empty folder.

    Args:
        planned: Members, with every parent that they need.
        root: Zoo folder.
        start: Function that starts the engine.
        slots: Members at a time.
        train: Function of this module that takes a member: ``train``, ``sleep`` or ``hold``.
    """
    workspace = Workspace(root, digits())
    job = Job(recipe=digits(), root=root, execution=Execution(), train=f"{__name__}:{train}")
    with Progress(planned, done=set(), console=Console(quiet=True)) as progress:
        schedule = Schedule(workspace, planned, progress, attempts=1)
        began = time.time()
        engine = start(job, slots)
        try:
            schedule.run(engine)
            ended = time.time()
        finally:
            engine.close()
    intervals = load_intervals(root)
    first = min(start for start, _ in intervals)
    return Timed(
        members=len(schedule.outcome.done),
        slots=slots,
        ready=first - began,
        seconds=ended - first,
        busy=sum(end - start for start, end in intervals),
    )


def _row(member: str, name: str, timed: Timed, *, note: str = "") -> Row:
    workers = "1 worker" if timed.slots == 1 else f"{timed.slots} workers"
    return Row(
        part="population",
        member=member,
        what=f"{name}, {workers}",
        seconds=timed.seconds,
        share=timed.share,
        note=", ".join(
            filter(None, ("busy fraction of the slots", f"the first began after {timed.ready:.1f} s", note))
        ),
    )


def _engines() -> list[tuple[str, StartEngine | None]]:
    from training.population.local import LocalEngine

    def local(job: Job, slots: int) -> Engine:
        return LocalEngine(job, workers=slots)

    if find_spec("ray") is None:
        return [("local", local), ("ray", None)]
    from training.population.ray import RayEngine

    def ray(job: Job, slots: int) -> Engine:
        return RayEngine(job, slots=slots)

    return [("local", local), ("ray", ray)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Weights:
    sha256: str = "0" * 64


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slept:
    """The fields of a member's record that a worker reads."""

    status: str = "completed"
    final_weights: _Weights = field(default_factory=_Weights)


def train(workspace: Workspace, planned: PlannedMember, **options: Any) -> Any:
    """Train a member."""
    from training.member.train import train_member

    began = time.time()
    record = train_member(workspace, planned, **options)
    _note(workspace.root, began)
    return record


def sleep(workspace: Workspace, planned: PlannedMember, **options: Any) -> Any:
    """Hold a member in proportion to its operations, at least 10 s."""
    return _sleep(workspace, planned, _SHORTEST * planned.flops / min(one.flops for one in plan_members(digits())))


def hold(workspace: Workspace, planned: PlannedMember, **options: Any) -> Any:
    """Hold a member and release it."""
    return _sleep(workspace, planned, 0.0)


def load_intervals(root: Path) -> list[tuple[float, float]]:
    """Return when workers began and ended with members, in seconds since 1970."""
    lines = (root / ".training" / "busy.jsonl").read_text("utf-8").splitlines()
    return [(began, ended) for began, ended in map(json.loads, lines)]


def _sleep(workspace: Workspace, planned: PlannedMember, seconds: float) -> _Slept:
    with workspace.hold(planned.id):
        began = time.time()
        time.sleep(seconds)
        _note(workspace.root, began)
    workspace.discard(planned.id)
    return _Slept()


def _note(root: Path, began: float) -> None:
    with open(root / ".training" / "busy.jsonl", "a", encoding="utf-8") as file:
        file.write(f"{json.dumps([began, time.time()])}\n")
