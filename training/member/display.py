"""What the training of one member shows: a line an epoch, and in a terminal a line that changes between them."""

import time

from rich.console import Console

from training.member.report import Report
from training.recipes.plan import PlannedMember


class MemberDisplay:
    """Prints the reports of one member.

    Args:
        planned: The member.
        console: Where to.
    """

    def __init__(self, planned: PlannedMember, console: Console):
        self._planned, self._console = planned, console
        self._epochs = planned.training.epochs
        self._began = time.monotonic()
        self._resumed_at: int | None = None
        self._status = console.status(f"{planned.id}: starting")

    def __enter__(self) -> "MemberDisplay":
        self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._status.stop()

    def __call__(self, report: Report) -> None:
        """Show a report."""
        if self._resumed_at is None:
            self._resumed_at, self._began = report.epoch, time.monotonic()
        where = f"{self._planned.id}: epoch {report.epoch} of {self._epochs} finished"
        told = ", ".join(filter(None, (where, report.describe(), self._left(report))))
        if report.step:
            self._status.update(f"{told}; step {report.step} of {report.steps}")
        else:
            self._console.print(told, highlight=False, soft_wrap=True)
            self._status.update(told)

    def _left(self, report: Report) -> str:
        done = report.epoch + report.step / report.steps - (self._resumed_at or 0)
        if done <= 0 or report.epoch == self._epochs:
            return ""
        left = (time.monotonic() - self._began) / done * (self._epochs - (self._resumed_at or 0) - done)
        return f"{format_duration(left)} left"


def format_duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
