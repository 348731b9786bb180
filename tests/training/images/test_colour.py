"""Colours against PIL: no byte differs, for any colour there is."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from tests.images.oracles import by_pil, noise, photographs, to_tensor
from training.images import draws as places
from training.images.colour import BRIGHTNESS, CONTRAST, SATURATION, enhance, grey, jitter, luma
from training.images.hue import turn_hue
from training.random import Draw
from training.recipes.augmentation import ColorJitter

ENHANCE = {
    BRIGHTNESS: ImageEnhance.Brightness,
    CONTRAST: ImageEnhance.Contrast,
    SATURATION: ImageEnhance.Color,
}
AUTHORS = ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1, probability=0.8)


def every_colour() -> Tensor:
    """All 2^24, one a pixel."""
    number = torch.arange(2**24, dtype=torch.int32)
    return torch.stack([(number >> shift & 255).byte() for shift in (16, 8, 0)]).view(1, 3, 4096, 4096)


def pil_hue(image: Image.Image, turn: int) -> Image.Image:
    """torchvision's, of a turn in 255ths."""
    hue, saturation, value = image.convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.uint8(turn % 256))
    return Image.merge("HSV", (turned, saturation, value)).convert(image.mode)


def pil_jitter(image: Image.Image, settings: ColorJitter, numbers: list[float]) -> Image.Image:
    """torchvision's ColorJitter within RandomApply, from its definition and the numbers drawn."""
    if numbers[places.JITTER] >= settings.probability:
        return image
    amounts = (settings.brightness, settings.contrast, settings.saturation, settings.hue)
    order = list(permutations(range(4)))[int(numbers[places.ORDER] * 24)]
    for kind in order:
        number = numbers[(places.BRIGHTNESS, places.CONTRAST, places.SATURATION, places.HUE)[kind]]
        if amounts[kind] == 0:
            continue
        if kind == 3:
            image = (
                pil_hue(image, int((-settings.hue + 2 * settings.hue * number) * 255)) if image.mode == "RGB" else image
            )
            continue
        low, high = max(0.0, 1 - amounts[kind]), 1 + amounts[kind]
        image = ENHANCE[kind](image).enhance(low + (high - low) * number)
    return image


def drawn(count: int, *, seed: int = 0) -> Tensor:
    return Draw(seed=seed, epoch=0, samples=torch.arange(count)).uniforms(60)


def test_every_colour_is_as_bright_and_turns_as_pils() -> None:
    for colours in every_colour().split(1024, dim=2):
        image = Image.fromarray(colours[0].permute(1, 2, 0).numpy())
        assert torch.equal(luma(colours)[0].byte(), to_tensor(image.convert("L")))
        turned = turn_hue(colours, torch.tensor([25], dtype=torch.uint8))
        assert torch.equal(turned[0], to_tensor(pil_hue(image, 25)))


def test_every_turn_is_pils() -> None:
    images = torch.cat((noise(1, 50, 50), photographs(1, 50, 50))).repeat(128, 1, 1, 1)
    turns = torch.arange(256)
    found = turn_hue(images, turns.byte())
    assert torch.equal(found, by_pil(images, lambda i, image: pil_hue(image, i)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ENHANCE)
def test_blends_are_pils(kind: int, channels: int) -> None:
    images = torch.cat((noise(100, 24, 17), photographs(100, 24, 17)))[:, :channels]
    factors = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2.5
    factors[:5] = torch.tensor([0, 1, 0.5, 2, 1 / 3], dtype=torch.float64)
    found = enhance(images, torch.full((200,), kind), factors.float())
    values = factors.tolist()
    assert torch.equal(found, by_pil(images, lambda i, image: ENHANCE[kind](image).enhance(values[i])))


@pytest.mark.parametrize("channels", [1, 3])
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
def test_jitter_is_torchvisions(settings: ColorJitter, channels: int) -> None:
    images, draws = photographs(150, 20, 25)[:, :channels], drawn(150)
    numbers = draws.double().tolist()
    expected = by_pil(images, lambda i, image: pil_jitter(image, settings, numbers[i]))
    assert torch.equal(jitter(images, settings, draws), expected)


def test_all_orders_come_as_often_and_images_change_as_often_as_asked() -> None:
    draws = drawn(24_000)
    orders = Counter((draws[:, places.ORDER].double() * 24).long().tolist())
    assert len(orders) == 24
    assert all(abs(count - 1000) < 150 for count in orders.values())
    images = photographs(1, 4, 4).expand(24_000, 3, 4, 4)
    changed = (jitter(images, AUTHORS, draws) != images).any(1).any(1).any(1).float().mean().item()
    assert changed == pytest.approx(0.8, abs=0.01)


def test_grey_is_pils_and_leaves_the_others() -> None:
    images, chosen = photographs(10, 9, 8), torch.arange(10) % 3 == 0
    expected = by_pil(images, lambda i, image: image.convert("L").convert("RGB") if i % 3 == 0 else image)
    assert torch.equal(grey(images, chosen), expected)
    assert torch.equal(grey(images[:, :1], chosen), images[:, :1])


@pytest.mark.parametrize("channels", [2, 4])
def test_images_without_colours_are_refused(channels: int) -> None:
    images = torch.zeros(2, channels, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"Colours of images of {channels} channels; expected 1 or 3"):
        grey(images, torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=f"Colours of images of {channels} channels; expected 1 or 3"):
        jitter(images, AUTHORS, drawn(2))
