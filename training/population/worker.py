"""What trains members one after another in a process of an engine; imports, images and compiled graphs stay warm.

Engines differ in how a worker is started and spoken to; what it does with a member is the same everywhere, and here.
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
from training.population.engines import Event
from training.recipes.plan import PlannedMember
from training.recipes.recipe import Recipe
from training.workspace import Workspace

TRAIN_MEMBER = "training.member.train:train_member"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What all workers of a run are told once.

    Args:
        recipe: Whose members they train.
        root: The zoo folder.
        execution: How members are carried out.
        train: The function that trains one, as ``module:name``, with the signature of `training.member.train`'s.
    """

    recipe: Recipe
    root: Path
    execution: Execution
    train: str = TRAIN_MEMBER


class Worker:
    """Trains members in this process.

    Args:
        job: What it was told.
    """

    def __init__(self, job: Job):
        from transformers.utils.logging import disable_progress_bar

        module, _, name = job.train.partition(":")
        self._train_member = getattr(importlib.import_module(module), name)
        self._job = job
        prepare_process(job.execution)
        disable_progress_bar()
        self._workspace = Workspace(job.root, job.recipe)

    def train(self, planned: PlannedMember, *, parent_sha256: str | None, report: Callable[[Report], None]) -> Event:
        """Train a member.

        Args:
            planned: Which.
            parent_sha256: Of its parent's final weights.
            report: Told where it stands, from several threads.

        Returns:
            What became of it; it is in its log, too.
        """
        try:
            with _logged(self._workspace.log_file(planned.id)):
                record = self._train_member(
                    self._workspace, planned, execution=self._job.execution, report=report, parent_sha256=parent_sha256
                )
        except (LeaseHeld, LeaseLost) as error:
            return Event(member=planned.id, kind="held", reason=str(error))
        except Exception as error:  # noqa: BLE001 (whatever it was: it is reported, logged, and the worker goes on)
            _end_with_the_device()
            return Event.raised(planned.id, error)
        return Event.ended(planned.id, record)


def _end_with_the_device() -> None:
    """End this process where its GPU answers no more: a fresh one may do what every later member would fail at."""
    import torch

    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            os._exit(70)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send warnings and log messages to a member's log, and the traceback of what it raises."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.captureWarnings(True)
    logging.getLogger().addHandler(handler)
    try:
        yield
    except (LeaseHeld, LeaseLost) as error:
        logging.getLogger(__name__).warning("%s", error)
        raise
    except Exception:
        with contextlib.suppress(OSError), open(path, "a", encoding="utf-8") as file:  # the disk may be what failed
            file.write(traceback.format_exc())
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
