"""Declare the training of one member in a recipe: frozen dataclasses, checked when they are made, without torch.

See `recipe.py` for members and their heads, and `augmentation.py` for the changes of images.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from training.recipes.augmentation import Augmentation
from vitzoo.records.dataset_spec import DatasetSpec, Preprocessing
from vitzoo.records.fields import Count, FieldError, NonNegative, Positive, PositiveInt, Probability, check_fields

_Alpha = Annotated[float, Meta(ge=0, description="the alpha of Beta(alpha, alpha), or 0 for none")]
_Smoothing = Annotated[float, Meta(ge=0, lt=1, description="a fraction from 0 to below 1")]
_Momentum = Annotated[float, Meta(ge=0, lt=1, description="a number from 0 to below 1")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """The images of a training; see `vitzoo.images`.

    Args:
        images: The data set, as `vitzoo.images.load_images` takes it.
        train_images: Number of training images, compared with the data before training.
        evaluated_train_images: Number of training images, evenly spaced by index, on which train metrics are measured.
        test_images: Number of validation and test images together, for the cost alone; 0 where it is not known.
        preprocessing: Changes of an image before normalisation, at evaluation.
    """

    images: DatasetSpec
    train_images: PositiveInt
    evaluated_train_images: PositiveInt
    test_images: Count = 0
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @property
    def name(self) -> str:
        """Return the name of the data set."""
        return self.images.name

    def __post_init__(self) -> None:
        check_fields(self)
        if self.evaluated_train_images > self.train_images:
            raise FieldError("evaluated_train_images", self.evaluated_train_images, f"1 to {self.train_images}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """The optimizer of all weights.

    Args:
        name: ``adamw`` (betas .9 and .999, eps 1e-8) or ``sgd``.
        learning_rate: Peak learning rate, above 0.
        weight_decay: Weight decay of every weight, from 0 on; decoupled for adamw, L2 for sgd.
        momentum: Momentum of sgd, in [0, 1); None for adamw.
    """

    name: Literal["adamw", "sgd"]
    learning_rate: Positive
    weight_decay: NonNegative = 0.0
    momentum: _Momentum | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.name == "sgd") != (self.momentum is not None):
            raise FieldError("momentum", self.momentum, "None for adamw, and a number from 0 to below 1 for sgd")


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The schedule of the learning rate.

    Args:
        name: ``constant``, or ``cosine`` down to 0.
        warmup_steps: Steps of linear warm-up before it.
    """

    name: Literal["constant", "cosine"] = "constant"
    warmup_steps: Count = 0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixing:
    """Mixing of the images of a batch, and label smoothing; by default neither.

    Args:
        mixup: alpha of mixup's Beta(alpha, alpha); 0 is off.
        cutmix: alpha of cutmix's Beta(alpha, alpha); 0 is off.
        switch: Probability of cutmix where both are on.
        label_smoothing: Fraction of each target that is spread over all classes, in [0, 1).

    Source:
        timm's `Mixup` with mode "batch" and prob 1: one kind and one weight for a whole batch.
    """

    mixup: _Alpha = 0.0
    cutmix: _Alpha = 0.0
    switch: Probability = 0.5
    label_smoothing: _Smoothing = 0.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """The training of one member.

    Args:
        objective: ``supervised`` (cross-entropy against soft targets), or ``contrastive`` (InfoNCE over two views).
        dataset: Images of the training.
        optimizer: Optimizer of all weights.
        schedule: Schedule of the learning rate.
        augmentation: Changes of each image.
        mixing: Mixing of images, and label smoothing; none for contrastive training.
        temperature: Temperature of InfoNCE, above 0; None for supervised training.
        positives: Positive pairs of InfoNCE: two ``views`` of an image, or, with one view of each, image i and image
            i + batch / 2 (``halves``), like the zoo's released code.
        precision: ``fp32``, or ``bf16``: autocast around the forward pass; weights and optimizer state stay fp32.
        clip_norm: Largest L2 norm of the gradient of all weights together; None for no clipping.
        epochs: Passes over the images; each ends with a checkpoint.
        batch_size: Images a step, over all ranks, from 2 on. An epoch's last, smaller batch is dropped.
    """

    objective: Literal["supervised", "contrastive"]
    dataset: Dataset
    optimizer: Optimizer
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixing: Mixing = field(default_factory=Mixing)
    temperature: Positive | None = None
    positives: Literal["views", "halves"] = "views"
    precision: Literal["fp32", "bf16"] = "fp32"
    clip_norm: Positive | None = None
    epochs: PositiveInt
    batch_size: PositiveInt

    def __post_init__(self) -> None:
        check_fields(self)
        if not 2 <= self.batch_size <= self.dataset.train_images:
            raise FieldError("batch_size", self.batch_size, f"2 to {self.dataset.train_images}")
        if (self.objective == "contrastive") != (self.temperature is not None):
            raise FieldError("temperature", self.temperature, "a number above 0 for InfoNCE, None for other objectives")
        if self.objective == "contrastive" and self.mixing != Mixing():
            raise FieldError("mixing", self.mixing, f"{Mixing()} for a contrastive objective: views stay whole")
        if self.positives == "halves" and (self.batch_size % 2 or self.batch_size < 4):
            raise FieldError("batch_size", self.batch_size, "an even number from 4 on for positives in halves")
        if self.schedule.warmup_steps > self.steps:
            raise FieldError("warmup_steps", self.schedule.warmup_steps, f"at most the {self.steps} steps")

    @property
    def views(self) -> int:
        """Return the number of augmented views of an image in a batch."""
        return 2 if self.objective == "contrastive" and self.positives == "views" else 1

    @property
    def steps_per_epoch(self) -> int:
        """Return the optimizer steps of an epoch."""
        return self.dataset.train_images // self.batch_size

    @property
    def steps(self) -> int:
        """Return the optimizer steps of all epochs."""
        return self.epochs * self.steps_per_epoch
