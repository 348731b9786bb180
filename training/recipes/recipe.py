"""What a recipe can say: frozen dataclasses, checked when they are made. `plan.py` turns one into members.

A recipe is data: zoo.json holds it whole, and its digest decides whether a folder holds this zoo or another.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from training.images.augment import Augmentation
from training.images.mixing import Mixing
from vitzoo.errors import did_you_mean
from vitzoo.weights.schema import ViTShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """The backbone that all members share.

    Args:
        image_size: Side of the square input, pixels.
        patch_size: Side of a square patch, pixels.
        hidden_size: Width of a token.
        num_hidden_layers: Blocks.
        num_attention_heads: Heads of a block.
        intermediate_size: Width of a block's MLP.
        mean: Of each channel, with pixels scaled to 0 to 1.
        std: Of each channel, likewise.

    Raises:
        ValueError: A size is not positive, or the sizes do not divide.
    """

    image_size: int
    patch_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
            _positive(name, getattr(self, name))
        _positive("intermediate_size", self.intermediate_size)
        for value in self.std:
            _positive("std", value)
        for part, whole in (("patch_size", "image_size"), ("num_attention_heads", "hidden_size")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{whole} is {getattr(self, whole)}, which {part} {getattr(self, part)} does not divide"
                )

    def shape(self, head: "Head") -> ViTShape:
        """What decides the shapes of the tensors of a member with this head."""
        return ViTShape(
            image_size=self.image_size,
            patch_size=self.patch_size,
            num_channels=len(self.mean),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            intermediate_size=self.intermediate_size,
            qkv_bias=True,
            num_labels=head.outputs,
            head_width=head.width,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What stands on the backbone.

    Args:
        outputs: Classes, or the width of an embedding.
        width: Hidden width of an MLP head; None for a linear head.
        role: Whether the outputs are classes or an embedding.
    """

    outputs: int
    width: int | None = None
    role: Literal["classifier", "embedding"] = "classifier"

    def __post_init__(self) -> None:
        _one_of("role", self.role, ("classifier", "embedding"))
        _positive("outputs", self.outputs)
        if self.width is not None:
            _positive("width", self.width)

    @property
    def type(self) -> Literal["linear", "mlp"]:
        """``mlp`` where there is a hidden layer."""
        return "linear" if self.width is None else "mlp"


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
        _one_of("name", self.name, ("adamw", "sgd"))
        _positive("learning_rate", self.learning_rate)
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
        _one_of("name", self.name, ("constant", "cosine"))
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; expected a number from 0 on")


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
        _one_of("objective", self.objective, ("supervised", "contrastive"))
        _positive("epochs", self.epochs)
        if not 2 <= self.batch_size <= self.dataset.train_images:
            raise ValueError(f"batch_size is {self.batch_size}; expected 2 to {self.dataset.train_images}")
        if (self.objective == "contrastive") != (self.temperature is not None):
            raise ValueError(
                f"temperature is {self.temperature} for a {self.objective} objective; InfoNCE alone has one"
            )
        if self.temperature is not None:
            _positive("temperature", self.temperature)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """Where a member's random numbers come from, each in [0, 2^32).

    Args:
        init: Of the backbone's initialisation.
        head: Of the head's.
        order: Of the order of the images.
        augmentation: Of augmentation and mixing.
    """

    init: int
    head: int
    order: int
    augmentation: int

    def __post_init__(self) -> None:
        for name in ("init", "head", "order", "augmentation"):
            _word(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """A member that is pre-trained.

    Args:
        training: How.
        head: What stands on its backbone.
        seeds: Its random numbers.
        replicates: How often each cell of the children's grid is trained from it.
    """

    training: Training
    head: Head
    seeds: Seeds
    replicates: int

    def __post_init__(self) -> None:
        _fits(self.training, self.head)
        if self.replicates < 0:
            raise ValueError(f"replicates is {self.replicates}; expected a number from 0 on")


@dataclass(frozen=True, kw_only=True, slots=True)
class Children:
    """The grid of members that are fine-tuned from every parent: heads x optimizers, for each replicate.

    Args:
        training: How; its optimizer is replaced by the grid's.
        heads: What stands on the parent's backbone.
        optimizers: With their learning rates.
        seeds: A replicate's seed of head, order and augmentation, shared by all cells and parents.
    """

    training: Training
    heads: tuple[Head, ...]
    optimizers: tuple[Optimizer, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        for head in self.heads:
            _fits(self.training, head)
        for seed in self.seeds:
            _word("seeds", seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole population.

    Args:
        name: What it is called.
        source: What it follows, or "our choice".
        architecture: The backbone of all members.
        parents: ``pt-0``, ``pt-1``, ...; a published recipe only appends.
        children: What is fine-tuned from each of them.
        deviations: Departures from the source, each in a few words.
    """

    name: str
    source: str
    architecture: Architecture
    parents: tuple[Parent, ...]
    children: Children
    deviations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        most = max((parent.replicates for parent in self.parents), default=0)
        if most > len(self.children.seeds):
            raise ValueError(f"a parent has {most} replicates, but the children have {len(self.children.seeds)} seeds")


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; expected a number above 0")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f'{name} is "{value}"; expected {" or ".join(known)}.{did_you_mean(value, known)}')


def _word(name: str, value: int) -> None:
    if not 0 <= value < 2**32:
        raise ValueError(f"{name} is {value}; expected a seed from 0 to 2^32 - 1")


def _fits(training: Training, head: Head) -> None:
    role = "embedding" if training.objective == "contrastive" else "classifier"
    if head.role != role:
        raise ValueError(f"role is {head.role} for a {training.objective} objective; expected {role}")
