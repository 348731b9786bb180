"""Declare the training of one member in a recipe: frozen dataclasses, checked when they are made, without torch.

See `recipe.py` for members and their heads, `data.py` for images and texts, and `augmentation.py` for the changes of
images.
"""

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from training.recipes.augmentation import Augmentation
from training.recipes.data import Data, TextData
from vitzoo.records.fields import Count, FieldError, NonNegative, Positive, PositiveInt, Probability, check_fields

if TYPE_CHECKING:  # each data set has fields of its own
    _Data = Any
else:
    _Data = Data

_Alpha = Annotated[float, Meta(ge=0, description="the alpha of Beta(alpha, alpha), or 0 for none")]
_Smoothing = Annotated[float, Meta(ge=0, lt=1, description="a fraction from 0 to below 1")]
_Decay = Annotated[float, Meta(ge=0, lt=1, description="a number from 0 to below 1")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """The optimizer of all weights.

    Args:
        name: ``adamw`` (beta1 .9, eps 1e-8) or ``sgd``.
        learning_rate: Peak learning rate, above 0.
        weight_decay: Weight decay of every weight, from 0 on; decoupled for adamw, L2 for sgd.
        momentum: Momentum of sgd, in [0, 1); None for adamw.
        beta2: Decay of adamw's mean of squared gradients, in [0, 1); .999 for sgd, which has none.
    """

    name: Literal["adamw", "sgd"]
    learning_rate: Positive
    weight_decay: NonNegative = 0.0
    momentum: _Decay | None = None
    beta2: _Decay = 0.999

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.name == "sgd") != (self.momentum is not None):
            raise FieldError("momentum", self.momentum, "None for adamw, and a number from 0 to below 1 for sgd")
        if self.name == "sgd" and self.beta2 != 0.999:
            raise FieldError("beta2", self.beta2, "0.999 for sgd, which has none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The schedule of the learning rate.

    Args:
        name: ``constant``; ``cosine`` or ``linear`` down to 0; or ``one_cycle``, which rises and falls by cosines.
        warmup_steps: Steps of linear warm-up before it; 0 for ``one_cycle``, whose rise is 30% of the steps.
    """

    name: Literal["constant", "cosine", "linear", "one_cycle"] = "constant"
    warmup_steps: Count = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.name == "one_cycle" and self.warmup_steps:
            raise FieldError("warmup_steps", self.warmup_steps, "0 for one_cycle, which has its own rise")


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
class Masking:
    """The masking of tokens for the objective ``masked``, or of patches for ``autoencoding``.

    Of masked tokens 80% become the mask token, 10% a random one, and 10% stay. Masked patches are left out.

    Args:
        share: Share of a row's tokens, special ones not counted, .5 at most; or of an image's patches, below 1. Every
            row of one length masks the same number.

    Source: Devlin et al. 2019, section 3.1; a fixed number a row as in Geiping and Goldstein 2023. He et al. 2022.
    """

    share: Annotated[float, Meta(gt=0, lt=1, description="a share above 0 and below 1")]

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoder:
    """The decoder of a masked autoencoder, as wide as the member's head. Only the training has it.

    Args:
        num_hidden_layers: Blocks.
        num_attention_heads: Heads of a block.
        intermediate_size: Width of a block's MLP.

    Source: He et al. 2022, section 3.
    """

    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Distillation:
    """The settings of self-distillation.

    Args:
        prototypes: Outputs that student and teacher compare.
        student_temperature: Temperature of the student's softmax.
        teacher_temperature: Temperature of the teacher's softmax; lower is sharper.
        momentum: Momentum of the teacher's average at the first step; it rises to 1 by half a cosine.
        centre_momentum: Momentum of the average of the teacher's outputs.

    Source: Caron et al. 2021, sections 3.1 and 3.2, with their values but for the prototypes.
    """

    prototypes: PositiveInt
    student_temperature: Positive = 0.1
    teacher_temperature: Positive = 0.04
    momentum: _Decay = 0.996
    centre_momentum: _Decay = 0.9

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """The training of one member.

    Args:
        objective: ``supervised`` (cross-entropy against soft targets), ``contrastive`` (InfoNCE over two views),
            ``autoencoding`` (pixels of masked patches, MAE), ``distillation`` (a teacher that is the student's
            average, DINO), or ``masked`` (cross-entropy of masked tokens).
        dataset: Images or texts of the training.
        optimizer: Optimizer of all weights.
        schedule: Schedule of the learning rate.
        augmentation: Changes of each image.
        mixing: Mixing of images, and label smoothing; for supervised training alone.
        masking: Masking for masked training and autoencoding; None for other objectives.
        decoder: Decoder for autoencoding; None for other objectives.
        distillation: Settings of distillation; None for other objectives.
        dropout: Probability with which training drops hidden values and attention.
        frozen_backbone: Whether only the head is trained; for children alone.
        temperature: Temperature of InfoNCE, above 0; None for supervised training.
        positives: Positive pairs of InfoNCE: two ``views`` of an image, or, with one view of each, image i and image
            i + batch / 2 (``halves``), like the zoo's released code.
        precision: ``fp32``, or ``bf16``: autocast around the forward pass; weights and optimizer state stay fp32.
        clip_norm: Largest L2 norm of the gradient of all weights together; None for no clipping.
        epochs: Passes over the data; each ends with a checkpoint.
        batch_size: Images or rows of tokens a step, over all ranks, from 2 on. An epoch's last, smaller batch is
            dropped.
    """

    objective: Literal["supervised", "contrastive", "autoencoding", "distillation", "masked"]
    dataset: _Data
    optimizer: Optimizer
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixing: Mixing = field(default_factory=Mixing)
    masking: Masking | None = None
    decoder: Decoder | None = None
    distillation: Distillation | None = None
    dropout: Annotated[float, Meta(ge=0, lt=1, description="a probability from 0 to below 1")] = 0.0
    frozen_backbone: bool = False
    temperature: Positive | None = None
    positives: Literal["views", "halves"] = "views"
    precision: Literal["fp32", "bf16"] = "fp32"
    clip_norm: Positive | None = None
    epochs: PositiveInt
    batch_size: PositiveInt

    def __post_init__(self) -> None:
        check_fields(self)
        if not 2 <= self.batch_size <= self.dataset.n_train:
            raise FieldError("batch_size", self.batch_size, f"2 to {self.dataset.n_train}")
        if (self.objective == "contrastive") != (self.temperature is not None):
            raise FieldError("temperature", self.temperature, "a number above 0 for InfoNCE, None for other objectives")
        if self.objective != "supervised":
            why = ": views stay whole" if self.objective == "contrastive" else ""
            _check_defaults("mixing", self.mixing, f"for a {self.objective} objective{why}")
        if (self.objective in ("masked", "autoencoding")) != (self.masking is not None):
            what = "Masking(...) for a masked objective and for autoencoding, None for other ones"
            raise FieldError("masking", self.masking, what)
        if (self.objective == "autoencoding") != (self.decoder is not None):
            raise FieldError("decoder", self.decoder, "Decoder(...) for autoencoding, None for other objectives")
        if (self.objective == "distillation") != (self.distillation is not None):
            what = "Distillation(...) for distillation, None for other objectives"
            raise FieldError("distillation", self.distillation, what)
        if self.distillation is not None and self.dropout:
            raise FieldError("dropout", self.dropout, "0.0 for distillation, whose teacher drops nothing")
        if isinstance(self.dataset, TextData):
            self._check_text(self.dataset)
        elif self.objective == "masked":
            raise FieldError(
                "objective", self.objective, "supervised, contrastive, autoencoding or distillation for images"
            )
        if self.positives == "halves" and (self.batch_size % 2 or self.batch_size < 4):
            raise FieldError("batch_size", self.batch_size, "an even number from 4 on for positives in halves")
        if self.schedule.warmup_steps > self.steps:
            raise FieldError("warmup_steps", self.schedule.warmup_steps, f"at most the {self.steps} steps")

    def _check_text(self, dataset: TextData) -> None:
        """Check that a training fits texts."""
        if self.objective not in ("supervised", "masked"):
            raise FieldError("objective", self.objective, "supervised or masked for texts")
        if self.masking is not None and self.masking.share > 0.5:
            raise FieldError("masking.share", self.masking.share, "0.5 at most for texts")
        _check_defaults("augmentation", self.augmentation, "for texts")
        _check_defaults("mixing", replace(self.mixing, label_smoothing=0.0), "for texts")
        if dataset.texts.packed and self.objective == "supervised":
            raise FieldError(
                "dataset.texts.packed", True, "False for a supervised objective: packed rows have no label"
            )
        if self.masking is not None and int(self.masking.share * (dataset.texts.max_length - 2)) < 1:
            least = 1 / (dataset.texts.max_length - 2)
            raise FieldError("masking.share", self.masking.share, f"at least {least:.3g}, so that a row masks a token")

    @property
    def views(self) -> int:
        """Return the number of augmented views of an image in a batch."""
        pairs = self.objective == "contrastive" and self.positives == "views"
        return 2 if pairs or self.objective == "distillation" else 1

    @property
    def steps_per_epoch(self) -> int:
        """Return the optimizer steps of an epoch."""
        return self.dataset.n_train // self.batch_size

    @property
    def steps(self) -> int:
        """Return the optimizer steps of all epochs."""
        return self.epochs * self.steps_per_epoch


def _check_defaults(name: str, value: Any, what: str) -> None:
    """Raise FieldError for the first field of a dataclass that differs from its default."""
    for each in fields(value):
        found, default = getattr(value, each.name), getattr(type(value)(), each.name)
        if found != default:
            raise FieldError(f"{name}.{each.name}", found, f"{default} {what}")
