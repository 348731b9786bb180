"""A member evaluated again on its own test images, and the figure measured held against the one recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitzoo.ids import MemberId
from vitzoo.zoo.member import Member

_IMAGES_OF = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A figure measured beside the one recorded.

    Args:
        member: Whose.
        dataset: What it was measured on.
        epoch: Finished epochs.
        images: Test images.
        figure: What was measured, in words.
        recorded: Share of images that were right, 0 to 1; None where the record has none.
        measured: The same, now.
    """

    member: MemberId
    dataset: str
    epoch: int
    images: int
    figure: str
    recorded: float | None
    measured: float

    @property
    def exact(self) -> bool:
        """Whether the figures are the same."""
        return self.measured == self.recorded

    @property
    def agrees(self) -> bool:
        """Whether the figures are the same but for rounding.

        Another machine sums in another order, which may turn an image whose two best classes, or nearest neighbours,
        are equally near: one image is allowed, and one of a thousand where that is more.
        """
        allowed = max(1, self.images // _IMAGES_OF)
        return self.recorded is not None and round(abs(self.measured - self.recorded) * self.images) <= allowed


def compare_with_record(
    member: Member, *, epoch: int | None = None, data: Mapping[str, Path] | None = None
) -> Comparison:
    """Evaluate a member on its test images: accuracy, or k-NN accuracy of the features of an embedding.

    Args:
        member: The member.
        epoch: Finished epochs; None for the final weights.
        data: Folders of data sets that are on this machine, by name, as `vitzoo.images.load_images` takes them.

    Raises:
        VitZooError: The member cannot be loaded, or its images are not here.
    """
    from transformers.utils.logging import disable_progress_bar

    from vitzoo.models.evaluation import knn_accuracy

    disable_progress_bar()
    recorded = member.metrics_at(epoch)
    evaluation = member.evaluate(epoch=epoch, data=data)
    if member.record.n_test is not None:  # the images that the record is about
        evaluation = evaluation.first(member.record.n_test)
    if member.record.head_role == "embedding":
        figure, before = "k-NN accuracy of the features", recorded.test_knn_accuracy
        measured = knn_accuracy(member.evaluate(part="train", epoch=epoch, data=data), evaluation)
    else:
        figure, before, measured = "accuracy", recorded.test_accuracy, evaluation.accuracy
    return Comparison(
        member=member.id,
        dataset=str(member.record.dataset),
        epoch=recorded.epoch,
        images=len(evaluation.labels),
        figure=figure,
        recorded=before,
        measured=measured,
    )


def spread_evenly(members: Sequence[MemberId], count: int) -> list[MemberId]:
    """So many of the members, or all where there are fewer, evenly spaced and always the same."""
    count = min(count, len(members))
    return [members[place * len(members) // count] for place in range(count)]
