"""Show the progress of a run, or of one member: a bar on a terminal, a line every ten seconds elsewhere.

See `training.population.status` for the state of a zoo folder, also without a living run.
"""

import time
from collections.abc import Iterable

from rich import progress as bars
from rich.console import Console
from rich.table import Column

from training.member.report import Report
from training.population.engine import Event
from training.recipes.plan import PlannedMember
from vitzoo.ids import MemberId

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """The display of a run, measured in the operations of its members; a context manager.

    Args:
        planned: All members.
        done: Members that are done already.
        console: Where to print; None for standard error.
    """

    def __init__(self, planned: Iterable[PlannedMember], *, done: set[MemberId], console: Console | None = None):
        self._planned = {member.id: member for member in planned}
        self._done = self._already = len(done.intersection(self._planned))
        self._skipped = 0
        self._running: dict[MemberId, Report | None] = {}
        self._work = sum(member.flops for member in self._planned.values() if member.id not in done)
        self._finished_work = self._earlier_work = 0.0
        self._started = self._last_line = time.monotonic()
        self._console = console or Console(stderr=True)
        self._bars = bars.Progress(
            bars.BarColumn(bar_width=12),
            bars.TextColumn("{task.fields[counts]}", table_column=Column(no_wrap=True)),
            bars.TextColumn("{task.fields[left]} left", table_column=Column(no_wrap=True)),
            # The last column is cut where a terminal is narrow.
            bars.TextColumn("{task.fields[metrics]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=self._console,
            expand=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bars.add_task("training", total=max(self._work, 1e-9), counts="", left="-", metrics="")

    def __enter__(self) -> "Progress":
        if self._already:
            self._console.print(f"{self._already} of {len(self._planned)} members are done already.")
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.refresh()
        self._bars.stop()

    def report(self, member: MemberId, report: Report) -> None:
        """Show a report of a member that is trained in this process."""
        self.add(Event(member=member, kind="report", report=report))
        self.refresh()

    def started(self, member: MemberId) -> None:
        """Count a member that was given to a slot."""
        self._running[member] = None

    def skipped(self, count: int) -> None:
        """Count members that will not be trained."""
        self._skipped += count

    def add(self, event: Event) -> None:
        """Take an event of a member into account."""
        if event.kind == "report" and event.report is not None:
            if self._running.get(event.member) is None:  # its first report: an earlier run trained those epochs
                planned = self._planned[event.member]
                self._earlier_work += planned.flops * event.report.epoch / planned.training.epochs
            self._running[event.member] = event.report
            return
        self._running.pop(event.member, None)
        if event.kind in ("done", "diverged"):
            self._finished_work += self._planned[event.member].flops
        if event.kind == "done":
            self._done += 1
        else:
            self.say(f"{event.member} {event.kind}: {event.reason}")

    def say(self, text: str) -> None:
        """Print a line above the display."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def refresh(self, *, elsewhere: int = 0) -> None:
        """Update the display.

        Args:
            elsewhere: Number of members that other runs hold.
        """
        work = self._finished_work + sum(
            self._planned[member].flops
            * (report.epoch + report.step / report.steps)
            / self._planned[member].training.epochs
            for member, report in self._running.items()
            if report is not None
        )
        seconds, own_work = time.monotonic() - self._started, work - self._earlier_work
        left = format_duration(seconds * (self._work - work) / own_work) if own_work > 0 else "-"
        counts = f"{self._done}/{len(self._planned)} members done, {len(self._running)} running"
        counts += "".join(f", {n} {what}" for n, what in ((self._skipped, "skipped"), (elsewhere, "elsewhere")) if n)
        metrics = self._metrics()
        self._bars.update(self._task, completed=work, counts=counts, left=left, metrics=metrics)
        if not self._console.is_terminal and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            texts = filter(None, (counts, f"{format_duration(seconds)} elapsed", f"{left} left", metrics))
            self._console.print(f"training: {', '.join(texts)}", soft_wrap=True, highlight=False)

    def _metrics(self) -> str:
        """Format the sum of the slots' speeds, and loss and accuracy of the member that is furthest."""
        running = {member: report for member, report in self._running.items() if report is not None}
        if not running:
            return ""
        speeds = [report.throughput for report in running.values() if report.throughput is not None]
        shares = [report.peak_share for report in running.values() if report.peak_share is not None]
        unit = next(iter(self._planned.values())).unit
        texts = [f"{sum(speeds):,.0f} {unit}/s"] if speeds else []
        if shares:
            texts.append(f"{sum(shares) / len(shares):.0%} of peak")
        member, report = max(running.items(), key=lambda item: (item[1].epoch, item[0]))
        texts.append(f"{member} epoch {report.epoch}")
        if report.loss is not None:
            texts.append(f"loss {report.loss:.3f}")
        if report.accuracy is not None:
            texts.append(f"accuracy {report.accuracy:.2%}")
        return ", ".join(texts)


def format_duration(seconds: float) -> str:
    """Format a duration: ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
