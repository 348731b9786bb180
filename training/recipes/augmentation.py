"""How a training image is changed, as a recipe says it: frozen dataclasses, checked when they are made. Pure: no torch.

What is done with it is `training/images/augment.py`'s; what mixes images with one another `training.py`'s `Mixing`.
"""

import math
from dataclasses import dataclass
from typing import Literal

from training.recipes.checks import check_one_of, check_positive, check_range
from vitzoo.records.field_types import check_field_types


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomResizedCrop:
    """A box of random area and aspect, resized to a square.

    Args:
        size: side of the square, pixels.
        scale: smallest and largest area of the box, as fractions of the image's, in (0, 1].
        ratio: smallest and largest width over height.

    Source:
        Szegedy et al. 2015 (GoogLeNet), section 6; torchvision's `RandomResizedCrop`, whose defaults these are.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_field_types(self)
        check_positive("size", self.size)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale is {self.scale}; expected two fractions of the area above 0, ascending, up to 1")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise ValueError(f"ratio is {self.ratio}; expected two aspects above 0, ascending")


@dataclass(frozen=True, kw_only=True, slots=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue, changed in a random order.

    Args:
        brightness: factors are drawn from 1 - brightness to 1 + brightness, not below 0.
        contrast: likewise.
        saturation: likewise.
        hue: largest turn of the hue either way, as a fraction of the circle, in [0, .5].
        probability: of doing any of it, in [0, 1].

    Source:
        torchvision's `ColorJitter` within `RandomApply`.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_field_types(self)
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number from 0 on")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is {self.hue}; expected a fraction of the circle from 0 to .5")
        check_range("probability", self.probability, 1, "a probability")


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianBlur:
    """A blur of random width.

    Args:
        kernel_size: pixels along each axis, odd.
        sigma: smallest and largest standard deviation, pixels.
        probability: of doing it, in [0, 1].

    Source:
        torchvision's `GaussianBlur`, whose default sigma this is.
    """

    kernel_size: int
    sigma: tuple[float, float] = (0.1, 2.0)
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_field_types(self)
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {self.kernel_size}; expected an odd number from 1 on")
        if not 0 < self.sigma[0] <= self.sigma[1] < math.inf:
            raise ValueError(f"sigma is {self.sigma}; expected two widths above 0, ascending")
        check_range("probability", self.probability, 1, "a probability")


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How a training image is changed, each image on its own, in the order of the fields; the default changes nothing.

    Args:
        resize: shorter side after PIL's bicubic resize, pixels; None for no resize.
        random_crop: side of a square cut at a random place, pixels; None for none.
        random_resized_crop: a random box resized to a square, bilinear; None for none. Not with the two above.
        horizontal_flip: probability of a mirror image, in [0, 1].
        rotation: largest angle either way, in degrees, in [0, 180].
        translate: largest shift either way, as a fraction of the side, along each axis, in [0, 1].
        scale: largest change of size either way, as a fraction, in [0, 1).
        interpolation: of rotation, shift and size together: ``bilinear``, or PIL's ``nearest``. Zeros come in from
            outside.
        color_jitter: changes of colour; None for none.
        grayscale: probability of a grey image, in [0, 1].
        blur: a Gaussian blur; None for none.
        erasing: probability that a rectangle of .02 to 1/3 of the area is erased, in [0, 1].
        erasing_aspect: smallest and largest height over width of that rectangle.
        erasing_fill: what an erased pixel is: ``zero`` or standard normal ``noise``, both after normalising.
        erasing_place: ``before_mixing`` or, as the zoo's authors do, ``after_mixing``.

    Raises:
        ValueError: a field outside its range.
    """

    resize: int | None = None
    random_crop: int | None = None
    random_resized_crop: RandomResizedCrop | None = None
    horizontal_flip: float = 0.0
    rotation: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    color_jitter: ColorJitter | None = None
    grayscale: float = 0.0
    blur: GaussianBlur | None = None
    erasing: float = 0.0
    erasing_aspect: tuple[float, float] = (0.3, 3.3)
    erasing_fill: Literal["zero", "noise"] = "zero"
    erasing_place: Literal["before_mixing", "after_mixing"] = "before_mixing"

    def __post_init__(self) -> None:
        check_field_types(self)
        for name in ("resize", "random_crop"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        if self.resize is not None and self.random_crop is not None and self.random_crop > self.resize:
            raise ValueError(f"random_crop is {self.random_crop}; expected at most resize, {self.resize}")
        if self.random_resized_crop is not None and (self.resize, self.random_crop) != (None, None):
            raise ValueError(
                f"random_resized_crop stands beside resize {self.resize} and random_crop {self.random_crop}; "
                "expected one way of cropping"
            )
        check_range("rotation", self.rotation, 180, "degrees")
        check_range("translate", self.translate, 1, "a fraction of the side")
        check_range("horizontal_flip", self.horizontal_flip, 1, "a probability")
        check_range("grayscale", self.grayscale, 1, "a probability")
        check_range("erasing", self.erasing, 1, "a probability")
        if not 0 < self.erasing_aspect[0] <= self.erasing_aspect[1] < math.inf:
            raise ValueError(f"erasing_aspect is {self.erasing_aspect}; expected two aspects above 0, ascending")
        check_one_of("interpolation", self.interpolation, ("bilinear", "nearest"))
        check_one_of("erasing_fill", self.erasing_fill, ("zero", "noise"))
        check_one_of("erasing_place", self.erasing_place, ("before_mixing", "after_mixing"))
        if not 0 <= self.scale < 1:
            raise ValueError(
                f"scale is {self.scale}; expected a fraction from 0 to below 1, at which an image vanishes"
            )
