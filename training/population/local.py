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
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

from training.environment import fix_environment
from training.lease import release_all
from training.member.report import Report
from training.population.engine import Event
from training.population.worker import TRAIN_MEMBER, Job, Worker
from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError

_FAILURES, _STILLBORN = 3, 5  # in a row, of a slot: where others do well, and where none comes up
_log = logging.getLogger(__name__)
_MOST = 8  # a container may be allowed fewer cores than it sees


@dataclass(kw_only=True, slots=True, eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    gpu: str | None
    failures: int  # of its slot, one after the other
    is_ready: bool = False
    member: PlannedMember | None = None


class LocalEngine:
    """Processes on this machine, each training one member at a time.

    Args:
        job: What they are told.
        workers: How many processes; on a CPU each has one thread. Where there are GPUs they take turns at them.
    """

    def __init__(self, job: Job, *, workers: int):
        execution = replace(job.execution, loader_workers=job.execution.decoders_among(workers))
        self._job = replace(job, execution=execution)
        fix_environment()  # inherited by the workers, which read it before they import torch
        gpus = visible_gpus() or [None]
        self._context = _context(gpus)
        self._workers: list[_Worker] = []
        try:
            for number in range(workers):
                self._workers.append(self._start_worker(gpus[number % len(gpus)]))
        except BaseException:
            self.close()
            raise

    @property
    def free_slots(self) -> int:
        """How many members could start now."""
        return sum(worker.is_ready and worker.member is None for worker in self._workers)

    def start(self, planned: PlannedMember, *, parent_sha256: str | None) -> None:
        """Begin or resume a member in a free slot."""
        worker = next(worker for worker in self._workers if worker.is_ready and worker.member is None)
        worker.member = planned
        with contextlib.suppress(OSError):  # it died while it was free: `events` will say so
            worker.pipe.send((planned, parent_sha256))

    def events(self, timeout: float) -> Iterator[Event]:
        """What happened since the last call; waits up to ``timeout`` seconds for something to happen.

        Raises:
            TrainingError: Workers end again and again before they can take a member.
        """
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by_pipe), timeout):
            worker = by_pipe[pipe]  # pyright: ignore[reportArgumentType]
            try:
                event: Event | None = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._bury(worker)
                continue
            if event is None:
                worker.is_ready = True
                continue
            if event.kind != "report":
                worker.member = None
                worker.failures = worker.failures + 1 if event.kind == "failed" else 0
            yield event
            if event.kind == "failed" and self._is_bad(worker):  # never while it trains one
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

    def _bury(self, worker: _Worker) -> Iterator[Event]:
        worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        worker.failures += 1
        if worker.member is not None:
            yield Event(member=worker.member.id, kind="died", reason=f"its process ended by {how}")
        if self._is_bad(worker):
            self._retire(worker, f"its process ended by {how}")
        elif not worker.is_ready and worker.failures >= _STILLBORN:
            raise TrainingError(
                f"A worker ended by {how} before it could take a member, {worker.failures} times. What it said is "
                "above; python -m training member trains one in this process."
            )
        else:
            fresh = self._start_worker(worker.gpu, failures=worker.failures)
            self._workers[self._workers.index(worker)] = fresh

    def _is_bad(self, worker: _Worker) -> bool:
        """Whether a slot fails again and again while another does not: it would use up the attempts of all members."""
        others = (other for other in self._workers if other is not worker)
        return worker.failures >= _FAILURES and any(other.is_ready and not other.failures for other in others)

    def _retire(self, worker: _Worker, reason: str) -> None:
        """Do without a slot."""
        self._workers.remove(worker)
        worker.pipe.close()
        what = "a worker" if worker.gpu is None else f"the worker on GPU {worker.gpu}"
        _log.warning("%s failed %d times in a row, others did not: it gets no more members. %s",
                     what, worker.failures, reason)  # fmt: skip

    def _start_worker(self, gpu: str | None, *, failures: int = 0) -> _Worker:
        ours, theirs = self._context.Pipe()
        # No daemon: those have no children, which decode.
        process = self._context.Process(target=_work, args=(theirs, self._job, gpu))
        with _sees(gpu), _without_interrupts():
            try:
                process.start()
            except EOFError as error:
                raise TrainingError(
                    "The process that workers are forked from ended while it imported what they need. What it said is "
                    "above; python -m training member trains a member in this process."
                ) from error
        theirs.close()
        return _Worker(process=process, pipe=ours, gpu=gpu, failures=failures)


def default_workers() -> int:
    """How many processes train unless the user says so: one a GPU; without any one a core, `_MOST` at most."""
    if gpus := visible_gpus():
        return len(gpus)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST)


def _context(gpus: Sequence[str | None]) -> SpawnContext | ForkServerContext:
    """How workers are started: each a process of its own, or forked from one that has imported what all need.

    A fork sees the GPUs of the process it comes from, and CUDA does not survive one; macOS' libraries do not either.
    """
    if list(gpus) != [None] or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([TRAIN_MEMBER.partition(":")[0]])
    return context


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


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C is for the driver: what starts inside takes no notice, from its first moment on."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, job: Job, gpu: str | None) -> None:
    """A worker's life: members from the pipe, events into it."""
    multiprocessing.set_start_method(None, force=True)  # else decoders would be spawned as this was: seconds an epoch
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the driver's end is enough
    members: SimpleQueue[tuple[PlannedMember, str | None]] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, members), daemon=True).start()
    if gpu is not None:
        import torch

        if not torch.cuda.is_available():  # it would train on the CPU, unasked
            raise RuntimeError(f"GPU {gpu} does not answer.")
    worker = Worker(job)  # imports for seconds, in which `_listen` already sees the driver's end
    pipe.send(None)  # ready
    while True:
        planned, parent_sha256 = members.get()
        pipe.send(worker.train(planned, parent_sha256=parent_sha256, report=_reporter(pipe, planned)))


def _listen(pipe: Connection, members: "SimpleQueue[tuple[PlannedMember, str | None]]") -> None:
    try:
        while True:
            members.put(pipe.recv())
    except (EOFError, OSError):
        _end()  # the driver is gone; what was finished is on disk


def _end(*_: object) -> None:
    """End this process at once, and let others have what it is at; a file server that hangs holds it up no longer."""
    giving_back = threading.Thread(target=release_all, daemon=True)
    giving_back.start()
    giving_back.join(timeout=2)
    os._exit(1)


def _reporter(pipe: Connection, planned: PlannedMember):
    lock = threading.Lock()  # the thread that writes checkpoints reports, too

    def tell(report: Report) -> None:
        with lock:
            pipe.send(Event(member=planned.id, kind="report", report=report))

    return tell
