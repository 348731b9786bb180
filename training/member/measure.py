"""Measure a member after an epoch: on plain samples in evaluation mode, and its weights.

`vitzoo.models.evaluation` measures classifiers and masked models, so that users get the same metrics afterwards. A
parent with an embedding head has no classes: its loss is that of its training under fixed views and masks, and its
accuracy a vote of the nearest features.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from training.batch import Batches, Inputs
from training.images.loader import ImageBatches
from training.objectives import training_loss
from training.pretext import Pretext
from training.random import Stream
from training.ranks import Ranks
from training.recipes.data import image_data
from training.recipes.plan import PlannedMember
from training.recipes.recipe import Seeds
from training.recipes.training import Schedule
from vitzoo.images import FileSplit, ImageSplit
from vitzoo.models.evaluation import EVALUATED_ROWS, knn_accuracy
from vitzoo.models.loading import MemberModel

_FIXED = Seeds.same(0)  # the same views in the same batches for every member


class Measurement:
    """The samples on which all ranks together measure a member.

    They are evenly spaced training samples, all validation samples and all test samples. The loss of a member with an
    embedding head is measured on batches of fixed views and masks of them.

    Args:
        planned: Member to measure.
        inputs: Data of the member.
        ranks: Processes that measure together.
        device: Device of the batches of views.
        workers: Processes that decode streamed images, for each rank.
    """

    def __init__(
        self,
        planned: PlannedMember,
        inputs: Inputs,
        *,
        device: torch.device | None = None,
        ranks: Ranks | None = None,
        workers: int = 0,
    ):
        dataset = inputs.dataset
        splits = {
            "train": dataset.train.evenly(planned.training.dataset.n_evaluated),
            "val": dataset.val,
            "test": dataset.test,
        }
        self.planned, self.inputs, self.ranks, self.workers = planned, inputs, ranks or Ranks(), workers
        self.splits = {part: split for part, split in splits.items() if len(split)}
        self.views: dict[str, Batches] = {}
        if planned.head.role == "embedding":
            options = {"device": device or torch.device("cpu"), "ranks": self.ranks, "workers": workers}
            self.views = {part: _fixed_views(planned, split, **options) for part, split in self.splits.items()}

    def close(self) -> None:
        """Stop the processes that decode streamed images."""
        for batches in self.views.values():
            batches.close()

    def measure(self, model: MemberModel, trained: MemberModel | Pretext | None = None) -> dict[str, Any]:
        """Measure the losses and accuracies of an `vitzoo.records.EpochRecord`; None for parts without samples.

        Args:
            model: Model of the member, in evaluation mode.
            trained: The `training.pretext.Pretext` around it, if its objective has one.
        """
        with self._compiled_for_whole_batches(model):
            options = {"ranks": self.ranks, "workers": self.workers}
            measured: dict[str, Any] = {
                part: self.inputs.measure(model, split, **options) for part, split in self.splits.items()
            }
            metrics: dict[str, Any] = dict.fromkeys(
                f"{part}_{name}" for part in ("train", "val", "test") for name in ("loss", "accuracy")
            )
            metrics |= dict.fromkeys(("val_knn_accuracy", "test_knn_accuracy"))
            for part, evaluation in measured.items():
                if self.planned.head.role != "embedding":
                    metrics |= {f"{part}_loss": evaluation.loss, f"{part}_accuracy": evaluation.accuracy}
                    continue
                metrics[f"{part}_loss"] = self._training_loss(trained or model, self.views[part])
                if part != "train":
                    metrics[f"{part}_knn_accuracy"] = knn_accuracy(measured["train"], evaluation)
        return metrics

    @torch.inference_mode()
    def _training_loss(self, model: MemberModel | Pretext, views: Batches) -> float:
        """Return the mean training loss over whole batches of fixed views and masks, of all ranks."""
        losses = [training_loss(model, batch, self.planned.training, ranks=self.ranks) for batch in views.epoch(0)]
        mean = torch.stack(losses).double().mean()[None]
        return float(self.ranks.gather(mean, self.ranks.count).mean())

    @contextlib.contextmanager
    def _compiled_for_whole_batches(self, model: MemberModel) -> Iterator[None]:
        """Compile a compiled backbone for whole batches only. Other batches run eagerly."""
        if getattr(model.base_model, "_compiled_call_impl", None) is None:
            yield
            return
        model.eval()
        bf16 = self.planned.training.precision == "bf16"
        with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            # Evaluation has inference tensors too, for which graphs differ.
            rows = EVALUATED_ROWS // self.planned.training.views
            inputs = self.inputs.example(rows, device=model.device).inputs
            model.base_model(**{name: tensor for name, tensor in inputs.items() if name != "visible"})
        with torch.compiler.set_stance("eager_on_recompile"):
            yield


def shown_accuracy(metrics: Mapping[str, Any]) -> float | None:
    """Return the accuracy to display during training: never test's, since test data select nothing."""
    names = ("val_accuracy", "val_knn_accuracy", "train_accuracy")
    return next((metrics[name] for name in names if metrics[name] is not None), None)


def first_not_finite(metrics: Mapping[str, Any]) -> str | None:
    """Return the name of the first metric that is NaN or infinite; None if all are finite."""
    return next((name for name, value in metrics.items() if value is not None and not math.isfinite(value)), None)


def weight_norm(tensors: Mapping[str, Tensor]) -> float:
    """Return the L2 norm of all tensors together, summed in float64."""
    return float(sum(tensor.double().square().sum() for tensor in tensors.values()) ** 0.5)


def weight_distance(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float:
    """Return the L2 distance between two sets of tensors of the same names, summed in float64."""
    return weight_norm({name: tensor.double() - others[name].double() for name, tensor in tensors.items()})


def _fixed_views(planned: PlannedMember, split: ImageSplit | FileSplit, *, ranks: Ranks, **options: Any) -> Batches:
    """Return batches of a split in a fixed shuffled order, as large as the training's. Files may be sorted by class."""
    training = planned.training
    size = min(training.batch_size, len(split))
    size -= size % (2 * ranks.count)
    images = replace(image_data(training.dataset), train_images=len(split), evaluated_train_images=1)
    training = replace(training, dataset=images, batch_size=size, epochs=1, schedule=Schedule())
    fixed = replace(planned, training=training, seeds=_FIXED)
    return ImageBatches(fixed, split, ranks=ranks, stream=Stream.EVALUATION, **options)
