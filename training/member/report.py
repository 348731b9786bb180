"""What a training says while it runs. Plain values: engines send it between processes, displays show it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Where a member's training stands.

    Args:
        epoch: Finished epochs.
        step: Finished steps of the epoch under way.
        steps: Steps of an epoch.
        loss: Mean training objective of the epoch under way, or of the one just finished; None before there is one.
        accuracy: After the last finished epoch, 0 to 1: on validation images, or on training images where there are
            none; of a contrastive member that of its neighbours' votes. None before it is known.
        images_per_second: Training images, over all ranks; None before it is known.
        peak_share: Share of the card's measured matrix-product rate that training uses, 0 to 1; None without a card.
    """

    epoch: int
    step: int = 0
    steps: int
    loss: float | None = None
    accuracy: float | None = None
    images_per_second: float | None = None
    peak_share: float | None = None

    def describe(self) -> str:
        """The figures that are known, in a line."""
        told = [
            None if self.images_per_second is None else f"{self.images_per_second:,.0f} images/s",
            None if self.peak_share is None else f"{self.peak_share:.0%} of the card's peak",
            None if self.loss is None else f"loss {self.loss:.4g}",
            None if self.accuracy is None else f"accuracy {self.accuracy:.3f}",
        ]
        return ", ".join(figure for figure in told if figure is not None)


class Diverged(Exception):
    """A loss or a figure is no longer finite.

    Args:
        step: Finished steps before it, since the start of the training.
        what: What is not finite, in words.
    """

    def __init__(self, step: int, what: str):
        super().__init__(f"{what} is not finite after step {step}")
        self.step, self.what = step, what
