"""The engine for many machines: slots on a Ray cluster, each with processes that stay warm from member to member.

Where all machines see the zoo's folder, members are trained in it, as by the local engine. Where they do not, each
trains in a scratch folder and the driver, this process, brings the files to the zoo after each epoch.

A thread here carries a slot through its life: it asks for processes and waits for room, gives them one member after
another, and begins again where one is gone. So a machine that is taken away costs slots until there is another, and
one that joins brings some. What Ray keeps is thrown away with it: the zoo folder is all that counts.
"""

import contextlib
import logging
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from training.lease import LeaseHeld, LeaseLost
from training.population.engines import Event
from training.population.engines.ray_cluster import Cluster
from training.population.engines.ray_gang import Gang, GangEnded, Need, Unfit
from training.population.engines.ray_scratch import Inbox, parts_to_start_from
from training.population.worker import Job
from training.recipes.plan import PlannedMember
from training.workspace import Workspace
from vitzoo.errors import TrainingError, VitZooError
from vitzoo.records import layout

_log = logging.getLogger(__name__)
_DEATHS = 3  # of processes that start, after which a run that never had a slot gives up
_LONGEST_PAUSE = 30.0  # seconds between two starts of a slot that does not come up
_FAREWELL = 5.0  # seconds for processes to clean up


@dataclass(frozen=True, kw_only=True, slots=True)
class _Order:
    planned: PlannedMember
    parent_sha256: str | None


class RayEngine:
    """Slots on a Ray cluster, each training one member at a time.

    Args:
        job: What the workers are told.
        address: ``HOST:PORT`` of the cluster, or ``auto`` for the one of this machine; None starts Ray here.
        most: Slots that are asked for; there are as many as the cluster has room for.
        gpus_per_member: GPUs of a slot: a share of one, or several of one machine, a rank each. None for one where the
            cluster has GPUs, and a CPU where it has none.
        scratch: A folder of each machine to train in, where they do not share the zoo's; None where they do.

    Raises:
        MissingPackageError: Ray is not installed.
        TrainingError: No cluster answers, or the number of GPUs is none that a slot can have.
    """

    def __init__(
        self,
        job: Job,
        *,
        address: str | None = None,
        most: int,
        gpus_per_member: float | None = None,
        scratch: Path | None = None,
    ):
        _check_gpus(gpus_per_member)
        data = {name: Path(folder).absolute() for name, folder in job.execution.data.items()}
        self._job = replace(job, root=job.root.absolute(), execution=replace(job.execution, data=data))
        self._workspace = Workspace(self._job.root, job.recipe)
        self._scratch = scratch and scratch.absolute()
        self._most = most
        self._changed = threading.Condition()
        self._orders: deque[_Order] = deque()
        self._happened: deque[Event] = deque()
        self._idle = self._deaths = 0
        self._had_slots = self._closing = self._woken = False
        self._error: Exception | None = None
        self._said: set[str] = set()
        self._gangs: set[Gang] = set()
        self._cluster = Cluster(address, packages={job.train.partition(".")[0]})
        self._need = self._find_need(gpus_per_member)
        self._threads = [threading.Thread(target=self._run_slot, name=f"slot {i}", daemon=True) for i in range(most)]
        for thread in self._threads:
            thread.start()

    @property
    def free_slots(self) -> int:
        """How many members could start now."""
        with self._changed:
            return max(0, self._idle - len(self._orders))

    def start(self, planned: PlannedMember, *, parent_sha256: str | None) -> None:
        """Begin or resume a member in a free slot."""
        with self._changed:
            self._orders.append(_Order(planned=planned, parent_sha256=parent_sha256))
            self._changed.notify_all()

    def events(self, timeout: float) -> Iterator[Event]:
        """What happened since the last call; waits up to ``timeout`` seconds for something to happen.

        Raises:
            TrainingError: No machine of the cluster can train.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._happened or self._woken or self._error, timeout)
            self._woken = False
            if self._error is not None:
                raise self._error
            happened = [self._happened.popleft() for _ in range(len(self._happened))]
        yield from happened

    def close(self) -> None:
        """End every process, and Ray where it was started here."""
        with self._changed:
            self._closing = True
            gangs = tuple(self._gangs)
            self._changed.notify_all()
        farewells = []
        for gang in gangs:
            farewells += gang.leave() or gang.end() or []
        if farewells:
            self._cluster.ray.wait(farewells, num_returns=len(farewells), timeout=_FAREWELL)
        for gang in gangs:
            gang.end()
        for thread in self._threads:
            thread.join(timeout=_FAREWELL)
        self._cluster.close()

    def _find_need(self, gpus: float | None) -> Need:
        """What a slot takes. Where no machine has it, one may join that does, but for a Ray of this machine alone."""
        ray = self._cluster.ray
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        need = Need(ranks=int(gpus), gpus=1.0) if gpus > 1 else Need(gpus=gpus)
        if not any(need.fit_into(node["Resources"]) for node in ray.nodes() if node["Alive"]):
            lacking = f"No machine of the cluster has {need} for a member"
            if self._cluster.is_own:
                self._cluster.close()
                raise TrainingError(f"{lacking}. Give --gpus-per-member what this machine has, or leave it out.")
            _log.warning("%s yet; waiting for one that joins.", lacking)
        return need

    def _run_slot(self) -> None:
        try:
            self._keep_slot()
        except Exception as error:  # noqa: BLE001 (raised again by `events`, in the thread that the run is in)
            with self._changed:
                if not self._closing:
                    self._error = error
                    self._changed.notify_all()

    def _keep_slot(self) -> None:
        """A slot's life, in a thread of its own."""
        failures = 0
        while not self._closing:
            gang = Gang(self._cluster.ray, self._need)
            with self._changed:
                self._gangs.add(gang)
            try:
                gang.prepare(self._job, token=self._token, scratch=self._scratch, most=self._most)
                gang.on_end(self._wake)
                failures = 0
                while (order := self._next_order(gang)) is not None:
                    self._carry_out(gang, order)
            except (Unfit, GangEnded) as error:
                failures += 1
                if gang.place is not None:  # else it was not begun on the machine that is gone
                    self._note_failure(error)
            finally:
                with self._changed:
                    self._gangs.discard(gang)
                if not self._closing:  # else `close` does it
                    gang.end()
            with self._changed:
                self._changed.wait_for(lambda: self._closing, min(2.0**failures - 1, _LONGEST_PAUSE))

    def _next_order(self, gang: Gang) -> _Order | None:
        """Wait for a member; None where the gang is of no use any more."""
        with self._changed:
            if not gang.is_idle:
                return None
            self._idle += 1
            self._had_slots = self._woken = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._orders or gang.is_gone or self._closing)
            self._idle -= 1
            return None if gang.is_gone or self._closing else self._orders.popleft()

    def _carry_out(self, gang: Gang, order: _Order) -> None:
        """Have a gang train a member, and tell what happens."""
        member = order.planned.id
        try:
            if self._scratch is None:
                for item in gang.train(order.planned, order.parent_sha256):
                    if isinstance(item, Event):
                        self._tell(item)
            else:
                self._tell(self._train_away(gang, order))
        except GangEnded as error:
            if error.begun:
                self._tell(error.event or Event(member=member, kind="died", reason=str(error)))
            else:  # the slot was gone before the member came to it: no attempt of that member
                self.start(order.planned, parent_sha256=order.parent_sha256)
        except Unfit as error:
            self._tell(Event(member=member, kind="failed", reason=str(error)))

    def _train_away(self, gang: Gang, order: _Order) -> Event:
        """Have a gang train a member on a machine that does not see the zoo; what became of it."""
        workspace, member = self._workspace, order.planned.id
        try:
            with workspace.hold(member) as work:
                if workspace.is_done(member):
                    return Event.ended(member, workspace.catalogue.member_record(member))
                gang.hand_over(parts_to_start_from(workspace, work), member)
                inbox, event = Inbox(workspace, work), None
                for item in gang.train(order.planned, order.parent_sha256):
                    if not isinstance(item, Event):
                        try:
                            inbox.take(item)
                        except OSError as error:
                            work.check()
                            return Event.raised(member, error)
                    elif item.kind == "report":
                        self._tell(item)
                    else:
                        event = item
                if event is not None and event.kind in ("done", "diverged"):
                    workspace.publish(work)
        except (LeaseHeld, LeaseLost) as error:
            return Event(member=member, kind="held", reason=str(error))
        except (OSError, VitZooError) as error:
            return Event.raised(member, error)
        if event is None:
            return Event(member=member, kind="died", reason="its process said nothing more")
        if event.kind in ("done", "diverged"):
            workspace.discard(member)
        return event

    def _note_failure(self, error: Unfit | GangEnded) -> None:
        """A slot did not come up. A run that has others goes on without it; one that never had any ends."""
        with self._changed:
            if self._closing:
                return
            self._deaths += isinstance(error, GangEnded)
            if not self._had_slots and (isinstance(error, Unfit) or self._deaths >= _DEATHS):
                self._error = TrainingError(str(error))
                self._changed.notify_all()
                return
            if str(error) in self._said:
                return
            self._said.add(str(error))
        _log.warning("A slot does not come up, and is tried again: %s", error)

    def _tell(self, event: Event) -> None:
        with self._changed:
            self._happened.append(event)
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @contextlib.contextmanager
    def _token(self) -> Iterator[Path]:
        """A file in the zoo folder, for a moment: machines that see it share the folder."""
        path = self._job.root / layout.TRAINING / f"seen-{secrets.token_hex(8)}"
        path.touch()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _check_gpus(gpus: float | None) -> None:
    if gpus is not None and (gpus <= 0 or (gpus > 1 and gpus != int(gpus))):
        raise TrainingError(
            f"--gpus-per-member {gpus:g}: expected a share of a GPU, such as 0.5, or a whole number of them."
        )
