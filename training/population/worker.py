"""Train members one after another in a process of an engine; imports, images and compiled graphs stay warm.

Engines differ in how they start a worker and talk to it. See `training.population.local` and `training.population.ray`.
"""

import contextlib
import importlib
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from training.lease import LeaseHeld, LeaseLost
from training.member.execution import Execution, prepare_process
from training.member.report import Report
from training.population.engine import Event, is_full_disk
from training.recipes.plan import PlannedMember
from training.recipes.recipe import Recipe
from training.workspace import Workspace, log_file
from vitzoo.errors import TrainingError
from vitzoo.sources.folder import is_zoo_folder

TRAIN_MEMBER = "training.member.train:train_member"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The work of a run, sent once to each worker.

    Args:
        recipe: Recipe of the members.
        root: The zoo folder.
        execution: Settings of the training on a machine.
        train: Function that trains a member, as ``module:name``, with the signature of `training.member.train`'s.
    """

    recipe: Recipe
    root: Path
    execution: Execution
    train: str = TRAIN_MEMBER


class Worker:
    """Trains members in this process.

    Args:
        job: The work of the run.

    Raises:
        TrainingError: The zoo folder is gone, which a worker never makes again: its disk may be unmounted.
    """

    def __init__(self, job: Job):
        from transformers.utils.logging import disable_progress_bar

        if not is_zoo_folder(job.root):
            raise TrainingError(
                f"{job.root} is not a zoo any more", fix="If its disk is mounted, run the same command again."
            )
        module, _, name = job.train.partition(":")
        self._train_member = getattr(importlib.import_module(module), name)
        self._job = job
        prepare_process(job.execution)
        disable_progress_bar()
        self._workspace = Workspace(job.root, job.recipe)

    def train(self, planned: PlannedMember, parent_sha256: str | None, send: Callable[[Event], None]) -> None:
        """Train a member, with its warnings and errors in its log.

        Args:
            planned: The member.
            parent_sha256: Hash of the parent's final weights; None for a parent.
            send: Called with each event, from several threads.
        """

        def report(progress: Report) -> None:
            send(Event(member=planned.id, kind="report", report=progress))

        log = log_file(self._workspace.root, planned.id)
        with _logged(log):
            try:
                record = self._train_member(
                    self._workspace, planned, execution=self._job.execution, report=report, parent_sha256=parent_sha256
                )
                event = Event.from_record(planned.id, record)
            except (LeaseHeld, LeaseLost) as error:
                logging.getLogger(__name__).warning("%s", error)
                event = Event(member=planned.id, kind="held", reason=str(error))
            except Exception as error:  # noqa: BLE001 (any error is logged and reported, and the worker continues)
                with contextlib.suppress(OSError), open(log, "a", encoding="utf-8") as file:  # the disk may be full
                    file.write(traceback.format_exc())
                _exit_on_dead_gpu()
                kind = "full" if is_full_disk(error) else "failed"
                event = Event(member=planned.id, kind=kind, reason=f"{type(error).__name__}: {error}")
        send(event)


def _exit_on_dead_gpu() -> None:
    """End this process if its GPU does not answer: every later member would fail here, and not in a new process."""
    import torch

    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            os._exit(70)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write warnings and log messages to a member's log."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.captureWarnings(True)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
