"""The processes of a cluster that train one member at a time, as the driver speaks to them.

They are as many as a member has ranks: one, or one a GPU of a machine. None outlives another: where one is gone, those
that wait for it would wait for ever. `ray_rank` is what runs in them.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.environment import code_digest, versions
from training.population.engines import Event
from training.population.engines.ray_rank import Place, Rank, Setup
from training.population.engines.ray_scratch import Part, Sent
from training.population.worker import Job
from training.recipes.plan import PlannedMember
from vitzoo.ids import MemberId

_CALLS = 4  # at a time to one process: `live`, `train`, `leave` and one more
_AHEAD = 4  # items on their way to the driver, where they are parts of files
_GRACE = 5.0  # seconds for rank 0 to say by itself what another rank failed with
_ECHO = 1.0  # seconds in which it is learned that a rank fails for the death of another
_FINISHED = ("done", "diverged")


class GangEnded(Exception):
    """A process of a gang is gone, and the gang with it.

    Args:
        event: What became of the member, where a process said so; None where it ended without a word.
        begun: Whether the member had begun.
    """

    def __init__(self, reason: str, *, event: Event | None = None, begun: bool = False):
        super().__init__(reason)
        self.event, self.begun = event, begun


class Unfit(Exception):
    """A machine on which members cannot be trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What a slot takes of a cluster.

    Args:
        ranks: Processes, on one machine.
        gpus: Of each; a share of a GPU, or one. Those that take none take a CPU.
    """

    ranks: int = 1
    gpus: float = 0.0

    @property
    def resources(self) -> dict[str, float]:
        """Of all ranks together, as Ray calls them."""
        return {"GPU": self.ranks * self.gpus} if self.gpus else {"CPU": float(self.ranks)}

    def fit_into(self, resources: dict[str, float]) -> int:
        """How many such slots a machine has room for."""
        return min(int(resources.get(name, 0.0) / needed + 1e-6) for name, needed in self.resources.items())

    def __str__(self) -> str:
        (name, count) = next(iter(self.resources.items()))
        return f"{count:g} {name}{'' if count <= 1 else 's'}"


class Gang:
    """Processes for one slot. They are asked for at once, and come when the cluster has room.

    Args:
        ray: The package.
        need: What they take.
    """

    def __init__(self, ray: Any, need: Need):
        self._ray, self._need = ray, need
        self._group = None
        options: list[dict[str, Any]] = [{}]
        if need.ranks > 1:
            from ray.util.placement_group import placement_group
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

            self._group = placement_group([{"GPU": 1}] * need.ranks, strategy="STRICT_PACK")
            options = [
                {
                    "scheduling_strategy": PlacementGroupSchedulingStrategy(
                        self._group, placement_group_bundle_index=rank
                    )
                }
                for rank in range(need.ranks)
            ]
        taken = {"num_gpus": need.gpus, "num_cpus": 0} if need.gpus else {"num_cpus": 1}
        actor = ray.remote(max_concurrency=_CALLS, max_restarts=0, **taken)(Rank)
        self._ranks = [actor.options(**more).remote() for more in options]
        self.place: Place | None = None  # None while there is no room
        self.is_idle = self.is_scratch = False
        self._ended = threading.Event()
        self._verdict: Event | None = None

    @property
    def is_gone(self) -> bool:
        """Whether its processes have ended, or are about to."""
        return self._ended.is_set()

    def prepare(
        self, job: Job, *, token: Callable[[], contextlib.AbstractContextManager[Path]], scratch: Path | None, most: int
    ) -> None:
        """Wait until there is room, and make the processes ready.

        Args:
            job: What they are told.
            token: Makes a file for a moment that they are to see.
            scratch: A folder of their machine to train in; None to train in the zoo.
            most: Slots of the run.

        Raises:
            Unfit: Members cannot be trained on their machine.
            GangEnded: One of them is gone.
        """
        with self._failing():
            places: list[Place] = self._get([rank.introduce.remote() for rank in self._ranks])
            self.place, main = places[0], self._ranks[0]
            if scratch is None:
                with token() as path:
                    self._get(main.look_for.remote(path))
            else:
                self.is_scratch = True
                job = replace(job, root=self._get(main.open_scratch.remote(scratch, job.root.name)))
            room = {node["NodeID"]: node["Resources"] for node in self._ray.nodes()}.get(self.place.node, {})
            setup = Setup(
                job=job,
                neighbours=max(1, min(self._need.fit_into(room), most)) * self._need.ranks,
                versions=versions(),
                code=code_digest(),
            )
            ready = [
                rank.prepare.remote(setup, its) for rank, its in zip(self._ranks, environments(places), strict=True)
            ]
            self._get(ready)
            self.is_idle = True

    def on_end(self, tell: Callable[[], None]) -> None:
        """Have somebody told, in any thread, when a process is gone."""

        def ended(_: Future) -> None:
            self._ended.set()
            tell()

        for rank in self._ranks:
            rank.live.remote().future().add_done_callback(ended)

    def hand_over(self, parts: Iterable[Part], member: MemberId) -> None:
        """Send what a member starts from.

        Raises:
            GangEnded: A process is gone; the member has not begun.
            Unfit: It cannot be written there.
        """
        self.is_idle = False
        main = self._ranks[0]
        with self._failing():
            for part in parts:
                self._get(main.receive.remote(part))
            self._get(main.unpack.remote(member))

    def train(self, planned: PlannedMember, parent_sha256: str | None) -> Iterator[Sent | Event]:
        """Train a member.

        Yields:
            What is told and sent, in order; last what became of it.

        Raises:
            GangEnded: A process is gone.
        """
        self.is_idle, begun = False, False
        main, *others = self._ranks
        following = [other.follow.remote(planned, parent_sha256) for other in others]
        for rank, ref in enumerate(following, 1):
            ref.future().add_done_callback(lambda future, rank=rank: self._followed(future, rank, planned.id))
        ahead = _AHEAD if self.is_scratch else -1
        stream = main.train.options(num_returns="streaming", _generator_backpressure_num_objects=ahead)
        event = None
        try:
            for ref in stream.remote(planned, parent_sha256):
                item: Sent | Event | None = self._ray.get(ref)
                if item is None:
                    begun = True
                    continue
                if isinstance(item, Event) and item.kind != "report":
                    event = item
                    break
                yield item
            if event is not None and (not following or event.kind in _FINISHED):
                self._get(following)
                if self.is_scratch:
                    self._get(main.clear.remote())
                self.is_idle = True
        except self._ray.exceptions.RayError as error:
            if event is None:
                raise GangEnded(self._describe(error), event=self._verdict, begun=begun) from error
        if event is not None and event.kind == "failed" and following and self._ended.wait(_ECHO):
            event = replace(event, kind="died", reason=f"a rank's process ended: {event.reason}")
        if event is not None:
            yield event

    def leave(self) -> list[Any]:
        """Ask for what a kill would leave undone; what to wait for."""
        return [self._ranks[0].leave.remote()] if self.is_scratch and not self.is_gone else []

    def end(self) -> None:
        """End every process."""
        self._ended.set()
        for rank in self._ranks:
            self._ray.kill(rank)
        if self._group is not None:
            from ray.util.placement_group import remove_placement_group

            remove_placement_group(self._group)

    def _get(self, refs: Any) -> Any:
        return self._ray.get(refs)

    def _followed(self, future: Future, rank: int, member: MemberId) -> None:
        """Another rank than 0 has ended: where it failed, the others would wait for it."""
        error = future.exception()
        event = None if error is not None else future.result()
        if event is not None and event.kind in _FINISHED:
            return
        if self._verdict is None and event is not None:
            self._verdict = replace(event, reason=f"rank {rank}: {event.reason}")
        elif self._verdict is None and not self.is_gone:
            self._verdict = Event(member=member, kind="died", reason=f"rank {rank}: {self._describe(error)}")
        timer = threading.Timer(_GRACE, self.end)
        timer.daemon = True
        timer.start()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        exceptions = self._ray.exceptions
        try:
            yield
        except exceptions.RayTaskError as error:
            raise Unfit(str(error.cause) or type(error.cause).__name__) from error
        except exceptions.RayError as error:
            raise GangEnded(self._describe(error)) from error

    def _describe(self, error: BaseException | None) -> str:
        return describe_end(error, "" if self.place is None else self.place.host)


def describe_end(error: BaseException | None, host: str) -> str:
    """What Ray says of a process's end, in a line.

    Args:
        error: Ray's.
        host: Name of the machine; empty where it is not known.
    """
    text, where = " ".join(str(error).split()), host and f" on {host}"
    if "node has died" in text or "node was terminated" in text or "Node" in type(error).__name__:
        return f"its machine{where} is gone"
    _, _, detail = text.partition("Worker exit detail: ")
    first = (detail or text).split(". ")[0].strip() or type(error).__name__
    return f"its process{where} ended: {first[:300]}"


def environments(places: list[Place]) -> list[dict[str, str]]:
    """What `torchrun` would set for each rank; every rank sees the GPUs of all, as there. Nothing for one alone."""
    count = len(places)
    if count == 1:
        return [{}]
    common = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",  # they are on one machine
        "MASTER_PORT": str(places[0].port),
    }
    if all(place.gpus for place in places):
        common["CUDA_VISIBLE_DEVICES"] = ",".join(place.gpus for place in places)
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
