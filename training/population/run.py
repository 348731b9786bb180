"""A whole population: which member starts when, what happens to those that fail, and what is shown meanwhile.

A child starts when its own parent is done; of what can start, the longest goes first. The folder is scanned at every
start, so a run that was ended anyhow goes on where it stood.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

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
        done: Members that stand finished in the zoo.
        failed: Members that raised, or whose process died too often, with the reason and the place of the log.
        skipped: Members whose parent failed.
    """

    done: list[MemberId] = field(default_factory=list)
    failed: dict[MemberId, str] = field(default_factory=dict)
    skipped: list[MemberId] = field(default_factory=list)


def run_population(recipe: Recipe, root: Path, *, workers: int) -> Outcome:
    """Train every member of a recipe that is not done yet, then write the zoo's tables.

    Args:
        recipe: The population.
        root: The zoo folder; made where it is not there yet.
        workers: Processes.

    Returns:
        What was done, what failed and what was skipped.

    Raises:
        TrainingError: The folder holds another zoo, another run is at work on it, or the tables cannot be written.
    """
    workspace = Workspace(root, recipe)
    planned = plan_members(recipe)
    with workspace.lock():
        done = {member.id for member in planned if workspace.is_done(member.id)}
        for member in done:
            workspace.discard(member)
        with Progress(planned, done=done) as progress:
            outcome = Outcome(done=sorted(done))
            if len(done) < len(planned):
                engine = LocalEngine(recipe, root, workers=min(workers, len(planned) - len(done)))
                try:
                    outcome = _Schedule(workspace, planned, engine, progress).to_the_end(done)
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


class _Schedule:
    """The members of one run: waiting, running, ended."""

    def __init__(self, workspace: Workspace, planned: list[PlannedMember], engine: Engine, progress: Progress):
        self.workspace, self.engine, self.progress = workspace, engine, progress
        self.planned = {member.id: member for member in planned}
        self.attempts: Counter[MemberId] = Counter()

    def to_the_end(self, done: set[MemberId]) -> Outcome:
        outcome = Outcome(done=sorted(done))
        waiting = [member for member in self.planned.values() if member.id not in done]
        waiting.sort(key=lambda member: (not member.id.is_parent, -member.flops))  # parents first: others wait for them
        running: set[MemberId] = set()
        while waiting or running:
            for member in [m for m in waiting if m.id.parent_id is None or m.id.parent_id in outcome.done]:
                if not self.engine.free_slots:
                    break
                waiting.remove(member)
                running.add(member.id)
                self.engine.start(member)
                self.progress.started(member.id)
            for event in self.engine.events(timeout=0.5):
                self.progress.happened(event)
                if event.kind == "epoch":
                    continue
                running.discard(event.member)
                if event.kind == "done":
                    outcome.done.append(event.member)
                elif event.kind == "died" and self._may_try_again(event.member):
                    waiting.insert(0, self.planned[event.member])
                else:
                    waiting = self._failed(event, waiting, outcome)
            self.progress.refresh()
        return outcome

    def _may_try_again(self, member: MemberId) -> bool:
        self.attempts[member] += 1
        return self.attempts[member] < MAX_ATTEMPTS

    def _failed(self, event: Event, waiting: list[PlannedMember], outcome: Outcome) -> list[PlannedMember]:
        outcome.failed[event.member] = f"{event.reason} (log: {self.workspace.log_file(event.member)})"
        children = sorted(member.id for member in waiting if member.id.parent_id == event.member)
        outcome.skipped += children
        self.progress.skipped(len(children))
        return [member for member in waiting if member.id not in children]
