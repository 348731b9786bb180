"""Evaluate a member again on its test images, and compare the metric with the recorded one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitzoo.ids import MemberId
from vitzoo.notebook import Shown
from vitzoo.zoo.member import Member


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Comparison(Shown):
    """A measured metric and the recorded one."""

    member: MemberId
    dataset: str
    epoch: int  # finished epochs
    samples: int  # number of test images or texts, or of masked tokens
    metric: str  # its name
    recorded: float | None  # share of samples that were right, 0 to 1; None if the record has none
    measured: float  # the same share, measured now

    @property
    def exact(self) -> bool:
        """True if the metrics are equal."""
        return self.measured == self.recorded

    @property
    def agrees(self) -> bool:
        """True if the metrics differ by at most one sample, or one in a thousand.

        Another machine sums in another order, so a sample with two almost equal classes or neighbours may change.
        """
        allowed = max(1, self.samples // 1000)
        return self.recorded is not None and round(abs(self.measured - self.recorded) * self.samples) <= allowed


def compare_with_record(
    member: Member, *, epoch: int | None = None, data: Mapping[str, Path] | None = None
) -> Comparison:
    """Evaluate a member on its test data: accuracy, or k-NN accuracy of the features of an embedding.

    `data` has folders of data sets by name, as `vitzoo.images.load_images` takes them.
    """
    from transformers.utils.logging import disable_progress_bar

    from vitzoo.models.evaluation import knn_accuracy

    disable_progress_bar()
    metrics, record = member.metrics_at(epoch), member.record
    evaluation = member.evaluate(epoch=epoch, data=data)
    if record.head_role != "masked" and record.n_test is not None:
        evaluation = evaluation.first(record.n_test)
    if record.head_role == "embedding":
        metric, recorded = "k-NN accuracy of the features", metrics.test_knn_accuracy
        measured = knn_accuracy(member.evaluate(part="train", epoch=epoch, data=data), evaluation)
    else:
        metric, recorded, measured = "accuracy", metrics.test_accuracy, evaluation.accuracy
        if record.head_role == "masked":
            metric = "accuracy of masked tokens"
    return Comparison(
        member=member.id,
        dataset=str(record.dataset),
        epoch=metrics.epoch,
        samples=len(evaluation),
        metric=metric,
        recorded=recorded,
        measured=measured,
    )
