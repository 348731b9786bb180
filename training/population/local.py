"""Run slots in processes on this machine, which keep their imports and data from member to member.

A worker watches its pipe and ends when its driver does, however that ends. A member's messages go to its log.
"""

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

from training.environment import fix_environment, usable_cores
from training.lease import release_all
from training.population.engine import Event
from training.population.worker import TRAIN_MEMBER, Job, Worker
from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError

_FAILURES = 3  # in a row, after which a slot gets no more members if others do well
_FAILED_STARTS = 5  # in a row, after which the run ends
_MOST_WORKERS = 8  # without a GPU: a container may be allowed fewer cores than it sees
_FIX = "Its messages are above; python -m training member trains a member in this process."
_log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True, eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    gpu: str | None
    failures: int  # of its slot, in a row
    is_ready: bool = False
    member: PlannedMember | None = None

    @property
    def is_free(self) -> bool:
        return self.is_ready and self.member is None


class LocalEngine:
    """Processes on this machine, each training one member at a time.

    Args:
        job: The work of the run.
        workers: Number of processes. On a CPU each has one thread; GPUs are assigned in turn.
    """

    def __init__(self, job: Job, *, workers: int):
        found = visible_gpus()
        gpus = found or [None]
        decoders, sharing = job.execution.decoders_among(workers), ceil(workers / len(gpus)) if found else 1
        execution = replace(job.execution, loader_workers=decoders, members_per_gpu=sharing)
        self._job = replace(job, execution=execution)
        fix_environment()  # the workers inherit it, before they import torch
        self._context = worker_context(gpus)
        self._workers: list[_Worker] = []
        try:
            for number in range(workers):
                self._workers.append(self._start_worker(gpus[number % len(gpus)]))
        except BaseException:
            self.close()
            raise

    @property
    def free_slots(self) -> int:
        """Count the slots that can start a member now."""
        return sum(worker.is_free for worker in self._workers)

    def start(self, planned: PlannedMember, *, parent_sha256: str | None) -> None:
        """Start or resume a member in a free slot."""
        worker = next(worker for worker in self._workers if worker.is_free)
        worker.member = planned
        with contextlib.suppress(OSError):  # it died while it was free: `events` reports it
            worker.pipe.send((planned, parent_sha256))

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield the events since the last call; wait up to ``timeout`` seconds for the first.

        Raises:
            TrainingError: Workers end again and again before they can take a member.
        """
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by_pipe), timeout):
            worker = by_pipe[pipe]  # pyright: ignore[reportArgumentType]
            try:
                event: Event | None = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._replace(worker)
                continue
            if event is None:
                worker.is_ready = True
                continue
            if event.kind != "report":
                worker.member = None
                worker.failures = worker.failures + 1 if event.kind == "failed" else 0
            yield event
            if event.kind == "failed" and self._is_bad(worker):
                self._retire(worker, event.reason)

    def close(self) -> None:
        """End every process."""
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _replace(self, worker: _Worker) -> Iterator[Event]:
        """Start a worker in place of one that died."""
        worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        worker.failures += 1
        if worker.member is not None:
            yield Event(member=worker.member.id, kind="died", reason=f"its process ended by {how}")
        if self._is_bad(worker):
            self._retire(worker, f"its process ended by {how}")
        elif not worker.is_ready and worker.failures >= _FAILED_STARTS:
            raise TrainingError(
                f"A worker ended by {how} before it could train a member, {worker.failures} times",
                fix=_FIX,
            )
        else:
            fresh = self._start_worker(worker.gpu, failures=worker.failures)
            self._workers[self._workers.index(worker)] = fresh

    def _is_bad(self, worker: _Worker) -> bool:
        """Return whether a slot fails again and again while another does not: it would use up all members' attempts."""
        others = (other for other in self._workers if other is not worker)
        return worker.failures >= _FAILURES and any(other.is_ready and not other.failures for other in others)

    def _retire(self, worker: _Worker, reason: str) -> None:
        """Remove a slot."""
        self._workers.remove(worker)
        worker.pipe.close()
        name = "a worker" if worker.gpu is None else f"the worker on GPU {worker.gpu}"
        text = "%s failed %d times in a row, others did not: it gets no more members. %s"
        _log.warning(text, name, worker.failures, reason)

    def _start_worker(self, gpu: str | None, *, failures: int = 0) -> _Worker:
        ours, theirs = self._context.Pipe()
        # Not a daemon, which could not start processes that decode images.
        process = self._context.Process(target=_work, args=(theirs, self._job, gpu))
        with _interrupts_blocked():
            try:
                process.start()
            except EOFError as error:
                raise TrainingError(
                    "The process that workers are forked from ended during its imports", fix=_FIX
                ) from error
        theirs.close()
        return _Worker(process=process, pipe=ours, gpu=gpu, failures=failures)


def default_workers() -> int:
    """Return the default number of workers: one per GPU, else one per core, up to `_MOST_WORKERS`."""
    return len(visible_gpus()) or min(usable_cores(), _MOST_WORKERS)


def worker_context(gpus: Sequence[str | None]) -> SpawnContext | ForkServerContext:
    """Choose how workers are started: spawned, or forked from a process that has the imports.

    A fork sees the GPUs of its parent, and CUDA does not survive a fork. Nor do macOS' libraries.
    """
    if list(gpus) != [None] or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([TRAIN_MEMBER.partition(":")[0]])
    return context


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them, without opening them."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:  # no driver: importing torch would take seconds for nothing
        return []
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if any(name.startswith("MIG-") for name in named):  # a process sees only one of them
        return named
    count = torch.cuda.device_count()
    return named[:count] or [str(number) for number in range(count)]


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C in the processes that start inside, from their first moment: it is for the driver."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, job: Job, gpu: str | None) -> None:
    """Train the members that come through the pipe, and send events back."""
    multiprocessing.set_start_method(None, force=True)  # else decoders would be spawned, for seconds an epoch
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the driver's end is enough
    members: SimpleQueue[tuple[PlannedMember, str | None]] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, members), daemon=True).start()
    use_gpu(gpu)
    lock = threading.Lock()

    def send(event: Event | None) -> None:
        with lock:  # the thread that writes checkpoints reports, too
            pipe.send(event)

    worker = Worker(job)  # takes seconds, in which `_listen` already sees the driver's end
    send(None)  # ready
    while True:
        worker.train(*members.get(), send)


def use_gpu(gpu: str | None) -> None:
    """Let this process see one GPU alone, before it starts CUDA; None changes nothing.

    Raises:
        RuntimeError: The GPU does not answer.
    """
    if gpu is None:
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when CUDA starts, which is below
    import torch

    if not torch.cuda.is_available():  # it would silently train on the CPU
        raise RuntimeError(f"GPU {gpu} does not answer.")


def _listen(pipe: Connection, members: "SimpleQueue[tuple[PlannedMember, str | None]]") -> None:
    try:
        while True:
            members.put(pipe.recv())
    except (EOFError, OSError):
        _end()  # the driver is gone; finished epochs are on disk


def _end(*_: object) -> None:
    """Release this process's leases and end it, also while a file server hangs."""
    releasing = threading.Thread(target=release_all, daemon=True)
    releasing.start()
    releasing.join(timeout=2)
    os._exit(1)
