"""Evaluate a model on images: logits, features, loss and accuracy.

The trainer records the metrics of every epoch through these functions, so recorded and measured values agree. See
`vitzoo.images.preprocess` for decoding, resizing and cropping, and `training.objectives` for losses with gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from vitzoo.images import FileSplit, ImageSplit, Preprocessing
from vitzoo.images.preprocess import iter_preprocessed
from vitzoo.models.vit import VitZooModel

_PLAIN = Preprocessing()
_ROWS = 1024  # queries compared at once: bounds the memory of `knn_accuracy`


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """Outputs of a model for labelled images: of the head, and the CLS token after the last norm, its input."""

    logits: Float[Tensor, "images labels"]
    features: Float[Tensor, "images hidden"]
    labels: Int64[Tensor, " images"]

    def first(self, count: int) -> "Evaluation":
        """Return the evaluation of at most ``count`` images, the first ones."""
        return Evaluation(logits=self.logits[:count], features=self.features[:count], labels=self.labels[:count])

    @property
    def accuracy(self) -> float:
        """Share of images whose largest logit is the true class, 0 to 1; larger is better."""
        return int((self.logits.argmax(1) == self.labels).sum()) / len(self.labels)

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats, from 0, without label smoothing; smaller is better."""
        return float(functional.cross_entropy(self.logits.double(), self.labels))


def evaluate(
    model: VitZooModel,
    split: ImageSplit | FileSplit,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    preprocessing: Preprocessing = _PLAIN,
    precision: Literal["fp32", "bf16"] = "fp32",
    batch_size: int = 128,
    workers: int = 0,
) -> Evaluation:
    """Run a model in evaluation mode on images that are resized, cropped and normalised.

    Args:
        model: The model; the mode of each of its modules is restored afterwards.
        split: At least one image. Images in memory are resized and cropped on the model's device, streamed ones by
            PIL, to the same bytes.
        mean: Mean of each channel, with pixels scaled to 0 to 1.
        std: Standard deviation of each channel, above 0, likewise.
        preprocessing: Resizing and cropping of an image before it is normalised.
        precision: ``bf16`` is autocast around the forward pass.
        batch_size: Images in a forward pass; it changes the last bits of the outputs.
        workers: Processes that decode streamed images; 0 for this process.

    Returns:
        Logits, features and labels, on the CPU in float32.

    Raises:
        ValueError: There are no images, the precision is unknown, or mean and std do not fit the channels.
        DatasetError: An image cannot be decoded, or is smaller than its crop.
    """
    if precision not in ("fp32", "bf16"):
        raise ValueError(f'precision is "{precision}"; expected fp32 or bf16')
    if not len(split):
        raise ValueError("The split has 0 images; expected at least 1")
    batches = iter_preprocessed(split, preprocessing, batch_size=batch_size, workers=workers, device=model.device)
    autocast = torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    features, logits = [], []
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode(), autocast:
            for images in batches:
                pixels = normalise(images, mean=mean, std=std).to(model.dtype)
                hidden = model.vit(pixel_values=pixels).last_hidden_state[:, 0]
                features.append(hidden.float())
                logits.append(model.classifier(hidden).float())
    finally:
        for module, mode in modes.items():
            module.training = mode
    # One copy at the end: each would wait for the device.
    return Evaluation(
        logits=torch.cat(logits).cpu(), features=torch.cat(features).cpu(), labels=torch.from_numpy(split.labels)
    )


def normalise(
    images: UInt8[Tensor, "images channels height width"] | Float32[Tensor, "images channels height width"],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Float32[Tensor, "images channels height width"]:
    """Compute (x / 255 - mean) / std of pixels from 0 to 255, the last step of a ViT image processor.

    Raises:
        ValueError: mean or std do not have a value for each channel.
    """
    channels = images.shape[1]
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"mean {mean} and std {std} for {channels} channels; expected {channels} values each")
    shift, width = (_by_channel(tuple(values), images.device) for values in (mean, std))
    return (images / 255).sub_(shift).div_(width)


@cache
def _by_channel(values: tuple[float, ...], device: torch.device) -> Float32[Tensor, "channels 1 1"]:
    """Return a value for each channel, copied once to each device: a copy waits for all queued work."""
    return torch.tensor(values, device=device)[:, None, None]


def knn_accuracy(references: Evaluation, queries: Evaluation, *, neighbours: int = 5) -> float:
    """Classify queries by a vote of their nearest references, by cosine of the features, and return the accuracy.

    Every neighbour has one vote. Of the classes with most votes, the one with the nearest neighbour wins.

    Args:
        references: Features and classes of training images.
        queries: Features and classes of the images to classify.
        neighbours: Number of votes, from 1 to the number of references.

    Returns:
        Accuracy, 0 to 1; larger is better.

    Raises:
        ValueError: The number of neighbours is outside its range, or there are no queries.

    Source: Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3.4,
        with equal weights.
    """
    if not 1 <= neighbours <= len(references.labels):
        raise ValueError(
            f"neighbours is {neighbours}; expected 1 to {len(references.labels)}, the number of references"
        )
    if len(queries.labels) == 0:
        raise ValueError("There are 0 queries; expected at least 1")
    units = functional.normalize(references.features.float(), dim=1)
    order = torch.arange(neighbours, device=units.device)
    correct = torch.zeros((), dtype=torch.int64, device=units.device)
    for features, labels in zip(queries.features.split(_ROWS), queries.labels.split(_ROWS), strict=True):
        nearest = (functional.normalize(features.float(), dim=1) @ units.T).topk(neighbours, dim=1).indices
        classes = references.labels[nearest]
        votes = (classes[:, :, None] == classes[:, None, :]).sum(2)  # votes for the class of each neighbour
        winner = (votes * neighbours - order).argmax(1, keepdim=True)
        correct += (classes.gather(1, winner)[:, 0] == labels).sum()
    return correct.item() / len(queries.labels)
