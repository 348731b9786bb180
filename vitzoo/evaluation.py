"""A model on images: logits, features, loss and accuracy, the same numbers in training and afterwards.

The trainer records these figures every epoch through the functions that a user calls later, so recorded and measured
agree. Objectives with gradients are `training.member.objectives`'.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from vitzoo.images import ImageSplit
from vitzoo.modeling_vitzoo import VitZooModel

_NEIGHBOURS = 5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """What a model makes of a set of labelled images.

    Args:
        logits: The head's output; of an embedding head, the embedding.
        features: The CLS token after the last norm: the head's input.
        labels: The true classes.
    """

    logits: Float[Tensor, "images labels"]
    features: Float[Tensor, "images hidden"]
    labels: Int64[Tensor, " images"]

    @property
    def accuracy(self) -> float:
        """Share of images whose largest logit is the true class: 0 to 1, larger is better."""
        return int((self.logits.argmax(1) == self.labels).sum()) / len(self.labels)

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats, without label smoothing: 0 and up, smaller is better."""
        return float(functional.cross_entropy(self.logits.double(), self.labels))


def evaluate(
    model: VitZooModel, split: ImageSplit, *, mean: tuple[float, ...], std: tuple[float, ...], batch_size: int = 512
) -> Evaluation:
    """Run a model in evaluation mode on plain, normalised images.

    Args:
        model: The model; its mode is restored afterwards.
        split: The images.
        mean: Of each channel, with pixels scaled to 0 to 1.
        std: Of each channel, likewise.
        batch_size: Images a forward pass. Part of the figures' last bits.

    Returns:
        Logits, features and labels, on the CPU in float32.
    """
    features, logits = [], []
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(split), batch_size):
            pixels = normalise(torch.from_numpy(split.images[start : start + batch_size]), mean=mean, std=std)
            hidden = model.vit(pixels.to(model.device, model.dtype)).last_hidden_state[:, 0]
            features.append(hidden.float().cpu())
            logits.append(model.classifier(hidden).float().cpu())
    model.train(was_training)
    return Evaluation(
        logits=torch.cat(logits).clone(), features=torch.cat(features).clone(), labels=torch.from_numpy(split.labels)
    )


def normalise(
    images: UInt8[Tensor, "images channels height width"], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "images channels height width"]:
    """Scale pixels to 0 to 1, subtract the mean and divide by the deviation, as a ViT image processor does."""
    shape = (1, -1, 1, 1)
    centre = torch.tensor(mean, device=images.device).view(shape)
    return (images.float() / 255 - centre) / torch.tensor(std, device=images.device).view(shape)


def knn_accuracy(references: Evaluation, queries: Evaluation, *, neighbours: int = _NEIGHBOURS) -> float:
    """Accuracy of a k-nearest-neighbour vote among features, by cosine similarity.

    Args:
        references: Labelled features that vote, of training images.
        queries: Labelled features that are classified.
        neighbours: How many vote; ties go to the smallest class.

    Returns:
        Share classified right: 0 to 1, larger is better.

    Source: Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3.4,
        with equal weights.
    """
    similarity = functional.normalize(queries.features, dim=1) @ functional.normalize(references.features, dim=1).T
    nearest = similarity.topk(min(neighbours, len(references.labels)), dim=1).indices
    votes = functional.one_hot(references.labels[nearest], int(references.labels.max()) + 1).sum(1)
    return float(np.mean((votes.argmax(1) == queries.labels).numpy()))
