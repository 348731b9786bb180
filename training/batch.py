"""Hold the inputs and targets of one training step, and declare what images and texts offer to the trainer.

See `training.images.inputs` and `training.text.inputs` for the two kinds of data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from training.ranks import Ranks
from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """The inputs and targets of one step, or this rank's rows of them.

    Args:
        inputs: The model's arguments by name, a row for each sample; for contrastive training a row for each first
            view, then for each second view.
        targets: Soft targets of a classifier; the true tokens at ``positions``, -100 where a row has fewer, of a masked
            model; None for contrastive training.
        positions: Places of the masked tokens in each row; None for other objectives.
        masks_per_row: Mean number of masked tokens in a row of the global batch.
    """

    inputs: dict[str, Tensor]
    targets: Float[Tensor, "rows classes"] | Int64[Tensor, "rows masks"] | None = None
    positions: Int64[Tensor, "rows masks"] | None = None
    masks_per_row: float = 0.0

    @property
    def rows(self) -> int:
        """Return the number of rows of the inputs."""
        return len(next(iter(self.inputs.values())))

    def split(self, parts: int) -> list["Batch"]:
        """Cut the batch into equal parts of consecutive rows."""
        if parts == 1:
            return [self]
        size = self.rows // parts
        inputs = {name: tensor.split(size) for name, tensor in self.inputs.items()}
        targets, positions = (
            [None] * parts if tensor is None else tensor.split(len(tensor) // parts)
            for tensor in (self.targets, self.positions)
        )
        return [
            Batch(
                inputs={name: tensors[part] for name, tensors in inputs.items()},
                targets=targets[part],
                positions=positions[part],
                masks_per_row=self.masks_per_row,
            )
            for part in range(parts)
        ]


@runtime_checkable
class Batches(Protocol):
    """All batches of a member's training: functions of the seeds, the epoch and the step."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's rows of each batch of a pass, in order, after ``epoch`` finished passes."""
        ...

    def close(self) -> None:
        """Stop the processes that prepare batches."""
        ...


@runtime_checkable
class Measured(Protocol):
    """Metrics of a split."""

    @property
    def loss(self) -> float:
        """Mean loss in nats."""
        ...

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        ...


@runtime_checkable
class Inputs(Protocol):
    """The data of a member: one class for images and one for texts.

    Attributes:
        dataset: Splits ``train``, ``val`` and ``test``, class names, revision and fingerprint.
    """

    dataset: Any

    def batches(self, split: Any = None, *, device: torch.device, **options: Any) -> Batches:
        """Make the batches of a split, by default of the training data.

        Args:
            split: Samples to draw from.
            device: Device of the batches.
            **options: ``ranks``, ``workers`` that decode images, and for images the ``stream`` of random numbers.
        """
        ...

    def measure(self, model: Any, split: Any, *, ranks: Ranks, workers: int) -> Measured:
        """Measure a model on a split in evaluation mode, on all ranks together."""
        ...

    def example(self, rows: int, *, device: torch.device) -> Batch:
        """Make a batch of the training's shape with any content, to try its memory or to compile."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files by which transformers makes inputs as training does."""
        ...


def check_dataset(planned: PlannedMember, dataset: Any) -> None:
    """Compare the number of training samples and the classes of a data set with a member's recipe.

    Raises:
        TrainingError: They differ.
    """
    recipe = planned.training.dataset
    if len(dataset.train) != recipe.n_train:
        raise TrainingError(
            f"{planned.id}: {recipe.name} has {len(dataset.train)} training {recipe.unit}",
            expected=f"{recipe.n_train}, as the recipe says",
            fix="Fix the recipe, or install its data.",
        )
    if planned.head.role == "classifier" and len(dataset.classes) != planned.head.outputs:
        raise TrainingError(
            f"{planned.id}: {recipe.name} has {len(dataset.classes)} classes",
            expected=f"{planned.head.outputs}, the outputs of the recipe's head",
            fix="Fix the recipe.",
        )
