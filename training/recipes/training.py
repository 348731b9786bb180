"""How one member is trained, as a recipe says it: frozen dataclasses, checked when they are made. Pure: no torch.

Whose member it is, and what stands on its backbone, is `recipe.py`'s.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from training.recipes.checks import check_one_of, check_positive, check_range


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """The images that are trained on; `vitzoo.images` holds them.

    Args:
        name: As `vitzoo.images.load_images` knows it.
        train_images: How many there are to train on; checked against the data before training.
        evaluated_train_images: How many of them the training figures are measured on, evenly spaced by index.
    """

    name: str
    train_images: int
    evaluated_train_images: int

    def __post_init__(self) -> None:
        if not 0 < self.evaluated_train_images <= self.train_images:
            raise ValueError(
                f"evaluated_train_images is {self.evaluated_train_images}; expected 1 to {self.train_images}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """How weights are stepped.

    Args:
        name: ``adamw`` (betas .9 and .999, eps 1e-8) or ``sgd``.
        learning_rate: Peak.
        weight_decay: Decoupled for adamw, L2 for sgd; on every weight.
        momentum: Of sgd, in [0, 1); None for adamw.
    """

    name: Literal["adamw", "sgd"]
    learning_rate: float
    weight_decay: float = 0.0
    momentum: float | None = None

    def __post_init__(self) -> None:
        check_one_of("name", self.name, ("adamw", "sgd"))
        check_positive("learning_rate", self.learning_rate)
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}; expected a number from 0 on")
        if (self.name == "sgd") != (self.momentum is not None):
            raise ValueError(f"momentum is {self.momentum} for {self.name}; sgd has one, if 0, and adamw has none")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; expected a number from 0 to below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The learning rate over the steps.

    Args:
        name: ``constant``, or ``cosine`` down to 0.
        warmup_steps: Steps of linear rise before it.
    """

    name: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        check_one_of("name", self.name, ("constant", "cosine"))
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; expected a number from 0 on")


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How a training image is changed, each image on its own; the default changes nothing.

    Args:
        rotation: largest angle either way, in degrees, in [0, 180].
        translate: largest shift either way, as a fraction of the side, along each axis, in [0, 1].
        scale: largest change of size either way, as a fraction, in [0, 1).
        horizontal_flip: probability of a mirror image, in [0, 1].
        erasing: probability that a rectangle of .02 to 1/3 of the area and of aspect .3 to 3.3 is erased, in [0, 1].

    Raises:
        ValueError: a field outside its range.
    """

    rotation: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    horizontal_flip: float = 0.0
    erasing: float = 0.0

    def __post_init__(self) -> None:
        check_range("rotation", self.rotation, 180, "degrees")
        check_range("translate", self.translate, 1, "a fraction of the side")
        check_range("horizontal_flip", self.horizontal_flip, 1, "a probability")
        check_range("erasing", self.erasing, 1, "a probability")
        if not 0 <= self.scale < 1:
            raise ValueError(
                f"scale is {self.scale}; expected a fraction from 0 to below 1, at which an image vanishes"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixing:
    """How the images of a batch are mixed with one another, and how soft their targets are; the default does neither.

    Args:
        mixup: alpha of mixup's Beta(alpha, alpha); 0 is off.
        cutmix: alpha of cutmix's Beta(alpha, alpha); 0 is off.
        switch: probability of cutmix where both are on.
        label_smoothing: share of each target that is spread over all classes, in [0, 1).

    Raises:
        ValueError: a field outside its range.

    Source:
        timm's `Mixup` with mode "batch" and prob 1: one kind and one weight for a whole batch.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    switch: float = 0.5
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not 0 <= alpha < math.inf:
                raise ValueError(f"{name} is {alpha}; expected the alpha of Beta(alpha, alpha), or 0 for none")
        if not 0 <= self.switch <= 1:
            raise ValueError(f"switch is {self.switch}; expected a probability from 0 to 1")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; expected a share from 0 to below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How one member is trained.

    Args:
        objective: ``supervised`` (cross-entropy against soft targets), or ``contrastive`` (InfoNCE over two views).
        dataset: The images.
        optimizer: How weights are stepped.
        schedule: The learning rate over the steps.
        augmentation: What is done to each image.
        mixing: What is done between images, and label smoothing; none for contrastive training.
        temperature: Of InfoNCE; None for supervised training.
        epochs: Passes over the images; each ends with a checkpoint.
        batch_size: Images a step, over all ranks; an epoch's last, smaller batch is dropped.
    """

    objective: Literal["supervised", "contrastive"]
    dataset: Dataset
    optimizer: Optimizer
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixing: Mixing = field(default_factory=Mixing)
    temperature: float | None = None
    epochs: int
    batch_size: int

    def __post_init__(self) -> None:
        check_one_of("objective", self.objective, ("supervised", "contrastive"))
        check_positive("epochs", self.epochs)
        if not 2 <= self.batch_size <= self.dataset.train_images:
            raise ValueError(f"batch_size is {self.batch_size}; expected 2 to {self.dataset.train_images}")
        if (self.objective == "contrastive") != (self.temperature is not None):
            raise ValueError(
                f"temperature is {self.temperature} for a {self.objective} objective; InfoNCE alone has one"
            )
        if self.temperature is not None:
            check_positive("temperature", self.temperature)
        if self.objective == "contrastive" and self.mixing != Mixing():
            raise ValueError(
                f"mixing is {self.mixing} for a contrastive objective; expected {Mixing()}: views stay whole"
            )
        if self.schedule.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps is {self.schedule.warmup_steps}; expected at most the {self.steps} steps")

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        return self.dataset.train_images // self.batch_size

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.epochs * self.steps_per_epoch
