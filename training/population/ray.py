"""Run slots on a Ray cluster whose machines share the zoo folder: an actor in each slot, warm from member to member.

An actor runs the same worker as a process of `training.population.local`. The driver asks for as many actors as may
train at a time, and Ray starts each when a machine has room for it, also on a machine that joins later. A new actor
replaces one that dies. Ray's own state is thrown away with the run: the zoo folder is the only record.

A member on several GPUs is started by `accelerate launch` (`python -m training member`), not by this engine.
"""

import contextlib
import logging
import os
import queue
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from training.environment import COMMIT, SAME_BITS, code_digest, fix_environment, git_commit, versions
from training.member.report import Report
from training.population.engine import Event
from training.population.worker import Job, Worker
from training.recipes.plan import PlannedMember
from vitzoo.errors import MissingPackageError, TrainingError
from vitzoo.records import layout

Order = tuple[PlannedMember, str | None]  # a member, and the hash of its parent's final weights

_log = logging.getLogger(__name__)
_RUNS = layout.TRAINING / "ray-runs.txt"  # a line for each run: a machine that sees it shares the zoo folder
_LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"  # Linux has all of 127.*; Ray replaces 127.0.0.1
_JOIN_SECONDS = 5.0  # until an address counts as dead
_SHARED_SECONDS = 10.0  # until a line that another machine wrote is seen
_LONGEST_FOLDER = 40  # characters of a path that leave room for the names of Ray's sockets, 107 in all
_DEATHS = 3  # of actors of a slot, after which a run that never had a slot gives up
_LONGEST_PAUSE = 30.0  # seconds between two starts of an actor that does not come up
_ADVICE = (
    "Start a cluster with `ray start --head` (other machines join it with `ray start --address HOST:PORT`) and name it "
    "with --address HOST:PORT; or leave --address out, and Ray starts for this run alone."
)
_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """The driver's message to a new actor.

    Args:
        job: The work of the run.
        run: Random text of this run, a line of the file of runs in the zoo folder.
        need: Resources of a slot, by Ray's names.
        most: Slots of the run.
        versions: Versions of the driver's packages and a digest of its code.
    """

    job: Job
    run: str
    need: dict[str, float]
    most: int
    versions: dict[str, str]


class MemberTrainer:
    """The actor of a slot: trains members on a machine of the cluster."""

    def prepare(self, setup: Setup) -> tuple[str, str]:
        """Check this machine and import all that training needs.

        Returns:
            The machine's name, and Ray's id of it.

        Raises:
            TrainingError: The machine does not share the zoo folder, or has other packages or code than the driver.
        """
        import ray

        for name in _LAUNCHERS:  # Ray itself may have been started by a launcher
            os.environ.pop(name, None)
        _check_machine(setup)
        node = ray.get_runtime_context().get_node_id()
        resources = next(one["Resources"] for one in ray.nodes() if one["NodeID"] == node)
        room = min(int(resources.get(name, 0.0) / needed + 1e-6) for name, needed in setup.need.items())
        execution = setup.job.execution
        decoders = execution.decoders_among(max(1, min(room, setup.most)))
        self._worker = Worker(replace(setup.job, execution=replace(execution, loader_workers=decoders)))
        return socket.gethostname(), node

    def train(self, planned: PlannedMember, parent_sha256: str | None) -> Iterator[Event | None]:
        """Train a member.

        Yields:
            None once it has begun, then its events.
        """
        yield None
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()

        def train() -> None:
            def report(progress: Report) -> None:
                events.put(Event(member=planned.id, kind="report", report=progress))

            events.put(self._worker.train(planned, parent_sha256=parent_sha256, report=report))

        threading.Thread(target=train, daemon=True).start()
        while (event := events.get()).kind == "report":
            yield event
        yield event


@dataclass(kw_only=True, slots=True, eq=False)
class _Slot:
    """One actor after another.

    Args:
        actor: The actor of the moment; None during a pause.
        answer: What the driver waits for: the answer to `prepare`, or the stream of a member's events; None if idle.
        host: Name of the actor's machine; empty until the actor is ready.
        node: Ray's id of that machine.
        order: The member that is trained.
        has_begun: Whether that member has begun.
        failures: Actors that were lost in a row before they were ready.
        start_at: End of the pause, by `time.monotonic`.
    """

    actor: Any = None
    answer: Any = None
    host: str = ""
    node: str = ""
    order: Order | None = None
    has_begun: bool = False
    failures: int = 0
    start_at: float = 0.0


class RayEngine:
    """Slots on a Ray cluster, each training one member at a time.

    Args:
        job: The work of the run.
        address: ``HOST:PORT`` of the cluster's head, or ``auto`` for the cluster of this machine; None starts Ray on
            this machine until `close`.
        most: Slots to ask for; there are as many as the cluster has room for.
        gpus_per_member: Share of a GPU for each slot, above 0 to 1. None for a whole GPU where the cluster has some,
            else for a CPU.

    Raises:
        MissingPackageError: Ray is not installed.
        TrainingError: No cluster answers, Ray does not start, or the share is out of range.
    """

    def __init__(self, job: Job, *, address: str | None = None, most: int, gpus_per_member: float | None = None):
        if gpus_per_member is not None and not 0 < gpus_per_member <= 1:
            raise TrainingError(
                f"--gpus-per-member {gpus_per_member:g}: expected 1 or a share of a GPU, such as 0.5. A member on "
                "several GPUs is started by accelerate launch (training/README.md)."
            )
        data = {name: Path(folder).absolute() for name, folder in job.execution.data.items()}
        job = replace(job, root=job.root.absolute(), execution=replace(job.execution, data=data))
        self._orders: deque[Order] = deque()
        self._had_slots, self._warned = False, set[str]()
        with contextlib.ExitStack() as closing:
            # Ray prints pages about each process that ends; the run prints a line.
            log = closing.enter_context(open(job.root / layout.TRAINING / "logs/ray.log", "a", encoding="utf-8"))
            closing.enter_context(contextlib.redirect_stdout(log))
            self._ray = _connect(address, closing, package=job.train.partition(".")[0])
            gpus = self._ray.cluster_resources().get("GPU", 0.0)
            need = {"GPU": gpus_per_member or 1.0} if gpus_per_member or gpus else {"CPU": 1.0}
            if "GPU" in need and not gpus:
                if address is None:
                    raise TrainingError("This machine has no GPU", fix="Leave --gpus-per-member out.")
                _log.warning("No machine of the cluster has a GPU yet; the run waits for one that joins.")
            here = versions() | {"code": code_digest()}
            self._setup = Setup(job=job, run=secrets.token_hex(8), need=need, most=most, versions=here)
            with open(job.root / _RUNS, "a", encoding="ascii") as runs:
                runs.write(f"{self._setup.run}\n")
            resources = {"num_gpus": need["GPU"], "num_cpus": 0} if "GPU" in need else {"num_cpus": 1}
            self._actors = self._ray.remote(max_restarts=0, **resources)(MemberTrainer)
            self._slots = [_Slot() for _ in range(most)]
            for slot in self._slots:
                self._start_actor(slot)
            self._closing = closing.pop_all()

    @property
    def free_slots(self) -> int:
        """Count the slots that can start a member now."""
        return max(0, len(self._idle) - len(self._orders))

    @property
    def _idle(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.host and slot.order is None]

    def start(self, planned: PlannedMember, *, parent_sha256: str | None) -> None:
        """Start or resume a member in a free slot."""
        self._orders.append((planned, parent_sha256))
        self._hand_out()

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield the events since the last call; wait up to ``timeout`` seconds for the first.

        Raises:
            TrainingError: No machine of the cluster can train.
        """
        for slot in self._slots:
            if slot.actor is None and slot.start_at <= time.monotonic():
                self._start_actor(slot)
        answers = {slot.answer: slot for slot in self._slots if slot.answer is not None}
        if not answers:
            time.sleep(timeout)
            return
        ready, _ = self._ray.wait([*answers], timeout=timeout)
        if ready:
            ready, _ = self._ray.wait([*answers], num_returns=len(answers), timeout=0)
        for answer in ready:
            if (event := self._receive(answers[answer])) is not None:
                yield event
        self._hand_out()

    def close(self) -> None:
        """End every actor, and Ray where it was started here."""
        for slot in self._slots:
            if slot.actor is not None:
                self._ray.kill(slot.actor)
        self._closing.close()

    def _start_actor(self, slot: _Slot) -> None:
        """Ask for an actor, which comes when the cluster has room."""
        slot.actor = self._actors.remote()
        slot.answer = slot.actor.prepare.remote(self._setup)

    def _hand_out(self) -> None:
        """Give members that wait to idle slots."""
        for slot, _ in zip(self._idle, tuple(self._orders), strict=False):
            slot.order, slot.has_begun = self._orders.popleft(), False
            slot.answer = slot.actor.train.options(num_returns="streaming").remote(*slot.order)

    def _receive(self, slot: _Slot) -> Event | None:
        """Take an answer that is there."""
        try:
            if slot.order is None:
                slot.host, slot.node = self._ray.get(slot.answer)
                slot.answer, slot.failures, self._had_slots = None, 0, True
                return None
            event: Event | None = self._ray.get(next(slot.answer))
        except self._ray.exceptions.RayTaskError as error:
            return self._lose(slot, str(error.cause) or type(error.cause).__name__, is_unfit=True)
        except self._ray.exceptions.RayError as error:
            return self._lose(slot, self._describe_end(slot, error), is_unfit=False)
        if event is None:
            slot.has_begun = True
        elif event.kind != "report":
            slot.order = slot.answer = None
        return event

    def _lose(self, slot: _Slot, reason: str, *, is_unfit: bool) -> Event | None:
        """Do without an actor, and start another one after a pause.

        Returns:
            The event of its member, if one had begun; a member that had not is given to another slot.

        Raises:
            TrainingError: The machines cannot train, or actors die before any of them is ready.
        """
        order, had_begun, was_ready = slot.order, slot.has_begun, bool(slot.host)
        self._ray.kill(slot.actor)
        slot.actor = slot.answer = slot.order = None
        slot.host, slot.failures = "", slot.failures + 1
        slot.start_at = time.monotonic() + min(2.0**slot.failures - 1, _LONGEST_PAUSE)
        if order is not None and had_begun:
            return Event(member=order[0].id, kind="failed" if is_unfit else "died", reason=reason)
        if order is not None:
            self._orders.appendleft(order)
        if not self._had_slots and (is_unfit or slot.failures >= _DEATHS):
            raise TrainingError(reason)
        if not was_ready and reason not in self._warned:
            self._warned.add(reason)
            _log.warning("A slot does not start, and is tried again: %s", reason)
        return None

    def _describe_end(self, slot: _Slot, error: Exception) -> str:
        if not slot.host:
            last = [line.strip() for line in str(error).splitlines() if line.strip()][-1:]
            return f"A process of the cluster ended before it could train. {''.join(last) or type(error).__name__}"
        if any(node["NodeID"] == slot.node and not node["Alive"] for node in self._ray.nodes()):
            return f"its machine {slot.host} is gone"
        return f"its process on {slot.host} ended ({type(error).__name__})"


def _connect(address: str | None, closing: contextlib.ExitStack, *, package: str) -> ModuleType:
    """Connect this process to Ray, and send it the code and the variables that decide bits.

    Args:
        address: Address as `RayEngine` takes it.
        closing: Stack that disconnects when it is closed.
        package: Package of the function that trains.

    Raises:
        MissingPackageError: Ray is not installed.
        TrainingError: No cluster answers there, or Ray does not start.
    """
    if address is None:
        # Whoever reaches Ray's ports may run anything: only this run has the token. Read when Ray is imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    else:
        _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # under `uv run` each node would build an environment
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # `ray job submit` may have sent the repository
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise MissingPackageError(
            '--engine ray needs Ray, which is not installed: pip install ".[ray]" in the repository; or leave --engine '
            "out, which starts processes on this machine.",
            package="ray",
        ) from None
    if ray.is_initialized():
        raise TrainingError("This process is connected to Ray already", fix="Call ray.shutdown() before a run.")
    options: dict[str, Any] = {"address": address}
    if address is None:
        folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="vitzoo-ray-", ignore_cleanup_errors=True))
        options = {"address": "local", "include_dashboard": False, "object_store_memory": 256 * 2**20}
        options |= {"_node_ip_address": _LOOPBACK} | ({"_temp_dir": folder} if len(folder) <= _LONGEST_FOLDER else {})
    with tempfile.TemporaryDirectory() as code:
        # A copy of these packages alone: Ray hashes all that it is given, for minutes.
        for name in {"training", "vitzoo", package}:
            source = Path(__file__).parents[2] / name
            shutil.copytree(source, Path(code) / name, ignore=shutil.ignore_patterns("__pycache__"))
        fix_environment()
        variables = {name: os.environ[name] for name in SAME_BITS} | {COMMIT: git_commit() or ""}
        environment = {"working_dir": code, "env_vars": variables}
        closing.callback(ray.shutdown)
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            what = "Ray does not start on this machine" if address is None else f"No Ray can be joined at {address}"
            raise TrainingError(f"{what}: {str(error).strip() or type(error).__name__}. {_ADVICE}") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray has replaced the handler
    return ray


def _check_address(address: str) -> None:
    """Check that a server listens there: Ray itself would wait for minutes.

    Raises:
        TrainingError: No server does, or the text is not an address.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise TrainingError(
            f"--address {address}: a run joins a cluster from one of its machines",
            fix="Start it there, with --address auto or HOST:PORT.",
        )
    if not host or not port.isdecimal():
        raise TrainingError(f"--address {address}: expected auto, or HOST:PORT such as 10.0.0.1:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_JOIN_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise TrainingError(
            f"No Ray cluster answers at {address} within {_JOIN_SECONDS:.0f} s ({error}). {_ADVICE}"
        ) from error


def _check_machine(setup: Setup) -> None:
    """Check that this machine has the driver's zoo folder, packages and code.

    Raises:
        TrainingError: It does not see the driver's line in the folder, or its members would have other bits.
    """
    path, give_up = setup.job.root / _RUNS, time.monotonic() + _SHARED_SECONDS
    while not path.is_file() or setup.run not in path.read_text("ascii").split():
        if time.monotonic() > give_up:
            raise TrainingError(
                f"{socket.gethostname()} does not see the zoo folder {setup.job.root} of the machine that started the "
                "run. Mount it there under the same path; a cluster without a shared folder is not supported."
            )
        time.sleep(0.1)
    here = versions() | {"code": code_digest()}
    for name, wanted in setup.versions.items():
        if here[name] != wanted:
            raise TrainingError(
                f"{socket.gethostname()} has {name} {here[name]:.16} (driver: {wanted:.16}): members would "
                "not be the same bits on every machine",
                fix="Install the same versions everywhere (pip install -c constraints.txt); if the code was "
                "edited, start again.",
            )
