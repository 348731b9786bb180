"""Define the interface between a run and its engine: slots that train members, and events that report on them.

See `training.population.local` and `training.population.ray` for the engines, and `training.population.schedule` for
the order of the members.
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
    """News of a member in a slot.

    Args:
        member: The member's id.
        kind: ``report`` (progress), ``done``, ``diverged`` (its loss became NaN or infinite; it is in the zoo),
            ``failed`` (training raised), ``died`` (its process ended), ``full`` (the disk is full) or ``held`` (another
            run holds it).
        report: Progress of the training, for ``report``.
        reason: Cause in one line, for all but ``report`` and ``done``.
        sha256: Hash of the final weights, for ``done``; its children need it.
    """

    member: MemberId
    kind: Literal["report", "done", "diverged", "failed", "died", "full", "held"]
    report: Report | None = None
    reason: str = ""
    sha256: str | None = None

    @classmethod
    def from_record(cls, member: MemberId, record: MemberRecord) -> "Event":
        """Return the event of a member that is in the zoo: ``done`` or ``diverged``."""
        if record.status == "diverged":
            return cls(member=member, kind="diverged", reason=describe_divergence(record))
        return cls(member=member, kind="done", sha256=record.final_weights.sha256)


def is_full_disk(error: BaseException | None) -> bool:
    """Return whether a full disk or an exceeded quota caused an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


@runtime_checkable
class Engine(Protocol):
    """Trains members, one in each slot."""

    @property
    def free_slots(self) -> int:
        """Count the slots that can start a member now."""
        ...

    def start(self, planned: PlannedMember, *, parent_sha256: str | None) -> None:
        """Start or resume a member in a free slot.

        Args:
            planned: The member.
            parent_sha256: Hash of the parent's final weights; None for a parent.
        """
        ...

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield the events since the last call; wait up to ``timeout`` seconds for the first."""
        ...

    def close(self) -> None:
        """End every process."""
        ...
