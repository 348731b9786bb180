"""Which member starts when, and what follows from what became of it.

A child starts when its own parent is done. Of what can start, that comes first which the longest work hangs on. What
another run is at is left to it, and looked at again: it may finish, or be free one day.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from training.attempts import note_attempt
from training.population.engines import Engine, Event, is_full_disk
from training.population.progress import Progress
from training.recipes.plan import PlannedMember
from training.workspace import Workspace
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId

_TROUBLE = 600.0  # seconds
_AGAIN = 3.0  # seconds until a member that another run is at is looked at again


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of a run.

    Args:
        done: Members that completed, in this run or before.
        diverged: Members whose loss did not stay finite, with what is known of it; they are in the zoo.
        failed: Members whose every attempt failed, with the last reason and the place of the log.
        skipped: Members whose parent failed or diverged, also one that was brought.
        left: Members that were not trained to their end, for the run was stopped.
        stopped: Why: ``hours`` (they are over) or ``full`` (the disk is); None where it came to its end.
        reason: What was said of the disk.
        unpublished: The command that goes on with an unfinished publication; None where there is none.
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
        planned: The members that the run is to train.
        brought: Those among them that come last, for they are parents that others are to train.
        progress: What is shown.
        attempts: How often a member is tried.
        deadline: When the run stops, by `time.monotonic`; None for never.
    """

    def __init__(
        self,
        workspace: Workspace,
        planned: Sequence[PlannedMember],
        progress: Progress,
        *,
        brought: Collection[MemberId] = (),
        attempts: int,
        deadline: float | None = None,
    ):
        self.workspace, self.progress, self.outcome = workspace, progress, Outcome()
        self._attempts, self._deadline = attempts, deadline
        self._planned = {member.id: member for member in planned}
        self._tried: Counter[MemberId] = Counter()
        self._running: set[MemberId] = set()
        self._parents: dict[MemberId, str | None] = {}  # those that are done, with the hash of their weights
        self._elsewhere: dict[MemberId, float] = {}  # what another run is at, and when to look again
        hanging = _hanging(planned)
        line = sorted(self._planned, key=lambda member: (member in brought, -hanging[member], member))
        self._waiting = dict.fromkeys(line)  # in order; a list would be searched for each member
        self._trouble_since: float | None = None  # when the folder could not be looked at
        for member in line:
            if member in self._waiting and workspace.is_done(member):
                workspace.discard(member)
                del self._waiting[member]
                self._ended(self._found(member))

    @property
    def left(self) -> int:
        """How many members wait or run."""
        return len(self._waiting) + len(self._running)

    def to_the_end(self, engine: Engine, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Have an engine train until nothing is left, or the run is to stop.

        Args:
            engine: What carries members out.
            meanwhile: Called now and then; must not wait.
        """
        while self._waiting or self._running:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self.outcome.stopped = "hours"
                break
            if self.outcome.stopped is None:
                self._start_what_can(engine)
            elif not self._running:
                break
            for event in engine.events(timeout=0.5):
                self.progress.happened(event)
                if event.kind != "report":
                    self._running.discard(event.member)
                    self._ended(event)
            meanwhile()
            self.progress.refresh(elsewhere=len(self._elsewhere))
        self.outcome.left = sorted({*self._running, *self._waiting})

    def _start_what_can(self, engine: Engine) -> None:
        for member in tuple(self._waiting):
            if not engine.free_slots:
                return
            try:
                may_start = self._may_start(member)
            except OSError as error:
                self._in_trouble(error)
                return
            self._trouble_since = None
            if may_start:
                del self._waiting[member]
                self._running.add(member)
                self.progress.started(member)
                parent = member.parent_id
                engine.start(self._planned[member], parent_sha256=parent and self._parents[parent])

    def _in_trouble(self, error: OSError) -> None:
        """The folder cannot be looked at; a server that does not answer now may do so in minutes.

        Raises:
            TrainingError: It has not for long.
        """
        if is_full_disk(error):
            self.outcome.stopped, self.outcome.reason = "full", f"{error}."
            return
        now = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
            self.progress.say(f"{self.workspace.root} cannot be looked at, which is tried again: {error}")
        if now - self._trouble_since > _TROUBLE:
            raise TrainingError(
                f"{self.workspace.root} could not be looked at for {_TROUBLE:.0f} s: {error}. Bring it back; the same "
                "command goes on."
            ) from error

    def _may_start(self, member: MemberId) -> bool:
        """Whether a member is to start now; where it stands finished by now, it leaves its place in line."""
        now = time.monotonic()
        if member not in self._waiting or self._elsewhere.get(member, now) > now:
            return False
        if member.parent_id is not None and not self._is_parent_done(member.parent_id):
            return False
        holder = self.workspace.holder(member)
        # Another run's work, or that of a process of ours that ended right after. Who held it has left by now.
        if self.workspace.is_done(member) or (holder is None and self.workspace.look_again(member)):
            self.workspace.discard(member)
            event = self._found(member)
            self._elsewhere.pop(member, None)
            del self._waiting[member]
            self.progress.happened(event)
            self._ended(event)
            return False
        if holder is not None:
            if member not in self._elsewhere:
                self.progress.say(f"{member} is left to {holder}, which is training it.")
            self._elsewhere[member] = now + _AGAIN
            return False
        self._elsewhere.pop(member, None)
        return True

    def _is_parent_done(self, parent: MemberId) -> bool:
        if parent not in self._parents and parent not in self._planned:  # it was done before this run began
            if not self.workspace.is_done(parent):
                raise TrainingError(
                    f"{parent} was done when this run began, and is not there any more. Start it again."
                )
            event = self._found(parent)
            if event.kind == "done":
                self._parents[parent] = event.sha256
            else:
                self._skip_children(parent)
        return parent in self._parents

    def _found(self, member: MemberId) -> Event:
        """What became of a member that stands in the zoo."""
        return Event.ended(member, self.workspace.source.member_record(member))

    def _ended(self, event: Event) -> None:
        if event.kind == "done":
            self._parents[event.member] = event.sha256
            self.outcome.done.append(event.member)
        elif event.kind == "diverged":
            self.outcome.diverged[event.member] = event.reason
            self._skip_children(event.member)
        elif event.kind == "held":
            self._elsewhere[event.member] = time.monotonic() + _AGAIN
            self._wait_first(event.member)
        elif event.kind == "full":
            self._note(event)
            self.outcome.stopped, self.outcome.reason = "full", event.reason
            self._wait_first(event.member)
        else:
            self._tried[event.member] += 1
            self._note(event)
            self._try_again(event)

    def _note(self, event: Event) -> None:
        note_attempt(
            self.workspace.attempts_file(event.member),
            attempt=self._tried[event.member] + (event.kind == "full"),
            of=self._attempts,
            kind=event.kind,  # pyright: ignore[reportArgumentType] (no other comes here)
            reason=event.reason,
        )

    def _try_again(self, event: Event) -> None:
        """A process that ended is no fault of its member, which goes on at once; one that raised comes last."""
        member, tried = event.member, self._tried[event.member]
        if tried < self._attempts or self.workspace.is_done(member):
            if event.kind == "died":
                self._wait_first(member)
            else:
                self._waiting[member] = None
            return
        times = f"{tried} attempts, the last: " if tried > 1 else ""
        self.outcome.failed[member] = f"{times}{event.reason} (log: {self.workspace.log_file(member)})"
        self._skip_children(member)

    def _wait_first(self, member: MemberId) -> None:
        self._waiting = {member: None, **self._waiting}

    def _skip_children(self, parent: MemberId) -> None:
        children = sorted(member for member in self._waiting if member.parent_id == parent)
        self.outcome.skipped += children
        self.progress.skipped(len(children))
        for member in children:
            del self._waiting[member]


def _hanging(planned: Sequence[PlannedMember]) -> dict[MemberId, float]:
    """The operations from each member's start to the end of the longest that waits for it."""
    longest: dict[MemberId, float] = {}
    for member in planned:
        if (parent := member.id.parent_id) is not None:
            longest[parent] = max(longest.get(parent, 0.0), member.flops)
    return {member.id: member.flops + longest.get(member.id, 0.0) for member in planned}
