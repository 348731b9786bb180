"""Evaluate a model on images or texts: logits, features, loss and accuracy.

The trainer records the metrics of every epoch through these functions, so recorded and measured values agree. See
`vitzoo.images.preprocess` for decoding, resizing and cropping, `vitzoo.text.batches` for padding, and
`training.objectives` for losses with gradients.
"""

from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from vitzoo.errors import DatasetError
from vitzoo.images import FileSplit, ImageSplit, Preprocessing
from vitzoo.images.preprocess import iter_preprocessed
from vitzoo.images.processor import ExactSize
from vitzoo.models.registry import class_of
from vitzoo.notebook import Shown
from vitzoo.text.batches import evaluation_batches, padded
from vitzoo.text.masks import FixedMasks, fixed_masks
from vitzoo.text.splits import TextSplit
from vitzoo.text.tokenizer import Tokenizer

Precision = Literal["fp32", "bf16"]
EVALUATED_ROWS = 128  # of a batch; it changes the last bits of metrics, so the trainer takes the same
MASKED_SHARE = 0.15  # of a row's tokens that are masked for metrics, whatever the training masks
_PLAIN = Preprocessing()
_ROWS = 1024  # queries compared at once: bounds the memory of `knn_accuracy`


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Evaluation(Shown):
    """Outputs of a model for labelled images or texts.

    Args:
        logits: Outputs of the head.
        features: The CLS token after the last block.
        labels: True class of each sample.
        classes: Names of the classes; none for an embedding.
    """

    logits: Float[Tensor, "samples labels"]
    features: Float[Tensor, "samples hidden"]
    labels: Int64[Tensor, " samples"]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def _facts(self) -> dict[str, Any]:
        if not self.classes:
            return {"samples": len(self), "outputs": self.logits.shape[1]}
        metrics = {"accuracy": self.accuracy, "loss": self.loss}
        return {"samples": len(self), "classes": len(self.classes)} | metrics

    def _table_rows(self) -> list[dict[str, Any]]:
        if not self.classes:
            return []
        return [
            {"class": name, "accuracy": accuracy}
            | dict(zip((f"as {other}" for other in self.classes), row, strict=True))
            for name, accuracy, row in zip(
                self.classes, self.class_accuracy.tolist(), self.confusion.tolist(), strict=True
            )
        ]

    def first(self, count: int) -> "Evaluation":
        """Return the evaluation of at most ``count`` samples, the first ones."""
        rows = {name: getattr(self, name)[:count] for name in ("logits", "features", "labels")}
        return replace(self, **rows)

    @property
    def predictions(self) -> Int64[Tensor, " samples"]:
        """The class with the largest logit; the first of equal ones."""
        return self.logits.argmax(1)

    @property
    def confusion(self) -> Int64[Tensor, "labels predictions"]:
        """Number of samples by true class (row) and predicted class (column)."""
        count = self.logits.shape[1]
        return torch.bincount(self.labels * count + self.predictions, minlength=count**2).view(count, count)

    @property
    def class_accuracy(self) -> Float[Tensor, " labels"]:
        """Share of each class's samples that were predicted, 0 to 1; NaN for a class without samples."""
        confusion = self.confusion.double()
        return confusion.diagonal() / confusion.sum(1)

    @property
    def accuracy(self) -> float:
        """Share of samples whose largest logit is the true class, 0 to 1; larger is better."""
        return int((self.predictions == self.labels).sum()) / len(self.labels)

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats, from 0, without label smoothing; smaller is better."""
        return float(functional.cross_entropy(self.logits.double(), self.labels))


def evaluate(
    model: PreTrainedModel,
    split: ImageSplit | FileSplit,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    preprocessing: Preprocessing | ExactSize = _PLAIN,
    precision: Precision = "fp32",
    batch_size: int = EVALUATED_ROWS,
    workers: int = 0,
) -> Evaluation:
    """Run a model in evaluation mode on images that are resized, cropped and normalised.

    Args:
        model: The model, a member's or transformers' own of a known architecture; the mode of each of its modules is
            restored afterwards.
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
    features, logits = [], []
    with _evaluating(model, split, precision=precision):
        for images in iter_preprocessed(
            split, preprocessing, batch_size=batch_size, workers=workers, device=model.device
        ):
            pixels = normalise(images, mean=mean, std=std).to(model.dtype)
            hidden, output = _features_and_logits(model, pixel_values=pixels)
            features.append(hidden.float())
            logits.append(output.float())
    # One copy at the end: each would wait for the device.
    return Evaluation(
        logits=torch.cat(logits).cpu(),
        features=torch.cat(features).cpu(),
        labels=torch.from_numpy(split.labels),
        classes=class_names(model),
    )


def evaluate_texts(
    model: PreTrainedModel, split: TextSplit, *, precision: Precision = "fp32", batch_size: int = EVALUATED_ROWS
) -> Evaluation:
    """Run a classifier in evaluation mode on rows of tokens.

    Args:
        model: The model; the mode of each of its modules is restored afterwards.
        split: At least one row. Rows of similar lengths are run together, whatever their order.
        precision: ``bf16`` is autocast around the forward pass.
        batch_size: Rows in a forward pass; it changes the last bits of the outputs.

    Returns:
        Logits, features (the CLS token after the last block) and labels in the split's order, on the CPU in float32.

    Raises:
        ValueError: There are no rows, or the precision is unknown.
        DatasetError: A row has more tokens than the model has positions, or a token that it does not have.
    """
    _check_tokens(model, split)
    features, logits, order = [], [], evaluation_batches(split, batch_size)
    with _evaluating(model, split, precision=precision):
        for places in order:
            hidden, output = _features_and_logits(model, **_inputs(model, split, places))
            features.append(hidden.float())
            logits.append(output.float())
    back = torch.from_numpy(np.concatenate(order).argsort())
    return Evaluation(
        logits=torch.cat(logits).cpu()[back],
        features=torch.cat(features).cpu()[back],
        labels=torch.from_numpy(split.labels),
        classes=class_names(model),
    )


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class MaskedEvaluation(Shown):
    """Metrics of a masked model under fixed masks.

    Args:
        loss: Mean cross-entropy of the masked tokens in nats, from 0; smaller is better.
        accuracy: Share of masked tokens whose largest logit is the true token, 0 to 1; larger is better.
        positions: Number of masked tokens.
    """

    loss: float
    accuracy: float
    positions: int

    def __len__(self) -> int:
        return self.positions


def evaluate_masked(
    model: PreTrainedModel,
    split: TextSplit,
    masks: FixedMasks,
    *,
    precision: Precision = "fp32",
    batch_size: int = EVALUATED_ROWS,
) -> MaskedEvaluation:
    """Run a masked model in evaluation mode on rows with fixed masks. Only logits of masked tokens are computed.

    Args:
        model: The model; the mode of each of its modules is restored afterwards.
        split: The rows without masks.
        masks: Masked tokens, from `vitzoo.text.masks.fixed_masks` with the share ``MASKED_SHARE``.
        precision: ``bf16`` is autocast around the forward pass.
        batch_size: Rows in a forward pass; it changes the last bits of the outputs.

    Raises:
        ValueError: There are no rows, or the precision is unknown.
        DatasetError: As `evaluate_texts`, or no token is masked.
    """
    _check_tokens(model, split)
    if not len(masks.places):
        raise DatasetError("The split has 0 masked tokens", expected="at least 1")
    masked, losses, right = masks.apply(split), [], []
    with _evaluating(model, split, precision=precision):
        for places in evaluation_batches(split, batch_size):
            rows, columns, targets = (torch.from_numpy(array) for array in masks.of_rows(split, places))
            if not len(rows):
                continue
            counts = torch.bincount(rows, minlength=len(places))
            numbers = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]  # of each token in its row
            positions = torch.zeros((len(places), int(counts.max())), dtype=torch.int64)
            positions[rows, numbers] = columns
            inputs = _inputs(model, masked, places) | {"positions": positions.to(model.device)}
            logits = model(**inputs).logits[rows.to(model.device), numbers.to(model.device)].float()
            targets = targets.to(model.device)
            losses.append(functional.cross_entropy(logits, targets, reduction="none").double().sum())
            right.append((logits.argmax(1) == targets).sum())
    count = len(masks.places)
    loss, accuracy = float(torch.stack(losses).sum()) / count, int(torch.stack(right).sum()) / count
    return MaskedEvaluation(loss=loss, accuracy=accuracy, positions=count)


def class_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the names of a classifier's classes in the order of its logits; none for another head."""
    config: Any = model.config
    if getattr(config, "head_role", "classifier") != "classifier":
        return ()
    return tuple(str(config.id2label[number]) for number in range(config.num_labels))


def _features_and_logits(model: PreTrainedModel, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs of `MemberModel.features_and_logits`, of transformers' own classes too."""
    any_model: Any = model
    if hasattr(model, "features_and_logits"):
        return any_model.features_and_logits(**inputs)
    return class_of(model).features_and_logits(any_model, **inputs)


@contextmanager
def _evaluating(model: PreTrainedModel, split: Sized, *, precision: Precision) -> Iterator[None]:
    """Set a model to evaluation mode in a precision, without gradients, and restore its modules' modes."""
    if precision not in ("fp32", "bf16"):
        raise ValueError(f'precision is "{precision}"; expected fp32 or bf16')
    if not len(split):
        raise ValueError("The split has 0 samples; expected at least 1")
    autocast = torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        with torch.inference_mode(), autocast:
            yield
    finally:
        for module in training:
            module.training = True


def _check_tokens(model: PreTrainedModel, split: TextSplit) -> None:
    """Raise DatasetError if the model lacks a position or a token of the rows."""
    config: Any = model.config
    longest, largest = int(split.lengths.max(initial=0)), int(split.token_ids.max(initial=0))
    if longest > config.max_position_embeddings:
        raise DatasetError(
            f"A row has {longest} tokens",
            expected=f"at most {config.max_position_embeddings}, the model's positions",
            fix="Set a smaller max_length in the TextSpec.",
        )
    if largest >= config.vocab_size:
        raise DatasetError(
            f"A row has token {largest}",
            expected=f"below {config.vocab_size}, the model's vocabulary",
            fix="Encode the texts by the member's own tokenizer.",
        )


def _inputs(model: PreTrainedModel, split: TextSplit, places: Int64[np.ndarray, " batch"]) -> dict[str, Tensor]:
    config: Any = model.config
    inputs = padded(split, places, pad=config.pad_token_id or 0)
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


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


def evaluate_rows(
    model: PreTrainedModel,
    split: TextSplit,
    *,
    tokenizer: Tokenizer,
    precision: Precision = "fp32",
    batch_size: int = EVALUATED_ROWS,
) -> Evaluation | MaskedEvaluation:
    """Evaluate a language model by its head: `evaluate_masked` under the fixed masks, or `evaluate_texts`."""
    if model.config.head_role == "masked":
        masks = fixed_masks(split, MASKED_SHARE, tokenizer=tokenizer)
        return evaluate_masked(model, split, masks, precision=precision, batch_size=batch_size)
    return evaluate_texts(model, split, precision=precision, batch_size=batch_size)
