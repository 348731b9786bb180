"""What a run shows: members done and running, and the time left; a line now and then where there is no terminal."""

import time
from collections.abc import Iterable

from rich import progress as bars
from rich.console import Console

from training.population.engines import Event
from training.recipes.plan import PlannedMember
from vitzoo.ids import MemberId

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """The display of a run, measured in the operations of its members.

    Args:
        planned: All members.
        done: Those that are done already.
    """

    def __init__(self, planned: Iterable[PlannedMember], *, done: set[MemberId]):
        self._planned = {member.id: member for member in planned}
        self._done, self._already, self._skipped = len(done), len(done), 0
        self._running: dict[MemberId, int] = {}
        self._work = sum(member.flops for member in self._planned.values() if member.id not in done)
        self._finished_work = 0.0
        self._started = self._last_line = time.monotonic()
        self._console = Console(stderr=True)
        self._bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.TextColumn("{task.fields[counts]}"),
            bars.TimeElapsedColumn(),
            bars.TextColumn("{task.fields[left]} left"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bars.add_task("training", total=max(self._work, 1e-9), counts="", left="-")

    def __enter__(self) -> "Progress":
        if self._already:
            self._console.print(f"{self._already} of {len(self._planned)} members are done already.")
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.refresh()
        self._bars.stop()

    def started(self, member: MemberId) -> None:
        """A member was given to a slot."""
        self._running[member] = 0

    def skipped(self, count: int) -> None:
        """Members that will not be trained."""
        self._skipped += count

    def happened(self, event: Event) -> None:
        """What became of a member."""
        if event.kind == "epoch":
            self._running[event.member] = event.epoch
            return
        self._running.pop(event.member, None)
        if event.kind == "done":
            self._done += 1
            self._finished_work += self._planned[event.member].flops
        else:
            self._console.print(f"{event.member} {event.kind}: {event.reason}", markup=False, soft_wrap=True)

    def refresh(self) -> None:
        """Show where the run stands."""
        work = self._finished_work + sum(
            self._planned[member].flops * epoch / self._planned[member].training.epochs
            for member, epoch in self._running.items()
        )
        seconds = time.monotonic() - self._started
        left = _duration(seconds * (self._work - work) / work) if work else "-"
        skipped = f", {self._skipped} skipped" if self._skipped else ""
        counts = f"{self._done}/{len(self._planned)} members done, {len(self._running)} running{skipped}"
        self._bars.update(self._task, completed=work, counts=counts, left=left)
        if not self._console.is_terminal and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(f"training: {counts}, {_duration(seconds)} elapsed, {left} left")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
