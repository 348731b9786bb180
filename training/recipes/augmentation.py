"""Declare the changes of a training image in a recipe: frozen dataclasses, checked when they are made, without torch.

See `training.images.augment` for how they are applied, and `training.py` for `Mixing`, which mixes images.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from vitzoo.records.fields import FieldError, NonNegative, Positive, PositiveInt, Probability, check_fields

_Fraction = Annotated[float, Meta(ge=0, le=1, description="a fraction of the side from 0 to 1")]
_Range = tuple[Positive, Positive]


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomResizedCrop:
    """A box of random area and aspect, resized to a square.

    Args:
        size: Side of the square, pixels.
        scale: Smallest and largest area of the box, as fractions of the image's, in (0, 1].
        ratio: Smallest and largest width over height.

    Source:
        Szegedy et al. 2015 (GoogLeNet), section 6; torchvision's `RandomResizedCrop`, whose defaults these are.
    """

    size: PositiveInt
    scale: _Range = (0.08, 1.0)
    ratio: _Range = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_fields(self)
        _check_ascending("scale", self.scale, "fractions of the area above 0")
        _check_ascending("ratio", self.ratio, "aspects above 0")
        if self.scale[1] > 1:
            raise FieldError("scale", self.scale, "two fractions of the area, up to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ColorJitter:
    """Changes of brightness, contrast, saturation and hue in a random order.

    Args:
        brightness: Factors are drawn from max(0, 1 - brightness) to 1 + brightness.
        contrast: Range of the factors, likewise.
        saturation: Range of the factors, likewise.
        hue: Largest rotation of the hue either way, as a fraction of the circle, in [0, .5].
        probability: Probability of the changes, in [0, 1].

    Source:
        torchvision's `ColorJitter` within `RandomApply`.
    """

    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Annotated[float, Meta(ge=0, le=0.5, description="a fraction of the circle from 0 to .5")] = 0.0
    probability: Probability = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianBlur:
    """A Gaussian blur of random standard deviation.

    Args:
        kernel_size: Side of the kernel, pixels, odd.
        sigma: Smallest and largest standard deviation, pixels.
        probability: Probability of the blur, in [0, 1].

    Source:
        torchvision's `GaussianBlur`, whose default sigma this is.
    """

    kernel_size: PositiveInt
    sigma: _Range = (0.1, 2.0)
    probability: Probability = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kernel_size % 2 == 0:
            raise FieldError("kernel_size", self.kernel_size, "an odd number from 1 on")
        _check_ascending("sigma", self.sigma, "widths above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """The changes of each training image, in the order of the fields; by default none.

    Args:
        resize: Shorter side after PIL's bicubic resize, pixels; None for no resize.
        random_crop: Side of a square cut at a random place, pixels; None for none.
        random_resized_crop: Random box resized to a square, bilinear; None for none. Not with the two above.
        horizontal_flip: Probability of a mirror image, in [0, 1].
        rotation: Largest angle either way, degrees, in [0, 180].
        translate: Largest shift either way along each axis, as a fraction of the side, in [0, 1].
        scale: Largest change of size either way, as a fraction, in [0, 1).
        interpolation: Interpolation of rotation, shift and size together: ``bilinear``, or PIL's ``nearest``. Pixels
            outside the image are 0.
        color_jitter: Changes of colour; None for none.
        grayscale: Probability of a grey image, in [0, 1].
        blur: Gaussian blur; None for none.
        erasing: Probability that a rectangle of .02 to 1/3 of the area is erased, in [0, 1].
        erasing_aspect: Smallest and largest height over width of that rectangle.
        erasing_fill: Value of an erased pixel: ``zero`` or standard normal ``noise``, both after normalisation.
        erasing_place: ``before_mixing`` or, like the zoo's authors, ``after_mixing``.
    """

    resize: PositiveInt | None = None
    random_crop: PositiveInt | None = None
    random_resized_crop: RandomResizedCrop | None = None
    horizontal_flip: Probability = 0.0
    rotation: Annotated[float, Meta(ge=0, le=180, description="degrees from 0 to 180")] = 0.0
    translate: _Fraction = 0.0
    scale: Annotated[float, Meta(ge=0, lt=1, description="a fraction from 0 to below 1")] = 0.0
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    color_jitter: ColorJitter | None = None
    grayscale: Probability = 0.0
    blur: GaussianBlur | None = None
    erasing: Probability = 0.0
    erasing_aspect: _Range = (0.3, 3.3)
    erasing_fill: Literal["zero", "noise"] = "zero"
    erasing_place: Literal["before_mixing", "after_mixing"] = "before_mixing"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resize is not None and self.random_crop is not None and self.random_crop > self.resize:
            raise FieldError("random_crop", self.random_crop, f"at most resize, {self.resize}")
        if self.random_resized_crop is not None and (self.resize, self.random_crop) != (None, None):
            raise FieldError("random_resized_crop", self.random_resized_crop, "None with resize or random_crop")
        _check_ascending("erasing_aspect", self.erasing_aspect, "aspects above 0")


def _check_ascending(name: str, values: tuple[float, float], meaning: str) -> None:
    if values[0] > values[1]:
        raise FieldError(name, values, f"two {meaning}, ascending")
