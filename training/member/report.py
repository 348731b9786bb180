"""Report the progress of a member's training, and display it: a line an epoch, and in a terminal a changing line.

A `Report` has plain values: engines send it between processes.
"""

import time
from dataclasses import dataclass

from rich.console import Console

from training.recipes.plan import PlannedMember


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The progress of a member's training.

    Args:
        epoch: Finished epochs.
        step: Finished steps of the current epoch.
        steps: Steps of an epoch.
        loss: Mean training objective of the current epoch, or of the one just finished; None before the first step.
        accuracy: Accuracy after the last finished epoch, 0 to 1, on validation images, or on training images without
            any. A contrastive member has the accuracy of its neighbours' votes. None before it is known.
        images_per_second: Training images a second, over all ranks; None before it is known.
        peak_share: Used fraction of the card's measured matrix-product rate, 0 to 1; None without a card.
    """

    epoch: int
    step: int = 0
    steps: int
    loss: float | None = None
    accuracy: float | None = None
    images_per_second: float | None = None
    peak_share: float | None = None

    def describe(self) -> str:
        """Return the known values in a line."""
        parts = [
            None if self.images_per_second is None else f"{self.images_per_second:,.0f} images/s",
            None if self.peak_share is None else f"{self.peak_share:.0%} of the card's peak",
            None if self.loss is None else f"loss {self.loss:.4g}",
            None if self.accuracy is None else f"accuracy {self.accuracy:.3f}",
        ]
        return ", ".join(part for part in parts if part is not None)


class Diverged(Exception):
    """A loss or a metric is NaN or infinite.

    Args:
        step: Finished steps before it, since the start of the training.
        what: Name of the value.
    """

    def __init__(self, step: int, what: str):
        super().__init__(f"{what} is not finite after step {step}")
        self.step, self.what = step, what


class MemberDisplay:
    """Prints the progress of one member.

    Args:
        planned: Member of the reports.
        console: Console to print to.
    """

    def __init__(self, planned: PlannedMember, console: Console):
        self._planned, self._console = planned, console
        self._epochs = planned.training.epochs
        self._began = time.monotonic()
        self._first_epoch: int | None = None
        self._status = console.status(f"{planned.id}: starting")

    def __enter__(self) -> "MemberDisplay":
        self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._status.stop()

    def __call__(self, report: Report) -> None:
        """Display a report."""
        if self._first_epoch is None:
            self._first_epoch, self._began = report.epoch, time.monotonic()
        epoch = f"{self._planned.id}: epoch {report.epoch} of {self._epochs} finished"
        line = ", ".join(filter(None, (epoch, report.describe(), self._remaining(report))))
        if report.step:
            self._status.update(f"{line}; step {report.step} of {report.steps}")
        else:
            self._console.print(line, highlight=False, soft_wrap=True)
            self._status.update(line)

    def _remaining(self, report: Report) -> str:
        done = report.epoch + report.step / report.steps - (self._first_epoch or 0)
        if done <= 0 or report.epoch == self._epochs:
            return ""
        remaining = (time.monotonic() - self._began) / done * (self._epochs - (self._first_epoch or 0) - done)
        return f"{format_duration(remaining)} left"


def format_duration(seconds: float) -> str:
    """Format a duration: ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
