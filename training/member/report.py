"""Report the progress of a member's training. See `training.population.progress` for its display.

A `Report` has plain values: engines send it between processes.
"""

from dataclasses import dataclass


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
        throughput: Training images or tokens a second, over all ranks; None before it is known.
        peak_share: Used fraction of the card's measured matrix-product rate, 0 to 1; None without a card.
    """

    epoch: int
    step: int = 0
    steps: int
    loss: float | None = None
    accuracy: float | None = None
    throughput: float | None = None
    peak_share: float | None = None


class Diverged(Exception):
    """A loss or a metric is NaN or infinite.

    Args:
        step: Finished steps before it, since the start of the training.
        what: Name of the value.
    """

    def __init__(self, step: int, what: str):
        super().__init__(f"{what} is not finite after step {step}")
        self.step, self.what = step, what
