"""Assign the random numbers of a sample to the operations of an augmentation.

The places are frozen, since they are part of a recipe's meaning. A new operation takes places after the last. Drawing
fewer numbers changes none of them.
"""

from jaxtyping import Float32
from torch import Tensor

from training.random import Draw
from training.recipes.augmentation import Augmentation

ROTATION, RIGHT, DOWN, SCALE, FLIP, ERASE, ERASE_TOP, ERASE_LEFT = range(8)
ERASE_SIZES = slice(8, 28)  # ten attempts like timm's, of two numbers: area, aspect
CROP_TOP, CROP_LEFT = 28, 29  # of a square of fixed size, or of a resized box
BOX_SIZES = slice(30, 50)  # ten attempts like torchvision's, of two numbers: area, aspect
JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE, ORDER = range(50, 56)
GRAYSCALE, BLUR, SIGMA, NOISE = range(56, 60)


def draw_for_changes(augmentation: Augmentation, draw: Draw) -> Float32[Tensor, "samples draws"]:
    """Draw the numbers that decide the changes of each cropped image: as many as the augmentation uses."""
    ends = {
        FLIP + 1: True,
        ERASE_SIZES.stop: augmentation.erasing > 0,
        ORDER + 1: augmentation.color_jitter is not None,
        GRAYSCALE + 1: augmentation.grayscale > 0,
        SIGMA + 1: augmentation.blur is not None,
        NOISE + 1: augmentation.erasing > 0 and augmentation.erasing_fill == "noise",
    }
    return draw.uniforms(max(end for end, used in ends.items() if used))
