"""A whole population: which member starts when, what happens to those that fail, and what is shown meanwhile.

A child starts when its own parent is done; of what can start, the longest goes first. The folder is scanned at every
start, so a run that was ended anyhow goes on where it stood.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from training.member.execution import Execution
from training.member.record import describe_divergence
from training.population.engines import Engine, Event
from training.population.engines.local import LocalEngine
from training.population.progress import Progress
from training.recipes.plan import PlannedMember, plan_members
from training.recipes.recipe import Recipe
from training.workspace import Workspace
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId
from vitzoo.metadata import write_tables

MAX_ATTEMPTS = 3  # a process that was ended is tried again; a member that raises is not


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of a run.

    Args:
        done: Members that completed.
        diverged: Members whose loss did not stay finite, with what is known of it; they are in the zoo.
        failed: Members that raised, or whose process died too often, with the reason and the place of the log.
        skipped: Members whose parent failed or diverged.
    """

    done: list[MemberId] = field(default_factory=list)
    diverged: dict[MemberId, str] = field(default_factory=dict)
    failed: dict[MemberId, str] = field(default_factory=dict)
    skipped: list[MemberId] = field(default_factory=list)


def run_population(recipe: Recipe, root: Path, *, workers: int, execution: Execution | None = None) -> Outcome:
    """Train every member of a recipe that is not done yet, then write the zoo's tables.

    Args:
        recipe: The population.
        root: The zoo folder; made where it is not there yet.
        workers: Processes.
        execution: How members are carried out.

    Returns:
        What was done, what diverged or failed and what was skipped.

    Raises:
        TrainingError: The folder holds another zoo, another run is at work on it, or the tables cannot be written.
    """
    workspace = Workspace(root, recipe)
    planned = plan_members(recipe)
    with workspace.lock():
        outcome = _already(workspace, planned)
        left = len(planned) - len(outcome.done) - len(outcome.diverged)
        with Progress(planned, done={*outcome.done, *outcome.diverged}) as progress:
            if left:
                engine = LocalEngine(recipe, root, workers=min(workers, left), execution=execution or Execution())
                try:
                    _Schedule(workspace, planned, engine, progress, outcome).to_the_end()
                finally:
                    engine.close()
        try:
            write_tables(workspace.source)
        except OSError as error:
            raise TrainingError(
                f"{len(outcome.done)} of {len(planned)} members are done in {root}, {len(outcome.failed)} failed, but "
                f"the tables cannot be written: {error}. Make room, then run the same command again."
            ) from error
    return outcome


def _already(workspace: Workspace, planned: list[PlannedMember]) -> Outcome:
    """What stands in the zoo from earlier runs."""
    outcome = Outcome()
    for member in sorted(member.id for member in planned if workspace.is_done(member.id)):
        workspace.discard(member)
        record = workspace.source.member_record(member)
        if record.status == "diverged":
            outcome.diverged[member] = describe_divergence(record)
        else:
            outcome.done.append(member)
    return outcome


class _Schedule:
    """The members of one run: waiting, running, ended."""

    def __init__(
        self,
        workspace: Workspace,
        planned: list[PlannedMember],
        engine: Engine,
        progress: Progress,
        outcome: Outcome,
    ):
        self.workspace, self.engine, self.progress, self.outcome = workspace, engine, progress, outcome
        self.planned = {member.id: member for member in planned}
        self.attempts: Counter[MemberId] = Counter()
        self.running: set[MemberId] = set()
        ended = {*outcome.done, *outcome.diverged}
        waiting = [member for member in planned if member.id not in ended]
        # Parents first: others wait for them.
        self.waiting = sorted(waiting, key=lambda member: (not member.id.is_parent, -member.flops))
        for parent in outcome.diverged:
            self._skip_children(parent)

    def to_the_end(self) -> None:
        while self.waiting or self.running:
            self._start_what_can()
            for event in self.engine.events(timeout=0.5):
                self.progress.happened(event)
                if event.kind != "report":
                    self.running.discard(event.member)
                    self._ended(event)
            self.progress.refresh()

    def _start_what_can(self) -> None:
        done = set(self.outcome.done)
        for member in [m for m in self.waiting if m.id.parent_id is None or m.id.parent_id in done]:
            if not self.engine.free_slots:
                break
            self.waiting.remove(member)
            self.running.add(member.id)
            self.engine.start(member)
            self.progress.started(member.id)

    def _ended(self, event: Event) -> None:
        if event.kind == "done":
            self.outcome.done.append(event.member)
        elif event.kind == "died" and self._may_try_again(event.member):
            self.waiting.insert(0, self.planned[event.member])
        elif event.kind == "diverged":
            self.outcome.diverged[event.member] = event.reason
            self._skip_children(event.member)
        else:
            self.outcome.failed[event.member] = f"{event.reason} (log: {self.workspace.log_file(event.member)})"
            self._skip_children(event.member)

    def _may_try_again(self, member: MemberId) -> bool:
        self.attempts[member] += 1
        return self.attempts[member] < MAX_ATTEMPTS

    def _skip_children(self, parent: MemberId) -> None:
        children = sorted(member.id for member in self.waiting if member.id.parent_id == parent)
        self.outcome.skipped += children
        self.progress.skipped(len(children))
        self.waiting = [member for member in self.waiting if member.id not in children]
