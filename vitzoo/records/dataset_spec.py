"""Which images, and how they are seen at evaluation: plain data, as recipes and records hold it. No torch, no pixels.

`load_images` (in the package) turns a `DatasetSpec` into images; `vitzoo.models.evaluation` applies a `Preprocessing`.
"""

from dataclasses import dataclass
from typing import Literal

from vitzoo.records.field_types import check_field_types

_NAMED = {"name": "data set", "train_split": "split", "test_split": "split"}


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSpec:
    """Which images are trained and tested on.

    Args:
        name: ``digits-0-5`` or ``digits-6-9`` (bundled), or a data set's repo on the Hub, such as ``uoft-cs/cifar100``.
        config: The repo's configuration; None for its only or default one.
        image_column: Column that holds the images; None where there is one such column.
        label_column: Column that holds the classes; None where there is one such column.
        train_split: Split that is trained on.
        val_split: Split that choices are made on; None where there is none.
        test_split: Split that is read once.
        held_out: Training images, evenly spaced by index, that are validation instead; not with ``val_split``.
        streamed: Whether images are decoded when they are asked for; otherwise all are held in memory, of one size.

    Raises:
        ValueError: A field is of another type, or says nothing; ``held_out`` is negative, or stands beside
            ``val_split``.
    """

    name: str
    config: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    train_split: str = "train"
    val_split: str | None = None
    test_split: str = "test"
    held_out: int = 0
    streamed: bool = False

    def __post_init__(self) -> None:
        check_field_types(self)
        for field, what in _NAMED.items():
            if not getattr(self, field):
                raise ValueError(f'{field} is ""; expected the name of a {what}')
        if self.held_out < 0:
            raise ValueError(f"held_out is {self.held_out}; expected a number of images from 0 on")
        if self.held_out and self.val_split is not None:
            raise ValueError(f"held_out is {self.held_out} beside val_split {self.val_split}; expected one of the two")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """What is done to a plain image before it is normalised, at evaluation; the default does nothing.

    Args:
        resize: Shorter side after PIL's resize, pixels; None for no resize.
        crop: Side of the square cut from the centre, pixels; None for no crop.
        resample: PIL's filter of the resize.

    Raises:
        ValueError: A field is of another type, a size is not positive, or the filter is unknown.
    """

    resize: int | None = None
    crop: int | None = None
    resample: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        check_field_types(self)
        for name in ("resize", "crop"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"{name} is {size}; expected a number of pixels from 1 on")
        if self.resample not in ("bilinear", "bicubic"):
            raise ValueError(f'resample is "{self.resample}"; expected bilinear or bicubic')
