"""What PIL makes of images one by one, and images to try it on: photographs, noise, and the extremes."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor


@cache
def _photographs() -> tuple[np.ndarray, ...]:
    return tuple(load_sample_images().images)  # two, of 427 x 640 pixels, bundled with scikit-learn


def photographs(count: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """Pieces of real photographs."""
    generator = np.random.default_rng(seed)
    pieces = []
    for number in range(count):
        photograph = _photographs()[number % 2]
        top, left = (generator.integers(0, whole - part + 1) for whole, part in ((427, height), (640, width)))
        pieces.append(photograph[top : top + height, left : left + width].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(pieces))


def noise(count: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """Every level as likely as any other: nowhere smooth, so the hardest case."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def by_pil(images: Tensor, change: Callable[[int, Image.Image], Image.Image]) -> Tensor:
    """Each image, with its number, through PIL."""
    return torch.stack([to_tensor(change(number, to_pil(image))) for number, image in enumerate(images)])


def to_pil(image: Tensor) -> Image.Image:
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels if len(image) == 3 else np.ascontiguousarray(pixels[:, :, 0]))


def to_tensor(image: Image.Image) -> Tensor:
    pixels = np.array(image)
    return torch.from_numpy(pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None])
