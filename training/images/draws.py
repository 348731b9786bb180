"""Which of a sample's random numbers decides what. The places are frozen: they are part of what a recipe means.

A new operation takes places after the last. Fewer numbers than there are may be drawn, which changes none of them; what
they decide lives with each operation: `crops.py`, `geometry.py`, `colour.py`, `blur.py`, `erasing.py`.
"""

from jaxtyping import Float32, Int
from torch import Tensor

from training.images.random import Stream, uniforms
from training.recipes.augmentation import Augmentation

ROTATION, RIGHT, DOWN, SCALE, FLIP, ERASE, ERASE_TOP, ERASE_LEFT = range(8)
ERASE_SIZES = slice(8, 28)  # ten attempts, as timm's, of two numbers: area, aspect
CROP_TOP, CROP_LEFT = 28, 29  # of a square of fixed size, or of a resized box
BOX_SIZES = slice(30, 50)  # ten attempts, as torchvision's, of two numbers: area, aspect
JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE, ORDER = range(50, 56)
GRAYSCALE, BLUR, SIGMA, NOISE = range(56, 60)


def draw_for_crop(
    augmentation: Augmentation, *, seed: int, stream: Stream, epoch: int, samples: Int[Tensor, "samples"], view: int
) -> Float32[Tensor, "samples draws"]:
    """The numbers that say which part of each image is taken; as many as are used."""
    count = CROP_LEFT + 1 if augmentation.random_resized_crop is None else BOX_SIZES.stop
    return uniforms(seed, stream, epoch=epoch, samples=samples, view=view, draws=count)


def draw_for_changes(
    augmentation: Augmentation, *, seed: int, stream: Stream, epoch: int, samples: Int[Tensor, "samples"], view: int
) -> Float32[Tensor, "samples draws"]:
    """The numbers that say what is done to each cropped image; as many as are used."""
    ends = {
        FLIP + 1: True,
        ERASE_SIZES.stop: augmentation.erasing > 0,
        ORDER + 1: augmentation.color_jitter is not None,
        GRAYSCALE + 1: augmentation.grayscale > 0,
        SIGMA + 1: augmentation.blur is not None,
        NOISE + 1: augmentation.erasing > 0 and augmentation.erasing_fill == "noise",
    }
    count = max(end for end, used in ends.items() if used)
    return uniforms(seed, stream, epoch=epoch, samples=samples, view=view, draws=count)
