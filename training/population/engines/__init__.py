"""What carries members out. An engine has slots, starts a member in one, and says what became of it.

`local` runs processes on this machine, `ray` on a cluster. What to start, and when, is `training.population.schedule`'s
business; what a process does with a member `training.population.worker`'s.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from training.member.record import describe_divergence
from training.member.report import Report
from training.recipes.plan import PlannedMember
from vitzoo.ids import MemberId
from vitzoo.records import MemberRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What became of a member.

    Args:
        member: Which.
        kind: ``report`` (it is under way), ``done``, ``diverged`` (its loss was not finite any more: an outcome, it is
            in the zoo), ``failed`` (it raised), ``died`` (its process ended), ``full`` (there is no room on the disk)
            or ``held`` (a process of another run is at it).
        report: Where it stands, for ``report``.
        reason: What happened, in a line, for all but ``report`` and ``done``.
        sha256: Of the final weights, for ``done``: its children are handed it.
    """

    member: MemberId
    kind: Literal["report", "done", "diverged", "failed", "died", "full", "held"]
    report: Report | None = None
    reason: str = ""
    sha256: str | None = None

    @classmethod
    def ended(cls, member: MemberId, record: MemberRecord) -> "Event":
        """What became of a member that was trained to its end."""
        if record.status == "diverged":
            return cls(member=member, kind="diverged", reason=describe_divergence(record))
        return cls(member=member, kind="done", sha256=record.final_weights.sha256)

    @classmethod
    def raised(cls, member: MemberId, error: Exception) -> "Event":
        """What an error made of a member."""
        kind = "full" if is_full_disk(error) else "failed"
        return cls(member=member, kind=kind, reason=f"{type(error).__name__}: {error}")


def is_full_disk(error: BaseException | None) -> bool:
    """Whether a disk without room, or a quota, is what an error came from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


@runtime_checkable
class Engine(Protocol):
    """Carries members out, each in a slot of its own."""

    @property
    def free_slots(self) -> int:
        """How many members could start now."""
        ...

    def start(self, planned: PlannedMember, *, parent_sha256: str | None) -> None:
        """Begin or resume a member in a free slot.

        Args:
            planned: The member.
            parent_sha256: Of its parent's final weights; None for a parent.
        """
        ...

    def events(self, timeout: float) -> Iterator[Event]:
        """What happened since the last call; waits up to ``timeout`` seconds for something to happen."""
        ...

    def close(self) -> None:
        """End every process."""
        ...
