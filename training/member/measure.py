"""The figures of a member after an epoch: on plain images in evaluation mode, and of its weights.

Classifiers are measured by `vitzoo.evaluation`, so that anybody measures the same afterwards. A contrastive parent has
no classes: its loss is InfoNCE under fixed views, its accuracy a vote of the nearest features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.images.augment import augment
from training.images.random import Stream
from training.member.objectives import info_nce
from training.recipes.plan import PlannedMember
from vitzoo.evaluation import evaluate, knn_accuracy
from vitzoo.images import ImageDataset, ImageSplit
from vitzoo.modeling_vitzoo import VitZooModel


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Measurement:
    """What a member is measured on: the fixed training images, validation and test.

    Args:
        planned: The member.
        train: An evenly spaced part of the training images.
        val: All validation images.
        test: All test images.
    """

    planned: PlannedMember
    train: ImageSplit
    val: ImageSplit
    test: ImageSplit

    @classmethod
    def of(cls, planned: PlannedMember, dataset: ImageDataset) -> "Measurement":
        """The measurement of a member trained on a data set."""
        train = dataset.train.evenly(planned.training.dataset.evaluated_train_images)
        return cls(planned=planned, train=train, val=dataset.val, test=dataset.test)

    def figures(self, model: VitZooModel) -> dict[str, float | None]:
        """The losses and accuracies of an `vitzoo.records.EpochRecord`."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        architecture = self.planned.architecture
        measured = {
            part: evaluate(model, split, mean=architecture.mean, std=architecture.std) for part, split in splits.items()
        }
        figures: dict[str, float | None] = dict.fromkeys(("val_knn_accuracy", "test_knn_accuracy"))
        for part, evaluation in measured.items():
            if self.planned.training.objective == "supervised":
                figures |= {f"{part}_loss": evaluation.loss, f"{part}_accuracy": evaluation.accuracy}
                continue
            figures |= {f"{part}_loss": self._contrastive_loss(model, splits[part]), f"{part}_accuracy": None}
            if part != "train":
                figures[f"{part}_knn_accuracy"] = knn_accuracy(measured["train"], evaluation)
        return figures

    @torch.inference_mode()
    def _contrastive_loss(self, model: VitZooModel, split: ImageSplit) -> float:
        """Mean InfoNCE over batches of the training's size, each image under its two fixed views."""
        training, architecture = self.planned.training, self.planned.architecture
        temperature = training.temperature
        size = min(training.batch_size, len(split))
        losses = []
        for start in range(0, len(split) - size + 1, size):
            samples = torch.from_numpy(split.indices[start : start + size]).to(model.device)
            images = torch.from_numpy(split.images[start : start + size]).to(model.device)
            views = [
                augment(
                    images,
                    training.augmentation,
                    mean=architecture.mean,
                    std=architecture.std,
                    seed=0,  # the same views for every member
                    epoch=0,
                    samples=samples,
                    view=view,
                    stream=Stream.EVALUATION,
                )
                for view in (0, 1)
            ]
            losses.append(info_nce(model(pixel_values=torch.cat(views)).logits, temperature=temperature or 0.0))
        return float(torch.stack(losses).double().mean())


def weight_norm(tensors: dict[str, Tensor]) -> float:
    """L2 norm of all tensors together, summed in float64."""
    return float(sum(tensor.double().square().sum() for tensor in tensors.values()) ** 0.5)


def weight_distance(tensors: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """L2 distance between two sets of tensors of the same names, summed in float64."""
    return weight_norm({name: tensor.double() - others[name].double() for name, tensor in tensors.items()})
