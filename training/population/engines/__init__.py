"""What carries members out. An engine has slots, starts a member in one, and says what became of it.

`local` runs processes on this machine. What to start, and when, is `training.population.run`'s business.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from training.member.report import Report
from training.recipes.plan import PlannedMember
from vitzoo.ids import MemberId


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What became of a member.

    Args:
        member: Which.
        kind: ``report`` (it is under way), ``done``, ``diverged`` (its loss was not finite any more: an outcome, it is
            in the zoo), ``failed`` (it raised: trying again would raise again) or ``died`` (its process ended: it can
            go on from its last epoch).
        report: Where it stands, for ``report``.
        reason: What happened, in a line, for ``diverged``, ``failed`` and ``died``.
    """

    member: MemberId
    kind: Literal["report", "done", "diverged", "failed", "died"]
    report: Report | None = None
    reason: str = ""


@runtime_checkable
class Engine(Protocol):
    """Carries members out, each in a slot of its own."""

    @property
    def free_slots(self) -> int:
        """How many members could start now."""
        ...

    def start(self, planned: PlannedMember) -> None:
        """Begin or resume a member in a free slot."""
        ...

    def events(self, timeout: float) -> Iterator[Event]:
        """What happened since the last call; waits up to ``timeout`` seconds for something to happen."""
        ...

    def close(self) -> None:
        """End every process."""
        ...
