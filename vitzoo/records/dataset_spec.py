"""Describe a data set of images or texts, and how it is prepared, as plain data of recipes and records.

See `vitzoo.images.load_images` for how a `DatasetSpec` becomes images, `vitzoo.text.load_text` for how a `TextSpec`
becomes rows of tokens, and `vitzoo.models.evaluation` for how a `Preprocessing` is applied.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta, Struct

from vitzoo.records.fields import Count, FieldError, PositiveInt, check_fields

MIN_ROW, MAX_ROW = 4, 2**16  # tokens of a row; special tokens are two or three of them

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


class TextSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The texts of a training, its validation and its test, and the rows of tokens that are made of them.

    Args:
        name: ``snippets-films``, ``snippets-others`` or ``snippets-all``, or a data set's repo on the Hub, such as
            ``nyu-mll/glue``.
        config: Configuration of the repo; None for its only or default one.
        text_column: Column of the texts; None where there is one such column.
        pair_column: Column of the second texts, if a row has two.
        label_column: Column of the classes; None where there is one such column. Packed rows have no classes.
        train_split: Split of the training texts.
        val_split: Split on which choices are made; None where there is none.
        test_split: Split that is read once; None with ``test_held_out``.
        held_out: Training texts that are validation instead, chosen by the hash of the text; not with ``val_split``.
        test_held_out: Training texts that are the test instead, likewise; not with ``test_split``.
        train_texts: Texts of ``train_split`` to use, evenly spaced by index; None for all.
        max_length: Longest row in tokens, special tokens included.
        packed: Whether rows are cut from the stream of all texts, each of ``max_length`` tokens, for masked training.
        unusable: Whether a text that is missing, empty, too long, has a special token, or is in two splits is an error
            or is dropped.

    Raises:
        FieldError: A field has the wrong type or is out of range, or two fields exclude each other.
    """

    name: _DatasetName
    config: str | None = None
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    train_split: _SplitName = "train"
    val_split: str | None = None
    test_split: str | None = "test"
    held_out: Count = 0
    test_held_out: Count = 0
    train_texts: PositiveInt | None = None
    max_length: Annotated[
        int, Meta(ge=MIN_ROW, le=MAX_ROW, description=f"{MIN_ROW} to {MAX_ROW} tokens, a whole number")
    ] = 128
    packed: bool = False
    unusable: Literal["refuse", "drop"] = "refuse"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.held_out and self.val_split is not None:
            raise FieldError("held_out", self.held_out, f"0 with val_split {self.val_split}: give one of the two")
        if (self.test_held_out == 0) == (self.test_split is None):
            expected = f"0 with test_split {self.test_split}" if self.test_split else "1 or more without a test_split"
            raise FieldError("test_held_out", self.test_held_out, f"{expected}: give one of the two")
        for field in ("pair_column", "label_column"):
            if self.packed and getattr(self, field) is not None:
                raise FieldError(field, getattr(self, field), "None for packed rows")


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
