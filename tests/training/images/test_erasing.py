"""Erasing equals the paper's and timm's definition: probability, size, shape, place and fill."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.images.oracles import augment
from training.images import erasing
from training.images.draws import draw_for_changes
from training.random import Draw, Stream, normals, tensor_id
from training.recipes.augmentation import Augmentation

ALWAYS = Augmentation(erasing=1.0)
NOISE = replace(ALWAYS, erasing_fill="noise")


def erase(images: Tensor, augmentation: Augmentation, draw: Draw) -> Tensor:
    return erasing.erase(images, draw_for_changes(augmentation, draw), augmentation)


def erased(count: int, side: int, augmentation: Augmentation = ALWAYS, *, channels: int = 1) -> Tensor:
    """Erase white images, which are 1 after normalisation."""
    return augment(
        torch.full((count, channels, side, side), 255, dtype=torch.uint8),
        augmentation,
        Draw(seed=1, epoch=0, samples=torch.arange(count)),
        mean=(0.5, 0.4, 0.3)[:channels],
        std=(0.5, 0.6, 0.7)[:channels],
    )


def timm_rectangle(height: int, width: int, numbers: list[float]) -> tuple[int, int, int, int] | None:
    """Compute timm's `RandomErasing._erase` with the drawn numbers in place of Python's generator."""
    for attempt in range(10):
        area, aspect = numbers[8 + 2 * attempt], numbers[9 + 2 * attempt]
        target = (0.02 + (1 / 3 - 0.02) * area) * height * width
        ratio = math.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * aspect)
        h, w = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if w < width and h < height:
            return int(numbers[6] * (height - h + 1)), int(numbers[7] * (width - w + 1)), h, w
    return None


@pytest.mark.parametrize("fill", ["zero", "noise"])
@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_erasing_has_its_probability(probability: float, fill: str) -> None:
    found = erased(4000, 16, Augmentation(erasing=probability, erasing_fill=fill))  # pyright: ignore[reportArgumentType]
    share = (found != 1).any(dim=(1, 2, 3)).float().mean().item()
    assert share == pytest.approx(probability, abs=0.02 if 0 < probability < 1 else 0)


@pytest.mark.parametrize("probability", [0.3, 1.0])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 31), (2, 2), (1, 5)])
def test_rectangles_equal_timm(height: int, width: int, probability: float) -> None:
    images = torch.ones(500, 2, height, width)
    found = erase(images, replace(ALWAYS, erasing=probability), Draw(seed=1, epoch=0, samples=torch.arange(500)))
    numbers = Draw(seed=1, epoch=0, samples=torch.arange(500)).uniforms(28).double().tolist()
    for image, drawn in zip(found, numbers, strict=True):
        expected = torch.ones(2, height, width)
        place = timm_rectangle(height, width, drawn) if drawn[5] < probability else None
        if place is not None:
            top, left, h, w = place
            expected[:, top : top + h, left : left + w] = 0
        assert torch.equal(image, expected)


def test_noise_is_standard_normal_inside_the_rectangle() -> None:
    zero, noisy = erased(400, 64, channels=3), erased(400, 64, NOISE, channels=3)
    gone = zero == 0
    assert torch.equal(zero[~gone], noisy[~gone])
    assert stats.kstest(noisy[gone][::37].double().numpy(), "norm").pvalue > 0.01
    one = noisy[0][gone[0]]
    assert one.unique().numel() > 0.99 * one.numel()  # for each pixel and channel


def test_noise_is_read_from_the_images_own_place() -> None:
    count = 2**20
    numbers = normals(0, Stream.NOISE, tensor=tensor_id("erasing"), count=count)
    images = torch.full((300, 3, 64, 64), 9.0)
    found = erase(images, NOISE, Draw(seed=1, epoch=0, samples=torch.arange(300))).flatten(1)
    draws = Draw(seed=1, epoch=0, samples=torch.arange(300)).uniforms(60)
    starts = (draws[:, 59].double() * count).long()
    expected = numbers[(starts[:, None] + torch.arange(3 * 64 * 64)) % count]
    assert (starts > count - 3 * 64 * 64).any()  # an image that continues at the beginning
    assert torch.equal(torch.where(found == 9, 9.0, expected), found)


@pytest.mark.parametrize("augmentation", [replace(ALWAYS, erasing=0.5), replace(NOISE, erasing=0.5)])
def test_erasing_after_mixing_is_a_step_of_its_own(augmentation: Augmentation) -> None:
    after = replace(augmentation, erasing_place="after_mixing")
    plain = erased(50, 16, after)
    assert torch.equal(plain, erased(50, 16, Augmentation()))
    assert torch.equal(
        erase(plain, after, Draw(seed=1, epoch=0, samples=torch.arange(50))), erased(50, 16, augmentation)
    )
