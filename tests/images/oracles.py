"""Change images one by one with PIL, and make images for it: photographs and noise."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

from training.images.augment import augment_cropped
from training.images.crops import crop
from training.random import Draw
from training.recipes.augmentation import Augmentation


@cache
def _photographs() -> tuple[np.ndarray, ...]:
    return tuple(load_sample_images().images)  # two, of 427 x 640 pixels, bundled with scikit-learn


def photographs(count: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """Cut pieces of real photographs."""
    generator = np.random.default_rng(seed)
    pieces = []
    for number in range(count):
        photograph = _photographs()[number % 2]
        top, left = (generator.integers(0, whole - part + 1) for whole, part in ((427, height), (640, width)))
        pieces.append(photograph[top : top + height, left : left + width].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(pieces))


def digits(count: int = 64) -> Tensor:
    """Return real digits of 8 x 8 pixels in grey RGB."""
    pixels = np.asarray(load_digits(return_X_y=True)[0])[:count].reshape(-1, 1, 8, 8)
    return torch.from_numpy(np.round(pixels * 255 / 16).astype(np.uint8)).repeat(1, 3, 1, 1)


def noise(count: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """Draw every level with the same probability: nowhere smooth, so the hardest case."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def by_pil(images: Tensor, change: Callable[[int, Image.Image], Image.Image]) -> Tensor:
    """Change each image, with its number, by PIL."""
    return torch.stack([to_tensor(change(number, to_pil(image))) for number, image in enumerate(images)])


def to_pil(image: Tensor) -> Image.Image:
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels if len(image) == 3 else np.ascontiguousarray(pixels[:, :, 0]))


def to_tensor(image: Image.Image) -> Tensor:
    pixels = np.array(image)
    return torch.from_numpy(pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None])


def augment(images: Tensor, augmentation: Augmentation, draw: Draw, **statistics: Any) -> Tensor:
    """Crop images and make all other changes."""
    return augment_cropped(crop(images, augmentation, draw), augmentation, draw, **statistics)
