"""Colours equal PIL's, byte for byte, for colours from everywhere in the cube."""

from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from tests.images.oracles import by_pil, noise, photographs, to_tensor
from training.images import draws as places
from training.images.colour import BRIGHTNESS, CONTRAST, SATURATION, enhance, grey, jitter, luma, turn_hue
from training.random import Draw
from training.recipes.augmentation import ColorJitter

ENHANCE = {
    BRIGHTNESS: ImageEnhance.Brightness,
    CONTRAST: ImageEnhance.Contrast,
    SATURATION: ImageEnhance.Color,
}
AUTHORS = ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1, probability=0.8)


def colours() -> Tensor:
    """Return every fifth of the 2^24 colours, one a pixel."""
    number = torch.arange(0, 2**24, 5, dtype=torch.int32)[: 1831 * 1832]
    return torch.stack([(number >> shift & 255).byte() for shift in (16, 8, 0)]).view(1, 3, 1831, 1832)


def pil_hue(image: Image.Image, turn: int) -> Image.Image:
    """Rotate the hue like torchvision, by 255ths of the circle."""
    hue, saturation, value = image.convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.uint8(turn % 256))
    return Image.merge("HSV", (turned, saturation, value)).convert(image.mode)


def pil_jitter(image: Image.Image, settings: ColorJitter, numbers: list[float]) -> Image.Image:
    """Apply torchvision's ColorJitter within RandomApply, from its definition and the drawn numbers."""
    if numbers[places.JITTER] >= settings.probability:
        return image
    amounts = (settings.brightness, settings.contrast, settings.saturation, settings.hue)
    order = list(permutations(range(4)))[int(numbers[places.ORDER] * 24)]
    for kind in order:
        number = numbers[(places.BRIGHTNESS, places.CONTRAST, places.SATURATION, places.HUE)[kind]]
        if amounts[kind] == 0:
            continue
        if kind == 3:
            image = pil_hue(image, int((-settings.hue + 2 * settings.hue * number) * 255))
            continue
        low, high = max(0.0, 1 - amounts[kind]), 1 + amounts[kind]
        image = ENHANCE[kind](image).enhance(low + (high - low) * number)
    return image


def drawn(count: int, *, seed: int = 0) -> Tensor:
    return Draw(seed=seed, epoch=0, samples=torch.arange(count)).uniforms(60)


def test_brightness_and_hue_of_colours_equal_pil() -> None:
    image = Image.fromarray(colours()[0].permute(1, 2, 0).numpy())
    assert torch.equal(luma(colours())[0].byte(), to_tensor(image.convert("L")))
    turned = turn_hue(colours(), torch.tensor([25], dtype=torch.uint8))
    assert torch.equal(turned[0], to_tensor(pil_hue(image, 25)))


def test_every_rotation_of_the_hue_equals_pil() -> None:
    images = torch.cat((noise(1, 50, 50), photographs(1, 50, 50))).repeat(128, 1, 1, 1)
    turns = torch.arange(256)
    found = turn_hue(images, turns.byte())
    assert torch.equal(found, by_pil(images, lambda i, image: pil_hue(image, i)))


@pytest.mark.parametrize("kind", ENHANCE)
def test_blends_equal_pil(kind: int) -> None:
    images = torch.cat((noise(100, 24, 17), photographs(100, 24, 17)))
    factors = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2.5
    factors[:5] = torch.tensor([0, 1, 0.5, 2, 1 / 3], dtype=torch.float64)
    found = enhance(images, torch.full((200,), kind), factors.float())
    values = factors.tolist()
    assert torch.equal(found, by_pil(images, lambda i, image: ENHANCE[kind](image).enhance(values[i])))


@pytest.mark.parametrize(
    "settings",
    [
        AUTHORS,
        ColorJitter(brightness=1.5, contrast=2.0, saturation=3.0, hue=0.5),
        ColorJitter(hue=0.3),
        ColorJitter(contrast=0.8, hue=0.2, probability=0.5),
        ColorJitter(brightness=0.4, saturation=0.6),
        ColorJitter(),
    ],
)
def test_jitter_equals_torchvision(settings: ColorJitter) -> None:
    images, draws = photographs(150, 20, 25), drawn(150)
    numbers = draws.double().tolist()
    expected = by_pil(images, lambda i, image: pil_jitter(image, settings, numbers[i]))
    assert torch.equal(jitter(images, settings, draws), expected)


def test_grey_equals_pil_and_leaves_the_other_images() -> None:
    images, chosen = photographs(10, 9, 8), torch.arange(10) % 3 == 0
    expected = by_pil(images, lambda i, image: image.convert("L").convert("RGB") if i % 3 == 0 else image)
    assert torch.equal(grey(images, chosen), expected)
