"""Train a population: select members of a plan, start an engine, publish meanwhile, write the tables.

The folder is scanned at every start, so a run that was killed goes on from its last finished epochs. Several runs may
work in one folder at the same time, on any machines that share it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from training.member.execution import Execution
from training.population.engine import Engine
from training.population.progress import Progress
from training.population.publisher import Publisher
from training.population.schedule import Outcome, Schedule
from training.population.selection import Shard, select_members
from training.population.worker import Job
from training.publish.talk import Publishing
from training.recipes.plan import plan_members
from training.recipes.recipe import Recipe
from training.workspace import Workspace
from vitzoo.errors import TrainingError
from vitzoo.tables.catalogue import write_tables

ATTEMPTS = 3

StartEngine = Callable[[Job, int], Engine]  # takes the number of members that are left


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Options of a run, beside its recipe and its folder.

    Args:
        execution: Settings of the training on a machine.
        only: Patterns on ids of the members to train, such as ``pt-3/*``; empty for all.
        shard: A part of those members; None for all.
        attempts: How often a member is tried.
        max_hours: Hours after which the run stops; None for no end.
        publishing: Publication of finished members meanwhile; None for none.
    """

    execution: Execution = field(default_factory=Execution)
    only: tuple[str, ...] = ()
    shard: Shard | None = None
    attempts: int = ATTEMPTS
    max_hours: float | None = None
    publishing: Publishing | None = None


def run_population(
    recipe: Recipe,
    root: Path,
    *,
    start_engine: StartEngine,
    options: RunOptions | None = None,
) -> Outcome:
    """Train every chosen member of a recipe that is not done yet, then write the zoo's tables.

    Args:
        recipe: The population.
        root: The zoo folder; made if it does not exist.
        start_engine: Starts the engine, for the workers' job and the number of members that are left.
        options: Options of the run; None for every member.

    Raises:
        TrainingError: The folder holds another zoo, a pattern matches no member, the tables cannot be written, or
            publishing is refused.
    """
    options = options or RunOptions()
    deadline = None if options.max_hours is None else time.monotonic() + options.max_hours * 3600
    workspace = Workspace(root, recipe)
    planned = plan_members(recipe)
    done = {member.id for member in planned if workspace.is_done(member.id)}
    selected = select_members(planned, only=options.only, shard=options.shard, done=done)
    members = selected.filter(planned)
    with Progress(members, done=done.intersection(selected.requested)) as progress, _publisher(options) as publisher:
        if selected.parents:
            names = ", ".join(map(str, sorted(selected.parents)[:8])) + (", ..." if len(selected.parents) > 8 else "")
            progress.say(f"{names}: trained too unless another run does, because their children need them.")
        schedule = Schedule(
            workspace, members, progress, last=selected.parents, attempts=options.attempts, deadline=deadline
        )
        beside = _Beside(publisher, schedule, progress)
        if schedule.left:
            engine = start_engine(Job(recipe=recipe, root=root, execution=options.execution), schedule.left)
            try:
                schedule.run(engine, meanwhile=beside.turn)
            finally:
                engine.close()
        schedule.outcome.done.sort()
        if schedule.outcome.stopped != "full":
            _write_tables(workspace, schedule.outcome)
        if schedule.outcome.stopped is None:
            beside.finish()
    return schedule.outcome


@contextlib.contextmanager
def _publisher(options: RunOptions) -> Iterator[Publisher | None]:
    if options.publishing is None:
        yield None
    else:
        with Publisher(options.publishing) as publisher:
            yield publisher


class _Beside:
    """What the run tells its publisher, and shows of it."""

    def __init__(self, publisher: Publisher | None, schedule: Schedule, progress: Progress):
        self._publisher, self._outcome, self._progress = publisher, schedule.outcome, progress
        if publisher is not None and (warning := publisher.check()) is not None:
            progress.say(warning)

    def turn(self) -> None:
        """Never waits."""
        if self._publisher is not None:
            self._publisher.offer({*self._outcome.done, *self._outcome.diverged})
            for line in self._publisher.poll():
                self._progress.say(line)

    def finish(self) -> None:
        """Publish the rest; no GPU is held any more."""
        if self._publisher is not None:
            self._outcome.published = self._publisher.finish(show=self._progress.say)


def _write_tables(workspace: Workspace, outcome: Outcome) -> None:
    try:
        with workspace.hold_tables():
            write_tables(workspace.source)
    except OSError as error:
        raise TrainingError(
            f"{len(outcome.done)} members are done in {workspace.root}, {len(outcome.failed)} failed, but the tables "
            f"cannot be written: {error}. Make room, then run the same command again."
        ) from error
