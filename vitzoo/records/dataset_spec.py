"""Describe a data set and the preprocessing of its images at evaluation, as plain data of recipes and records.

See `vitzoo.images.load_images` for how a `DatasetSpec` becomes images, and `vitzoo.models.evaluation` for how a
`Preprocessing` is applied.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta, Struct

from vitzoo.records.fields import Count, FieldError, PositiveInt, check_fields

_DatasetName = Annotated[str, Meta(min_length=1, description="the name of a data set")]
_SplitName = Annotated[str, Meta(min_length=1, description="the name of a split")]


class DatasetSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The images of a training, its validation and its test.

    Args:
        name: ``digits-0-5`` or ``digits-6-9`` (bundled), or a data set's repo on the Hub, such as ``uoft-cs/cifar100``.
        config: Configuration of the repo; None for its only or default one.
        image_column: Column of the images; None where there is one such column.
        label_column: Column of the classes; None where there is one such column.
        train_split: Split of the training images.
        val_split: Split on which choices are made; None where there is none.
        test_split: Split that is read once.
        held_out: Training images, evenly spaced by index, that are validation instead; not with ``val_split``.
        streamed: Whether images are decoded when they are needed. Otherwise all of them, of one size, are in memory.

    Raises:
        FieldError: A field has the wrong type or is out of range, or ``held_out`` is given with ``val_split``.
    """

    name: _DatasetName
    config: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    train_split: _SplitName = "train"
    val_split: str | None = None
    test_split: _SplitName = "test"
    held_out: Count = 0
    streamed: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.held_out and self.val_split is not None:
            raise FieldError("held_out", self.held_out, f"0 with val_split {self.val_split}: give one of the two")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """The changes of an image before normalisation, at evaluation; by default none.

    Args:
        resize: Shorter side after PIL's resize, pixels; None for no resize.
        crop: Side of the square cut from the centre, pixels; None for no crop.
        resample: PIL's filter of the resize.

    Raises:
        FieldError: A field has the wrong type or is out of range.
    """

    resize: PositiveInt | None = None
    crop: PositiveInt | None = None
    resample: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        check_fields(self)
