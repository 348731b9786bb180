"""Run slots on a Ray cluster whose machines share the zoo folder: an actor in each slot, warm from member to member.

An actor runs the same worker as a process of `training.population.local`. Ray starts an actor for each slot when a
machine has room for it, also on a machine that joins later. A new actor replaces one that dies. The zoo folder is the
only record: Ray's own state is deleted with the run.

See `training.cli.member` for a member on several GPUs, which `accelerate launch` starts.
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
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from training.environment import COMMIT, SAME_BITS, code_digest, fix_environment, git_commit, versions
from training.population.engine import Event
from training.population.worker import Job, Worker
from training.recipes.plan import PlannedMember
from vitzoo.errors import MissingPackageError, TrainingError
from vitzoo.records import layout

Order = tuple[PlannedMember, str | None]  # a member, and the hash of its parent's final weights

_log = logging.getLogger(__name__)
_RUNS = layout.TRAINING / "ray-runs.txt"  # a line for each run; a machine that can read it shares the zoo folder
_LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"  # Linux has all of 127.*; Ray replaces 127.0.0.1
_JOIN_SECONDS = 5.0  # timeout of a connection to the head
_SHARED_SECONDS = 10.0  # timeout for a line of another machine to appear
_LONGEST_FOLDER = 40  # characters of a path that leave room for the names of Ray's sockets, 107 in all
_DEATHS = 3  # of actors of a slot, after which a run that never had a slot gives up
_LONGEST_PAUSE = 30.0  # seconds between two starts of an actor that does not come up
_ADVICE = (
    "Start a cluster with `ray start --head` (other machines join it with `ray start --address HOST:PORT`) and name it "
    "with --address HOST:PORT, or omit --address to start Ray for this run alone."
)
_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """The driver's message to a new actor.

    Args:
        job: The work of the run.
        run: Random text of this run, a line of the file of runs in the zoo folder.
        resources: Resources of a slot, by Ray's names.
        slots: Number of slots of the run.
        versions: Versions of the driver's packages and a digest of its code.
    """

    job: Job
    run: str
    resources: dict[str, float]
    slots: int
    versions: dict[str, str]


class MemberTrainer:
    """The actor of a slot: trains members on a machine of the cluster."""

    def prepare(self, setup: Setup) -> str:
        """Check this machine, import the packages for training, and return the machine's name.

        Raises:
            TrainingError: The machine does not share the zoo folder, or has other packages or code than the driver.
        """
        import ray

        for name in _LAUNCHERS:  # Ray itself may have been started by a launcher
            os.environ.pop(name, None)
        _check_machine(setup)
        node = ray.get_runtime_context().get_node_id()
        total = next(machine["Resources"] for machine in ray.nodes() if machine["NodeID"] == node)
        room = min(int(total.get(name, 0.0) / amount + 1e-6) for name, amount in setup.resources.items())
        execution = setup.job.execution
        decoders = execution.decoders_among(max(1, min(room, setup.slots)))
        sharing = int(1 / setup.resources.get("GPU", 1.0))
        execution = replace(execution, loader_workers=decoders, members_per_gpu=sharing)
        self._worker = Worker(replace(setup.job, execution=execution))
        return socket.gethostname()

    def train(self, planned: PlannedMember, parent_sha256: str | None) -> Iterator[Event | None]:
        """Train a member. Yield None when it has started, then its events."""
        yield None
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        arguments = (planned, parent_sha256, events.put)
        threading.Thread(target=self._worker.train, args=arguments, daemon=True).start()
        while (event := events.get()).kind == "report":
            yield event
        yield event


@dataclass(kw_only=True, slots=True, eq=False)
class _Slot:
    """A place for an actor, and for its successors."""

    actor: Any = None  # None during a pause
    answer: Any = None  # the pending answer to `prepare`, or the stream of a member's events; None if idle
    host: str = ""  # the actor's machine; empty until the actor is ready
    order: Order | None = None
    has_begun: bool = False  # whether the training of that order has started
    failures: int = 0  # actors lost in a row before they were ready
    start_at: float = 0.0  # end of the pause, by `time.monotonic`


class RayEngine:
    """Slots on a Ray cluster, each training one member at a time.

    Args:
        job: The work of the run.
        address: ``HOST:PORT`` of the cluster's head, or ``auto`` for the cluster of this machine; None starts Ray here.
        slots: Number of slots to ask for; fewer run if the cluster has no room for all.
        gpus_per_member: Share of a GPU for each slot, above 0 to 1; None for a whole GPU, or a CPU in a cluster without
            GPUs.

    Raises:
        MissingPackageError: Ray is not installed.
        TrainingError: No cluster answers, Ray does not start, or the share is out of range.
    """

    def __init__(self, job: Job, *, address: str | None = None, slots: int, gpus_per_member: float | None = None):
        if gpus_per_member is not None and not 0 < gpus_per_member <= 1:
            raise TrainingError(
                f"--gpus-per-member {gpus_per_member:g} is out of range",
                expected="1 or a share of a GPU, such as 0.5",
                fix="Train a member on several GPUs with accelerate launch (training/README.md).",
            )
        data = {name: Path(folder).absolute() for name, folder in job.execution.data.items()}
        job = replace(job, root=job.root.absolute(), execution=replace(job.execution, data=data))
        self._orders: deque[Order] = deque()
        self._had_slots, self._warned = False, set[str]()
        with contextlib.ExitStack() as closing:
            # Ray prints long messages about each process that ends; the run prints a line.
            log = closing.enter_context(open(job.root / layout.TRAINING / "logs/ray.log", "a", encoding="utf-8"))
            closing.enter_context(contextlib.redirect_stdout(log))
            self._ray = _connect(address, closing, package=job.train.partition(".")[0])
            gpus = self._ray.cluster_resources().get("GPU", 0.0)
            resources = {"GPU": gpus_per_member or 1.0} if gpus_per_member or gpus else {"CPU": 1.0}
            if "GPU" in resources and not gpus:
                if address is None:
                    raise TrainingError("This machine has no GPU", fix="Omit --gpus-per-member and --members-per-gpu.")
                _log.warning("No machine of the cluster has a GPU yet; the run waits for one that joins.")
            self._setup = Setup(
                job=job, run=secrets.token_hex(8), resources=resources, slots=slots, versions=_versions()
            )
            with open(job.root / _RUNS, "a", encoding="ascii") as runs:
                runs.write(f"{self._setup.run}\n")
            cpus, gpu_share = resources.get("CPU", 0), resources.get("GPU", 0)
            self._actors = self._ray.remote(max_restarts=0, num_cpus=cpus, num_gpus=gpu_share)(MemberTrainer)
            self._slots = [_Slot() for _ in range(slots)]
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
        self._give_members()

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
        self._give_members()

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

    def _give_members(self) -> None:
        """Give waiting members to idle slots."""
        for slot, _ in zip(self._idle, tuple(self._orders), strict=False):
            slot.order, slot.has_begun = self._orders.popleft(), False
            slot.answer = slot.actor.train.options(num_returns="streaming").remote(*slot.order)

    def _receive(self, slot: _Slot) -> Event | None:
        """Take a slot's answer."""
        try:
            if slot.order is None:  # the answer of `prepare`
                slot.host = self._ray.get(slot.answer)
                slot.answer, slot.failures, self._had_slots = None, 0, True
                return None
            event: Event | None = self._ray.get(next(slot.answer))
        except self._ray.exceptions.RayTaskError as error:
            return self._lose(slot, str(error.cause) or type(error.cause).__name__, has_raised=True)
        except self._ray.exceptions.RayError as error:
            last = [line.strip() for line in str(error).splitlines() if line.strip()][-1:] or [type(error).__name__]
            reason = f"A process of the cluster ended before it could train. {last[0]}"
            if slot.host:
                reason = f"its process on {slot.host} ended ({type(error).__name__})"
            return self._lose(slot, reason, has_raised=False)
        if event is None:
            slot.has_begun = True
        elif event.kind != "report":
            slot.order = slot.answer = None
        return event

    def _lose(self, slot: _Slot, reason: str, *, has_raised: bool) -> Event | None:
        """Drop a slot's actor, and return the event of its member. Another slot takes a member that had not started.

        Raises:
            TrainingError: The machines cannot train, or actors die before any of them is ready.
        """
        order, had_begun, was_ready = slot.order, slot.has_begun, bool(slot.host)
        self._ray.kill(slot.actor)
        slot.actor = slot.answer = slot.order = None
        slot.host, slot.failures = "", slot.failures + 1
        slot.start_at = time.monotonic() + min(2.0**slot.failures - 1, _LONGEST_PAUSE)
        if order is not None and had_begun:
            return Event(member=order[0].id, kind="failed" if has_raised else "died", reason=reason)
        if order is not None:
            self._orders.appendleft(order)
        if not self._had_slots and (has_raised or slot.failures >= _DEATHS):
            raise TrainingError(reason)
        if not was_ready and reason not in self._warned:
            self._warned.add(reason)
            _log.warning("A slot does not start, and is tried again: %s", reason)
        return None


def gpu_share(members: int) -> float:
    """Return the share of a GPU for each of several members, in Ray's units of 1/10,000, rounded down."""
    return 10_000 // members / 10_000


def _connect(address: str | None, closing: contextlib.ExitStack, *, package: str) -> ModuleType:
    """Connect to Ray until ``closing`` is closed, and send it the code and the variables that decide bits.

    Raises:
        MissingPackageError: Ray is not installed.
        TrainingError: No cluster answers at the address, or Ray does not start.
    """
    check_ray(address)
    if address is None:
        # Any client of Ray's ports could run code, so only this run has the token. Ray reads it when it is imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # under `uv run` each node would build an environment
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # `ray job submit` may have sent the repository
    import ray
    import ray.exceptions

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
            problem = "Ray does not start on this machine" if address is None else f"Cannot join Ray at {address}"
            raise TrainingError(f"{problem}: {str(error).strip() or type(error).__name__}", fix=_ADVICE) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray has replaced the handler
    return ray


def check_ray(address: str | None) -> None:
    """Check within moments that Ray is installed, and that a server answers at an address; Ray waits for minutes.

    Raises:
        MissingPackageError: Ray is not installed.
        TrainingError: No server answers.
    """
    if find_spec("ray") is None:
        raise MissingPackageError(
            "--engine ray needs Ray, which is not installed",
            fix='Run pip install ".[ray]" in the repository, or omit --engine to start processes on this machine.',
            package="ray",
        )
    if address in (None, "auto"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise TrainingError(
            f"--address {address} is not the address of a cluster's head",
            expected="auto, or HOST:PORT such as 10.0.0.1:6379",
            fix="Start the run on a machine of the cluster.",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_JOIN_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise TrainingError(
            f"No Ray cluster answers at {address} within {_JOIN_SECONDS:.0f} s ({error})", fix=_ADVICE
        ) from error


def _check_machine(setup: Setup) -> None:
    """Check that this machine has the driver's zoo folder, packages and code."""
    path, give_up = setup.job.root / _RUNS, time.monotonic() + _SHARED_SECONDS
    while not path.is_file() or setup.run not in path.read_text("ascii").split():
        if time.monotonic() > give_up:
            raise TrainingError(
                f"{socket.gethostname()} does not see the zoo folder {setup.job.root} of the machine that started the "
                "run, and a cluster without a shared folder is not supported",
                fix="Mount it there under the same path.",
            )
        time.sleep(0.1)
    versions_here = _versions()
    for name, version in setup.versions.items():
        if versions_here[name] != version:
            raise TrainingError(
                f"{socket.gethostname()} has {name} {versions_here[name]:.16}, so members would not have the same bits "
                "on every machine",
                expected=f"{version:.16}, as on the driver",
                fix="Install the same versions everywhere (pip install -c constraints.txt). If the code was edited, "
                "start the run again.",
            )


def _versions() -> dict[str, str]:
    return versions() | {"code": code_digest()}
