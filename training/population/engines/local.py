"""The default engine: a pool of processes on this machine that keep their imports and data from member to member.

A worker ends when its driver does, however that ends: it watches its pipe, and an end of file is its end. What a member
says goes to its log.
"""

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue

from training.environment import fix_environment
from training.member.execution import Execution
from training.member.report import Report
from training.population.engines import Event
from training.recipes.plan import PlannedMember
from training.recipes.recipe import Recipe


@dataclass(kw_only=True, slots=True, eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    gpu: str | None
    member: PlannedMember | None = None


class LocalEngine:
    """Processes on this machine, each training one member at a time.

    Args:
        recipe: Whose members.
        root: The zoo folder.
        workers: How many processes; on a CPU each has one thread. Where there are GPUs they take turns at them.
        execution: How members are carried out.
    """

    def __init__(self, recipe: Recipe, root: Path, *, workers: int, execution: Execution):
        self._recipe, self._root = recipe, root
        self._execution = replace(execution, loader_workers=execution.decoders_among(workers))
        self._context = multiprocessing.get_context("spawn")
        fix_environment()  # inherited by the workers, which read it before they import torch
        gpus = visible_gpus() or [None]
        self._workers = [self._start_worker(gpus[number % len(gpus)]) for number in range(workers)]

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
            if event.kind != "report":
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
        self._workers[self._workers.index(worker)] = self._start_worker(worker.gpu)
        if worker.member is not None:
            code = worker.process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
            yield Event(member=worker.member.id, kind="died", reason=f"its process ended by {how}")

    def _start_worker(self, gpu: str | None) -> _Worker:
        ours, theirs = self._context.Pipe()
        work = (theirs, self._recipe, self._root, self._execution)
        process = self._context.Process(target=_work, args=work)  # no daemon: those have no children, which decode
        with _sees(gpu):
            process.start()
        theirs.close()
        return _Worker(process=process, pipe=ours, gpu=gpu)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; they are not touched."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:  # no driver: torch, which takes seconds to import, has nothing to say
        return []
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if any(name.startswith("MIG-") for name in named):  # of which a process sees one alone
        return named
    count = torch.cuda.device_count()
    return named[:count] or [str(number) for number in range(count)]


@contextlib.contextmanager
def _sees(gpu: str | None) -> Iterator[None]:
    """What is started inside sees one GPU alone."""
    if gpu is None:
        yield
        return
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _work(pipe: Connection, recipe: Recipe, root: Path, execution: Execution) -> None:
    """A worker's life: members from the pipe, events into it."""
    multiprocessing.set_start_method(None, force=True)  # else decoders would be spawned as this was: seconds an epoch
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the driver's end is enough
    members: SimpleQueue[PlannedMember] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, members), daemon=True).start()
    from transformers.utils.logging import disable_progress_bar

    from training.member.execution import prepare_process
    from training.member.record import describe_divergence
    from training.member.train import train_member
    from training.workspace import Workspace

    prepare_process(execution)
    disable_progress_bar()
    workspace = Workspace(root, recipe)
    while True:
        planned = members.get()
        try:
            with _logged(workspace.log_file(planned.id)):
                record = train_member(workspace, planned, execution=execution, report=_reporter(pipe, planned))
        except Exception as error:  # noqa: BLE001 (whatever it was: it is reported, logged, and the pool goes on)
            _end_with_the_device()
            pipe.send(Event(member=planned.id, kind="failed", reason=f"{type(error).__name__}: {error}"))
            continue
        if record.status == "diverged":
            pipe.send(Event(member=planned.id, kind="diverged", reason=describe_divergence(record)))
        else:
            pipe.send(Event(member=planned.id, kind="done"))


def _end_with_the_device() -> None:
    """End this process where its GPU answers no more: a fresh one may do what every later member would fail at."""
    import torch

    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            os._exit(70)


def _listen(pipe: Connection, members: "SimpleQueue[PlannedMember]") -> None:
    try:
        while True:
            members.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(1)  # the driver is gone; what was finished is on disk


def _reporter(pipe: Connection, planned: PlannedMember):
    lock = threading.Lock()  # the thread that writes checkpoints reports, too

    def tell(report: Report) -> None:
        with lock:
            pipe.send(Event(member=planned.id, kind="report", report=report))

    return tell


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
