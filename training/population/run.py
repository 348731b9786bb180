"""Train a population: select members of a plan, start an engine, publish meanwhile, write the tables.

The folder is scanned at every start, so a run that was killed goes on from its last finished epochs. Several runs may
work in one folder at the same time, on any machines that share it.
"""

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from training.member.execution import Execution, check_inputs
from training.population.engine import Engine
from training.population.progress import Progress
from training.population.publisher import Publisher, PublishOptions
from training.population.schedule import Outcome, Schedule
from training.population.selection import Shard, select_members
from training.population.worker import Job
from training.recipes.cost import estimate
from training.recipes.plan import plan_members
from training.recipes.recipe import Recipe
from training.workspace import Workspace, check_folder, finished_members, texts_root
from vitzoo.errors import TrainingError
from vitzoo.tables.catalogue import write_tables

ATTEMPTS = 3
_HUB_TIMEOUT = 10.0  # seconds without a byte, for the requests before training

StartEngine = Callable[[Job, int], Engine]  # given the workers' job and the number of unfinished members


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Options of a run, beside its recipe and its folder.

    Args:
        execution: Settings of the training on a machine.
        only: Patterns on ids of the members to train, such as ``pt-3/*``; empty for all.
        shard: A shard of the selected members; None for all.
        attempts: Attempts at a member before it fails.
        max_hours: Hours until the run stops; None for no limit.
        publish: Target of the finished members, which are published meanwhile; None for none.
    """

    execution: Execution = field(default_factory=Execution)
    only: tuple[str, ...] = ()
    shard: Shard | None = None
    attempts: int = ATTEMPTS
    max_hours: float | None = None
    publish: PublishOptions | None = None


def run_population(
    recipe: Recipe,
    root: Path,
    *,
    start_engine: StartEngine,
    options: RunOptions | None = None,
) -> Outcome:
    """Train every selected member of a recipe that is not done yet, then write the zoo's tables.

    Args:
        recipe: The population.
        root: The zoo folder; created if it does not exist.
        start_engine: Starts an engine, if members are left.
        options: Options of the run; None for every member.

    Raises:
        TrainingError: The folder holds another zoo, a pattern matches no member, the tables cannot be written, or
            publishing is refused, or a tracker is not installed.
        DatasetError: A data set is not on this machine and cannot be downloaded.
    """
    options = options or RunOptions()
    deadline = None if options.max_hours is None else time.monotonic() + options.max_hours * 3600
    check_folder(root, recipe)
    planned = plan_members(recipe)
    done = finished_members(root, planned)
    members, parents = select_members(planned, only=options.only, shard=options.shard, done=done)
    if unfinished := [member for member in members if member.id not in done]:
        check_inputs(unfinished, options.execution)  # once, before each worker finds it out
    if options.publish is not None:
        from training.publish.remote import find_token

        find_token()
    workspace, execution = Workspace(root, recipe), options.execution  # nothing is written before
    if unfinished and recipe.tokenizer is not None:
        from training.text.shared import share_texts

        texts = share_texts(planned, texts_root(root), data=execution.data)
        execution = replace(execution, data=texts)
    done.intersection_update(member.id for member in members)
    with Progress(members, done=done) as progress, contextlib.ExitStack() as stack:
        cost = estimate(unfinished, keep=execution.keep, dtype=execution.dtype)
        if warning := cost.disk_warning(shutil.disk_usage(workspace.root).free):
            progress.say(warning)
        if missing := sorted(parents - done):
            names = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            progress.say(f"{names}: trained too, unless another run does that; their children need them.")
        schedule = Schedule(workspace, members, progress, last=parents, attempts=options.attempts, deadline=deadline)
        publisher = None
        with workspace.hold_run() as run:
            if options.publish is not None:
                _check_target(workspace, options.publish, progress)
                publisher = stack.enter_context(Publisher(workspace.root, options.publish, run=run, say=progress.say))
            if schedule.left:
                engine = start_engine(Job(recipe=recipe, root=root, execution=execution), schedule.left)
                try:
                    schedule.run(engine, meanwhile=publisher.show if publisher else lambda: None)
                finally:
                    engine.close()
            schedule.outcome.done.sort()
            if schedule.outcome.stopped != "full":
                _write_tables(workspace, schedule.outcome)
        if publisher is not None and schedule.outcome.stopped is None:
            schedule.outcome.unpublished = publisher.finish()
    return schedule.outcome


def _check_target(workspace: Workspace, publish: PublishOptions, progress: Progress) -> None:
    """Check before training that the zoo can be published. A Hub that does not answer is only a warning."""
    from training.publish.push import check_target
    from vitzoo.hub_http import HubUnavailableError, limit_waiting

    limit_waiting(_HUB_TIMEOUT)
    try:
        check_target(workspace.source.record, to=publish.to, private=publish.private, say=progress.say)
    except HubUnavailableError as error:
        progress.say(f"{error} Training starts; finished members are published when the Hub answers.")


def _write_tables(workspace: Workspace, outcome: Outcome) -> None:
    try:
        with workspace.hold_tables():
            write_tables(workspace.source)
    except OSError as error:
        raise TrainingError(
            f"{len(outcome.done)} members are done in {workspace.root}, {len(outcome.failed)} failed, "
            f"but the tables cannot be written: {error}",
            fix="Make room, then run the same command again.",
        ) from error
