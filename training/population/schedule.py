"""Decide which member starts when, and act on the events of an engine.

A child starts when its parent is done. Among the members that can start, the one with the longest chain of work comes
first. A member that another run holds is skipped and checked again later.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from training.attempts import note_attempt
from training.population.engine import Engine, Event, is_full_disk
from training.population.progress import Progress
from training.recipes.plan import PlannedMember
from training.workspace import Workspace, attempts_file, log_file
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId

_READ_TIMEOUT = 600.0  # seconds in which a zoo folder may be unreadable
_CHECK_AGAIN = 3.0  # seconds between two checks of a member that another run holds


@dataclass(kw_only=True, slots=True)
class Outcome:
    """Result of a run.

    Args:
        done: Members that completed, in this run or before.
        diverged: Members whose loss became NaN or infinite, with the reason; they are in the zoo.
        failed: Members whose every attempt failed, with the last reason and the path of the log.
        skipped: Members whose parent failed or diverged.
        left: Members that are unfinished because the run was stopped.
        stopped: ``hours`` (the time is over) or ``full`` (the disk is full); None for a complete run.
        reason: Error of the full disk.
        unpublished: The command that continues an unfinished publication; None without one.
    """

    done: list[MemberId] = field(default_factory=list)
    diverged: dict[MemberId, str] = field(default_factory=dict)
    failed: dict[MemberId, str] = field(default_factory=dict)
    skipped: list[MemberId] = field(default_factory=list)
    left: list[MemberId] = field(default_factory=list)
    stopped: str | None = None
    reason: str = ""
    unpublished: str | None = None


class Schedule:
    """The members of a run: waiting, running, ended.

    Args:
        workspace: The zoo folder.
        planned: The members to train, and their parents.
        progress: The display.
        last: Members that start after all others, because another run is to train them.
        attempts: Attempts at a member before it fails.
        deadline: End of the run, by `time.monotonic`; None for no limit.
    """

    def __init__(
        self,
        workspace: Workspace,
        planned: Sequence[PlannedMember],
        progress: Progress,
        *,
        last: Collection[MemberId] = (),
        attempts: int,
        deadline: float | None = None,
    ):
        self.workspace, self.progress, self.outcome = workspace, progress, Outcome()
        self._attempts, self._deadline = attempts, deadline
        self._planned = {member.id: member for member in planned}
        self._tried: Counter[MemberId] = Counter()
        self._running: set[MemberId] = set()
        self._parents: dict[MemberId, str | None] = {}  # hashes of the weights of members that are done
        self._held: dict[MemberId, float] = {}  # members that other runs hold, with the time of the next check
        chains = _chain_flops(planned)
        queue = sorted(self._planned, key=lambda member: (member in last, -chains[member], member))
        self._waiting = dict.fromkeys(queue)  # in order; a list would be searched for each member
        self._unreadable_since: float | None = None
        for member in queue:
            if member in self._waiting and workspace.is_done(member):  # not a child that was just skipped
                workspace.discard(member)
                del self._waiting[member]
                self._end(self._read_event(member))

    @property
    def left(self) -> int:
        """Count the members that wait or run."""
        return len(self._waiting) + len(self._running)

    def run(self, engine: Engine, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Train with an engine until no member is left, or the run is stopped.

        Args:
            engine: The engine.
            meanwhile: Called several times a second; must not wait.

        Raises:
            TrainingError: The folder's ``.training`` was deleted, or the folder was unreadable for too long.
        """
        while self._waiting or self._running:
            self.workspace.check_exists()
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self.outcome.stopped = "hours"
                break
            if self.outcome.stopped is None:
                self._start_members(engine)
            elif not self._running:
                break
            for event in engine.events(timeout=0.5):
                self.progress.add(event)
                if event.kind != "report":
                    self._running.discard(event.member)
                    self._end(event)
            meanwhile()
            self.progress.refresh(elsewhere=len(self._held))
        self.outcome.left = sorted({*self._running, *self._waiting})

    def _start_members(self, engine: Engine) -> None:
        for member in tuple(self._waiting):
            if not engine.free_slots:
                return
            try:
                can_start = self._can_start(member)
            except OSError as error:
                self._wait_for_folder(error)
                return
            if can_start:
                self._unreadable_since = None
                del self._waiting[member]
                self._running.add(member)
                self.progress.started(member)
                parent = member.parent_id
                engine.start(self._planned[member], parent_sha256=parent and self._parents[parent])
        self._unreadable_since = None  # every waiting member was looked at

    def _wait_for_folder(self, error: OSError) -> None:
        """Retry a folder that cannot be read: a file server may come back within minutes.

        Raises:
            TrainingError: The folder was unreadable for too long.
        """
        if is_full_disk(error):
            self.outcome.stopped, self.outcome.reason = "full", f"{error}."
            return
        now = time.monotonic()
        if self._unreadable_since is None:
            self._unreadable_since = now
            self.progress.say(f"{self.workspace.root} cannot be read; retrying: {error}")
        if now - self._unreadable_since > _READ_TIMEOUT:
            raise TrainingError(
                f"{self.workspace.root} could not be read for {_READ_TIMEOUT:.0f} s: {error}",
                fix="Make it readable; the same command continues.",
            ) from error

    def _can_start(self, member: MemberId) -> bool:
        """Return whether a member can start now. A member that is already done leaves the queue."""
        now = time.monotonic()
        if member not in self._waiting or self._held.get(member, now) > now:
            return False
        if member.parent_id is not None and member.parent_id not in self._parents:
            return False
        holder = self.workspace.holder(member)
        # Another run has finished it, or a worker that ended right after. Its lease is gone by now.
        if self.workspace.is_done(member) or (holder is None and self.workspace.is_done(member, refresh=True)):
            self.workspace.discard(member)
            event = self._read_event(member)
            self._held.pop(member, None)
            del self._waiting[member]
            self.progress.add(event)
            self._end(event)
            return False
        if holder is not None:
            if member not in self._held:
                self.progress.say(f"{member} is left to {holder}, which trains it.")
            self._held[member] = now + _CHECK_AGAIN
            return False
        self._held.pop(member, None)
        return True

    def _read_event(self, member: MemberId) -> Event:
        """Read the last event of a member from its record in the zoo."""
        return Event.from_record(member, self.workspace.catalogue.member_record(member))

    def _end(self, event: Event) -> None:
        """Act on the last event of a member in a slot."""
        if event.kind == "done":
            self._parents[event.member] = event.sha256
            self.outcome.done.append(event.member)
        elif event.kind == "diverged":
            self.outcome.diverged[event.member] = event.reason
            self._skip_children(event.member)
        elif event.kind == "held":
            self._held[event.member] = time.monotonic() + _CHECK_AGAIN
            self._wait_first(event.member)
        else:
            note_attempt(
                attempts_file(self.workspace.root, event.member),
                attempt=self._tried[event.member] + 1,
                of=self._attempts,
                kind=event.kind,  # pyright: ignore[reportArgumentType] (no other kind comes here)
                reason=event.reason,
            )
            if event.kind == "full":  # which does not count as an attempt
                self.outcome.stopped, self.outcome.reason = "full", event.reason
                self._wait_first(event.member)
            else:
                self._tried[event.member] += 1
                self._retry(event)

    def _retry(self, event: Event) -> None:
        """Queue a member again: first if its process died, last if it raised."""
        member, tried = event.member, self._tried[event.member]
        if tried < self._attempts or self.workspace.is_done(member):
            if event.kind == "died":
                self._wait_first(member)
            else:
                self._waiting[member] = None
            return
        times = f"{tried} attempts, the last: " if tried > 1 else ""
        self.outcome.failed[member] = f"{times}{event.reason} (log: {log_file(self.workspace.root, member)})"
        self._skip_children(member)

    def _wait_first(self, member: MemberId) -> None:
        self._waiting = {member: None, **self._waiting}

    def _skip_children(self, parent: MemberId) -> None:
        children = sorted(member for member in self._waiting if member.parent_id == parent)
        self.outcome.skipped += children
        self.progress.skipped(len(children))
        for member in children:
            del self._waiting[member]


def _chain_flops(planned: Sequence[PlannedMember]) -> dict[MemberId, float]:
    """Sum the operations of each member and of its largest child."""
    largest: dict[MemberId, float] = {}
    for member in planned:
        if (parent := member.id.parent_id) is not None:
            largest[parent] = max(largest.get(parent, 0.0), member.flops)
    return {member.id: member.flops + largest.get(member.id, 0.0) for member in planned}
