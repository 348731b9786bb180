"""Part ``population``: how much of a run its slots are busy, what a member costs beside its training, and scaling.

Busy is a slot between the begin and the end of a member's function. The rest is the start of the workers, waiting for
parents, the end where fewer members are left than slots, and the engine's own work.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from training.bench import naps
from training.bench.steps import Setting
from training.bench.table import Row
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """A plan that was carried out.

    Args:
        members: How many there were.
        slots: How many could run at a time.
        ready: Seconds until the first worker began.
        seconds: From then to the end.
        busy: Seconds that slots were busy.
    """

    members: int
    slots: int
    ready: float
    seconds: float
    busy: float

    @property
    def share(self) -> float:
        """The busy part of the slots' time, 0 to 1."""
        return self.busy / (self.slots * self.seconds)


def measure_population(setting: Setting) -> Iterator[Row]:
    """Run plans on both engines.

    Yields:
        For each engine a row of members that pass by, of sleeping ones and of the digits zoo; and the scaling.
    """
    for name, start in _engines():
        if start is None:
            yield Row(part="population", member="digits", what=name, note='not measured: pip install ".[ray]"')
        else:
            yield from _measure_engine(setting, name, start)


def _measure_engine(setting: Setting, name: str, start: StartEngine) -> Iterator[Row]:
    def timed(members: Sequence[PlannedMember], train: str, *, slots: int) -> Timed:
        setting.say(f"{name}: {train.replace('_', ' ')}, {len(members)} members, slots: {slots}")
        root = setting.folder / f"{name}-{time.monotonic_ns()}"
        return time_plan(members, root, start, slots=slots, train=train)

    planned = plan_members(digits())
    chosen = select_members(planned, only=_PART).requested
    part = [member for member in planned if member.id in chosen]
    passing = timed(planned, "pass_by", slots=1)
    yield Row(
        part="population",
        member="members that pass by",
        what=f"{name}, 1 worker",
        seconds=passing.seconds / passing.members,
        note=f"a member, beside its training; {passing.members} of them, after {passing.ready:.1f} s",
    )
    sleeping = timed(part, "sleep", slots=_SLOTS)
    yield _row(f"{sleeping.members} members that sleep 10 s and more", name, sleeping)
    yield _row(f"digits, {len(planned)} members", name, timed(planned, "train", slots=_SLOTS))
    one = timed(part, "train", slots=1)
    yield _row(f"digits, {one.members} members", name, one)
    two = timed(part, "train", slots=_SLOTS)
    yield _row(f"digits, {two.members} members", name, two, note=f"{one.seconds / two.seconds:.2f} times one worker")


def time_plan(planned: Sequence[PlannedMember], root: Path, start: StartEngine, *, slots: int, train: str) -> Timed:
    """Carry a plan of digits out in an empty folder.

    Args:
        planned: Its members, with every parent that they need.
        root: The folder.
        start: Starts the engine.
        slots: How many members run at a time.
        train: What is done with a member, of `training.bench.naps`.
    """
    workspace = Workspace(root, digits())
    job = Job(recipe=digits(), root=root, execution=Execution(), train=f"{naps.__name__}:{train}")
    with Progress(planned, done=set(), console=Console(quiet=True)) as progress:
        schedule = Schedule(workspace, planned, progress, attempts=1)
        began = time.time()
        engine = start(job, slots)
        try:
            schedule.run(engine)
            ended = time.time()
        finally:
            engine.close()
    intervals = naps.load_busy(root)
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
        note=", ".join(filter(None, ("busy share of the slots", f"the first began after {timed.ready:.1f} s", note))),
    )


def _engines() -> list[tuple[str, StartEngine | None]]:
    from training.population.local import LocalEngine

    def local(job: Job, slots: int) -> Engine:
        return LocalEngine(job, workers=slots)

    if find_spec("ray") is None:
        return [("local", local), ("ray", None)]
    from training.population.ray import RayEngine

    def ray(job: Job, slots: int) -> Engine:
        return RayEngine(job, most=slots)

    return [("local", local), ("ray", ray)]
