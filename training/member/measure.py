"""The figures of a member after an epoch: on plain images in evaluation mode, and of its weights.

Classifiers are measured by `vitzoo.models.evaluation`, so that anybody measures the same afterwards. A contrastive
parent has
no classes: its loss is InfoNCE under fixed views, its accuracy a vote of the nearest features.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from training.images.loader import Batches
from training.images.random import Stream
from training.member.ranks import Ranks
from training.member.step import training_loss
from training.recipes.plan import PlannedMember
from training.recipes.recipe import Seeds
from training.recipes.training import Schedule
from vitzoo.images import FileSplit, ImageDataset, ImageSplit
from vitzoo.models.evaluation import Evaluation, evaluate, knn_accuracy
from vitzoo.models.vit import VitZooModel

_BATCH = 128  # as `evaluate`'s default, so that a user's figures are these to the last bit, of what ran eagerly
_FIXED = Seeds(init=0, head=0, order=0, augmentation=0)  # the same views in the same batches for every member


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Measurement:
    """What a member is measured on: the fixed training images, validation and test; by all ranks together.

    Args:
        planned: The member.
        splits: Part to images: an evenly spaced part of the training images, all validation images if there are any,
            all test images.
        views: Of a contrastive member, the batches of fixed views of each part.
        ranks: The processes that measure together.
        workers: Processes that decode streamed images, for each rank.
    """

    planned: PlannedMember
    splits: Mapping[str, ImageSplit | FileSplit]
    views: Mapping[str, Batches]
    ranks: Ranks
    workers: int

    @classmethod
    def of(
        cls,
        planned: PlannedMember,
        dataset: ImageDataset,
        *,
        device: torch.device | None = None,
        ranks: Ranks | None = None,
        workers: int = 0,
    ) -> "Measurement":
        """The measurement of a member trained on a data set."""
        train = dataset.train.evenly(planned.training.dataset.evaluated_train_images)
        splits = {"train": train, "val": dataset.val, "test": dataset.test}
        splits = {part: split for part, split in splits.items() if len(split)}
        ranks = ranks or Ranks()
        views = {}
        if planned.training.objective == "contrastive":
            views = {
                part: _fixed_views(planned, split, device=device or torch.device("cpu"), ranks=ranks, workers=workers)
                for part, split in splits.items()
            }
        return cls(planned=planned, splits=splits, views=views, ranks=ranks, workers=workers)

    def close(self) -> None:
        """End the processes that decode streamed images."""
        for batches in self.views.values():
            batches.close()

    def figures(self, model: VitZooModel) -> dict[str, Any]:
        """The losses and accuracies of an `vitzoo.records.EpochRecord`; of parts that there are not, None."""
        with _compiled_for_whole_batches(model, self.planned):
            measured = {part: self._evaluate(model, split) for part, split in self.splits.items()}
            figures: dict[str, Any] = dict.fromkeys(
                f"{part}_{name}" for part in ("train", "val", "test") for name in ("loss", "accuracy")
            )
            figures |= dict.fromkeys(("val_knn_accuracy", "test_knn_accuracy"))
            for part, evaluation in measured.items():
                if self.planned.training.objective == "supervised":
                    figures |= {f"{part}_loss": evaluation.loss, f"{part}_accuracy": evaluation.accuracy}
                    continue
                figures[f"{part}_loss"] = self._contrastive_loss(model, self.views[part])
                if part != "train":
                    figures[f"{part}_knn_accuracy"] = knn_accuracy(measured["train"], evaluation)
        return figures

    def _evaluate(self, model: VitZooModel, split: ImageSplit | FileSplit) -> Evaluation:
        """Every rank evaluates its share of a split; all of them get the whole."""
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
        # On the device: neighbours among ten thousand images are a large product.
        logits, features, labels = (
            self.ranks.gather(rows.to(model.device), len(split))
            for rows in (evaluation.logits, evaluation.features, evaluation.labels)
        )
        return Evaluation(logits=logits, features=features, labels=labels)

    @torch.inference_mode()
    def _contrastive_loss(self, model: VitZooModel, views: Batches) -> float:
        """Mean InfoNCE over whole batches of fixed views."""
        losses = [training_loss(model, batch, self.planned.training, ranks=self.ranks) for batch in views.epoch(0)]
        return float(torch.stack(losses).double().mean())


def shown_accuracy(figures: Mapping[str, Any]) -> float | None:
    """The accuracy that is shown while training runs: never test's, by which nobody is to choose."""
    names = ("val_accuracy", "val_knn_accuracy", "train_accuracy")
    return next((figures[name] for name in names if figures[name] is not None), None)


def first_not_finite(figures: Mapping[str, Any]) -> str | None:
    """The name of the first figure that is infinite or no number; None where there is none."""
    return next((name for name, value in figures.items() if value is not None and not math.isfinite(value)), None)


def weight_norm(tensors: Mapping[str, Tensor]) -> float:
    """L2 norm of all tensors together, summed in float64."""
    return float(sum(tensor.double().square().sum() for tensor in tensors.values()) ** 0.5)


def weight_distance(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float:
    """L2 distance between two sets of tensors of the same names, summed in float64."""
    return weight_norm({name: tensor.double() - others[name].double() for name, tensor in tensors.items()})


def _fixed_views(
    planned: PlannedMember, split: ImageSplit | FileSplit, *, device: torch.device, ranks: Ranks, workers: int
) -> Batches:
    """The batches of a split in a fixed shuffled order (files may be sorted by class), as large as the training's."""
    training, architecture = planned.training, planned.architecture
    size = min(training.batch_size, len(split))
    size -= size % (2 * ranks.count)
    images = replace(training.dataset, train_images=len(split), evaluated_train_images=1)
    return Batches(
        split,
        replace(training, dataset=images, batch_size=size, epochs=1, schedule=Schedule()),
        classes=planned.head.outputs,
        mean=architecture.mean,
        std=architecture.std,
        seeds=_FIXED,
        image_size=architecture.image_size,
        device=device,
        ranks=ranks,
        workers=workers,
        stream=Stream.EVALUATION,
    )


@contextlib.contextmanager
def _compiled_for_whole_batches(model: VitZooModel, planned: PlannedMember):
    """Where the backbone is compiled, have it compiled for whole batches alone: the last, smaller ones run eagerly."""
    if getattr(model.base_model, "_compiled_call_impl", None) is None:
        yield
        return
    side = planned.architecture.image_size
    model.eval()
    with (
        torch.inference_mode(),
        torch.autocast(model.device.type, torch.bfloat16, enabled=planned.training.precision == "bf16"),
    ):  # the images of an evaluation are inference tensors too, which graphs tell from others
        model.base_model(torch.zeros((_BATCH, len(planned.architecture.mean), side, side), device=model.device))
    with torch.compiler.set_stance("eager_on_recompile"):
        yield
