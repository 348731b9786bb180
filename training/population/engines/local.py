"""The default engine: a pool of processes on this machine that keep their imports and data from member to member.

A worker ends when its driver does, however that ends: it watches its pipe, and an end of file is its end. What a member
says goes to its log.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue

from training.environment import fix_environment
from training.population.engines import Event
from training.recipes.plan import PlannedMember
from training.recipes.recipe import Recipe


@dataclass(kw_only=True, slots=True, eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    member: PlannedMember | None = None


class LocalEngine:
    """Processes on this machine, each training one member at a time.

    Args:
        recipe: Whose members.
        root: The zoo folder.
        workers: How many processes; on a CPU each has one thread.
    """

    def __init__(self, recipe: Recipe, root: Path, *, workers: int):
        self._recipe, self._root = recipe, root
        self._context = multiprocessing.get_context("spawn")
        fix_environment()  # inherited by the workers, which read it before they import torch
        self._workers = [self._start_worker() for _ in range(workers)]

    @property
    def free_slots(self) -> int:
        """How many members could start now."""
        return sum(worker.member is None for worker in self._workers)

    def start(self, planned: PlannedMember) -> None:
        """Begin or resume a member in a free slot."""
        worker = next(worker for worker in self._workers if worker.member is None)
        worker.member = planned
        with contextlib.suppress(BrokenPipeError):  # it died while it was free: `events` will say so
            worker.pipe.send(planned)

    def events(self, timeout: float) -> Iterator[Event]:
        """What happened since the last call; waits up to ``timeout`` seconds for something to happen."""
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by_pipe), timeout):
            worker = by_pipe[pipe]  # pyright: ignore[reportArgumentType]
            try:
                event: Event = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._bury(worker)
                continue
            if event.kind != "epoch":
                worker.member = None
            yield event

    def close(self) -> None:
        """End every process."""
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _bury(self, worker: _Worker) -> Iterator[Event]:
        worker.process.join()
        worker.pipe.close()
        self._workers[self._workers.index(worker)] = self._start_worker()
        if worker.member is not None:
            code = worker.process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
            yield Event(member=worker.member.id, kind="died", reason=f"its process ended by {how}")

    def _start_worker(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._recipe, self._root), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process=process, pipe=ours)


def _work(pipe: Connection, recipe: Recipe, root: Path) -> None:
    """A worker's life: members from the pipe, events into it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the driver's end is enough
    members: SimpleQueue[PlannedMember] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, members), daemon=True).start()
    import torch
    from transformers.utils.logging import disable_progress_bar

    from training.member.train import train_member
    from training.workspace import Workspace

    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    disable_progress_bar()
    workspace = Workspace(root, recipe)
    while True:
        planned = members.get()
        try:
            with _logged(workspace.log_file(planned.id)):
                train_member(workspace, planned, report=_reporter(pipe, planned))
        except Exception as error:  # noqa: BLE001 (whatever it was: it is reported, logged, and the pool goes on)
            pipe.send(Event(member=planned.id, kind="failed", reason=f"{type(error).__name__}: {error}"))
        else:
            pipe.send(Event(member=planned.id, kind="done"))


def _listen(pipe: Connection, members: "SimpleQueue[PlannedMember]") -> None:
    try:
        while True:
            members.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(1)  # the driver is gone; what was finished is on disk


def _reporter(pipe: Connection, planned: PlannedMember):
    def report(epoch: int) -> None:
        pipe.send(Event(member=planned.id, kind="epoch", epoch=epoch))

    return report


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send warnings and log messages to a member's log, and the traceback of what it raises."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.captureWarnings(True)
    logging.getLogger().addHandler(handler)
    try:
        yield
    except Exception:
        with contextlib.suppress(OSError), open(path, "a", encoding="utf-8") as file:  # the disk may be what failed
            file.write(traceback.format_exc())
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
