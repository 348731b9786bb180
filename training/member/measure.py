"""Measure a member after an epoch: on plain images in evaluation mode, and its weights.

`vitzoo.models.evaluation` measures classifiers, so that users get the same metrics afterwards. A contrastive parent has
no classes: its loss is InfoNCE under fixed views, and its accuracy a vote of the nearest features.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from training.images.loader import Batches
from training.objectives import training_loss
from training.random import Stream
from training.ranks import Ranks
from training.recipes.plan import PlannedMember
from training.recipes.recipe import Seeds
from training.recipes.training import Schedule
from vitzoo.images import FileSplit, ImageDataset, ImageSplit
from vitzoo.models.evaluation import Evaluation, evaluate, knn_accuracy
from vitzoo.models.vit import VitZooModel

_BATCH = 128  # the default of `evaluate`, so that a user's eager metrics are the same to the last bit
_FIXED = Seeds.same(0)  # the same views in the same batches for every member


class Measurement:
    """The images on which all ranks together measure a member.

    They are evenly spaced training images, all validation images and all test images. A contrastive member's loss is
    measured on batches of fixed views of them.

    Args:
        planned: Member to measure.
        dataset: Data set of the member.
        ranks: Processes that measure together.
        device: Device of the batches of views.
        workers: Processes that decode streamed images, for each rank.
    """

    def __init__(
        self,
        planned: PlannedMember,
        dataset: ImageDataset,
        *,
        device: torch.device | None = None,
        ranks: Ranks | None = None,
        workers: int = 0,
    ):
        train = dataset.train.evenly(planned.training.dataset.evaluated_train_images)
        splits = {"train": train, "val": dataset.val, "test": dataset.test}
        self.planned, self.ranks, self.workers = planned, ranks or Ranks(), workers
        self.splits = {part: split for part, split in splits.items() if len(split)}
        self.views: dict[str, Batches] = {}
        if planned.training.objective == "contrastive":
            options = {"device": device or torch.device("cpu"), "ranks": self.ranks, "workers": workers}
            self.views = {part: _fixed_views(planned, split, **options) for part, split in self.splits.items()}

    def close(self) -> None:
        """Stop the processes that decode streamed images."""
        for batches in self.views.values():
            batches.close()

    def measure(self, model: VitZooModel) -> dict[str, Any]:
        """Measure the losses and accuracies of an `vitzoo.records.EpochRecord`; None for parts without images."""
        with _compiled_for_whole_batches(model, self.planned):
            measured = {part: self._evaluate(model, split) for part, split in self.splits.items()}
            metrics: dict[str, Any] = dict.fromkeys(
                f"{part}_{name}" for part in ("train", "val", "test") for name in ("loss", "accuracy")
            )
            metrics |= dict.fromkeys(("val_knn_accuracy", "test_knn_accuracy"))
            for part, evaluation in measured.items():
                if self.planned.training.objective == "supervised":
                    metrics |= {f"{part}_loss": evaluation.loss, f"{part}_accuracy": evaluation.accuracy}
                    continue
                metrics[f"{part}_loss"] = self._contrastive_loss(model, self.views[part])
                if part != "train":
                    metrics[f"{part}_knn_accuracy"] = knn_accuracy(measured["train"], evaluation)
        return metrics

    def _evaluate(self, model: VitZooModel, split: ImageSplit | FileSplit) -> Evaluation:
        """Evaluate this rank's rows of a split, and gather the rows of all ranks."""
        training, architecture = self.planned.training, self.planned.architecture
        own = self.ranks.rows(len(split))
        evaluation = evaluate(
            model,
            split.part(own.start, own.stop) if self.ranks.count > 1 else split,
            mean=architecture.mean,
            std=architecture.std,
            preprocessing=training.dataset.preprocessing,
            precision=training.precision,
            batch_size=_BATCH,
            workers=self.workers,
        )
        # On the device, since the neighbours of ten thousand images are a large product.
        logits, features, labels = (
            self.ranks.gather(rows.to(model.device), len(split))
            for rows in (evaluation.logits, evaluation.features, evaluation.labels)
        )
        return Evaluation(logits=logits, features=features, labels=labels)

    @torch.inference_mode()
    def _contrastive_loss(self, model: VitZooModel, views: Batches) -> float:
        """Return the mean InfoNCE over whole batches of fixed views."""
        losses = [training_loss(model, batch, self.planned.training, ranks=self.ranks) for batch in views.epoch(0)]
        return float(torch.stack(losses).double().mean())


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
    images = replace(training.dataset, train_images=len(split), evaluated_train_images=1)
    training = replace(training, dataset=images, batch_size=size, epochs=1, schedule=Schedule())
    fixed = replace(planned, training=training, seeds=_FIXED)
    return Batches(fixed, split, ranks=ranks, stream=Stream.EVALUATION, **options)


@contextlib.contextmanager
def _compiled_for_whole_batches(model: VitZooModel, planned: PlannedMember):
    """Compile a compiled backbone for whole batches only. The last, smaller batches run eagerly."""
    if getattr(model.base_model, "_compiled_call_impl", None) is None:
        yield
        return
    side = planned.architecture.image_size
    model.eval()
    with (
        torch.inference_mode(),
        torch.autocast(model.device.type, torch.bfloat16, enabled=planned.training.precision == "bf16"),
    ):  # evaluation has inference tensors too, for which graphs differ
        model.base_model(torch.zeros((_BATCH, len(planned.architecture.mean), side, side), device=model.device))
    with torch.compiler.set_stance("eager_on_recompile"):
        yield
