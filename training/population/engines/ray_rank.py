"""A process of a Ray cluster that trains members: the actor, as it is on its node. `ray_gang` speaks to it.

A slot has one, or one a GPU where a member is trained on several: those are ranks, as `torchrun` would start them.
"""

import os
import queue
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from training.environment import code_digest, versions
from training.lease import LeaseHeld
from training.member.report import Report
from training.population.engines import Event
from training.population.engines.ray_scratch import Outbox, Part, ScratchZoo, Sent
from training.population.worker import Job, Worker
from training.recipes.plan import PlannedMember
from training.workspace import Workspace
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId

_SEEN_WITHIN = 10.0  # seconds until a file of another machine is seen in a folder that both have
_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_AHEAD = 4  # parts that wait for the driver


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a rank is.

    Args:
        node: Ray's number of its machine.
        host: The machine's name.
        port: One that is free there, for ranks to meet at.
        gpus: Those that it was given, as ``CUDA_VISIBLE_DEVICES`` names them; empty for none.
    """

    node: str
    host: str
    port: int
    gpus: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a rank is told before its first member.

    Args:
        job: What all workers are told, with the folder to train in on its machine.
        neighbours: Members that are trained at a time on its machine, at most; they share its cores.
        versions: Of the driver's packages.
        code: Digest of the driver's code.
    """

    job: Job
    neighbours: int
    versions: dict[str, str]
    code: str


class Rank:
    """The actor. Its methods are called from the driver, several at a time."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._workspace: Workspace | None = None
        self._scratch: ScratchZoo | None = None

    def introduce(self) -> Place:
        """Say where it is."""
        import ray

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        node = ray.get_runtime_context().get_node_id()
        return Place(node=node, host=socket.gethostname(), port=port, gpus=os.environ.get("CUDA_VISIBLE_DEVICES") or "")

    def look_for(self, token: Path) -> None:
        """See to it that this machine has the zoo's folder: the driver has just written a file there.

        Raises:
            TrainingError: It has not.
        """
        give_up = time.monotonic() + _SEEN_WITHIN
        while not token.exists():
            if time.monotonic() > give_up:
                raise TrainingError(
                    f"{socket.gethostname()} does not see the zoo folder of the machine that the run was started on "
                    f"({token.parent.parent}). Mount it there under the same path, or give --scratch FOLDER: then "
                    "members are trained in that folder of each machine, and their files come here over the network."
                )
            time.sleep(0.1)

    def open_scratch(self, folder: Path, name: str) -> Path:
        """Make a folder to train in, where the zoo's is not seen.

        Raises:
            TrainingError: It cannot be made.
        """
        try:
            self._scratch = ScratchZoo(folder, name)
        except OSError as error:
            raise TrainingError(
                f"--scratch {folder} cannot be written to on {socket.gethostname()}: {error}. Name a folder that every "
                "machine of the cluster has or can make."
            ) from error
        return self._scratch.root

    def prepare(self, setup: Setup, environment: dict[str, str]) -> None:
        """Import all that training needs, and meet the other ranks.

        Args:
            setup: What all are told.
            environment: Variables of this rank, of those that `torchrun` sets.

        Raises:
            TrainingError: This machine has other packages than the driver's.
        """
        for name in _LAUNCHERS:
            os.environ.pop(name, None)  # of what Ray itself was started by
        os.environ.update(environment)
        _check_same(setup)
        execution = setup.job.execution
        job = replace(
            setup.job, execution=replace(execution, loader_workers=execution.decoders_among(setup.neighbours))
        )
        self._worker = Worker(job)
        self._workspace = Workspace(job.root, job.recipe)
        if environment.get("WORLD_SIZE"):
            import torch
            from accelerate import PartialState

            PartialState(cpu=not torch.cuda.is_available())  # a port that was taken meanwhile is no member's fault

    def live(self) -> None:
        """Never answer: the driver learns of this process's end by this call's."""
        threading.Event().wait()

    def train(self, planned: PlannedMember, parent_sha256: str | None) -> Iterator[Sent | Event | None]:
        """Train a member, as rank 0.

        Yields:
            None once it has begun, then what is to be told and sent, in order; last what became of it.
        """
        yield None
        said: queue.Queue[Sent | Event] = queue.Queue(maxsize=0 if self._scratch is None else _AHEAD)
        threading.Thread(target=self._train, args=(planned, parent_sha256, said), daemon=True).start()
        while True:
            item = said.get()
            yield item
            if isinstance(item, Event) and item.kind != "report":
                return

    def follow(self, planned: PlannedMember, parent_sha256: str | None) -> Event:
        """Train a member, as another rank than 0; what became of it."""
        return self._ready.train(planned, parent_sha256=parent_sha256, report=lambda _: None)

    def receive(self, part: Part) -> None:
        """Take a part of a file that a member is to start from."""
        if self._scratch is not None:
            self._scratch.receive(part)

    def unpack(self, member: MemberId) -> None:
        """Put what was received for a member to where training finds it."""
        if self._scratch is not None and self._workspace is not None:
            self._scratch.unpack(self._workspace, member)

    def clear(self) -> None:
        """Remove all that members left in the scratch folder."""
        if self._scratch is not None:
            self._scratch.clear()

    def leave(self) -> None:
        """Leave nothing on its machine: what comes next is its end."""
        if self._scratch is not None:
            self._scratch.remove()

    @property
    def _ready(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("a member came before `prepare`")
        return self._worker

    def _train(self, planned: PlannedMember, parent_sha256: str | None, said: "queue.Queue[Sent | Event]") -> None:
        outbox = None
        if self._scratch is not None and self._workspace is not None:
            outbox = Outbox(self._workspace, planned.id, said.put)

        def tell(report: Report) -> None:
            if outbox is not None and report.step == 0:  # an epoch is finished, and its files are written
                outbox.send_epoch()
            said.put(Event(member=planned.id, kind="report", report=report))

        event = self._ready.train(planned, parent_sha256=parent_sha256, report=tell)
        if outbox is not None:
            try:
                outbox.send_end()
            except OSError as error:
                reason = f"{socket.gethostname()}: {error}"
                event = Event(member=planned.id, kind="failed", reason=reason)
        if event.kind == "held" and self._scratch is not None:  # by nobody but a thread of this very process
            event = replace(event, kind="failed", reason=f"{LeaseHeld.__name__}: {event.reason}")
        said.put(event)


def _check_same(setup: Setup) -> None:
    """What decides bits is the driver's."""
    here = versions()
    differing = [
        f"{name} {here.get(name)} (here {found})" for name, found in setup.versions.items() if here.get(name) != found
    ]
    if differing:
        raise TrainingError(
            f"{socket.gethostname()} has {', '.join(differing)}: members would not be the same bits wherever they are "
            "trained. Install the same versions on every machine (pip install -c constraints.txt)."
        )
    if code_digest() != setup.code:
        raise TrainingError(
            f"{socket.gethostname()} imports another code from {Path(__file__).parents[3]} than this machine has: it "
            "was edited while the run began. Start it again."
        )
