"""Erasing against the paper's and timm's definition: how often, how large, of which shape, where, and with what."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from training.images.augment import augment
from training.images.erasing import erase
from training.random import Draw, Stream, normals, tensor_id
from training.recipes.augmentation import Augmentation

ALWAYS = Augmentation(erasing=1.0)
NOISE = replace(ALWAYS, erasing_fill="noise")


def erased(count: int, side: int, augmentation: Augmentation = ALWAYS, *, channels: int = 1) -> Tensor:
    """White images, so 1 after normalising, erased."""
    return augment(
        torch.full((count, channels, side, side), 255, dtype=torch.uint8),
        augmentation,
        Draw(seed=1, epoch=0, samples=torch.arange(count)),
        mean=(0.5, 0.4, 0.3)[:channels],
        std=(0.5, 0.6, 0.7)[:channels],
    )


def timm_rectangle(height: int, width: int, numbers: list[float]) -> tuple[int, int, int, int] | None:
    """timm's `RandomErasing._erase`, with the numbers drawn in place of Python's generator."""
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
def test_erasing_happens_as_often_as_asked(probability: float, fill: str) -> None:
    found = erased(4000, 16, Augmentation(erasing=probability, erasing_fill=fill))  # pyright: ignore[reportArgumentType]
    share = (found != 1).any(dim=(1, 2, 3)).float().mean().item()
    assert share == pytest.approx(probability, abs=0.02 if 0 < probability < 1 else 0)


@pytest.mark.parametrize("probability", [0.3, 1.0])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 31), (2, 2), (1, 5)])
def test_rectangles_are_timms(height: int, width: int, probability: float) -> None:
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


@pytest.mark.parametrize("side", [8, 64])
def test_what_is_erased_is_a_rectangle_within_bounds(side: int) -> None:
    places = set()
    for image in erased(1000, side, channels=2):
        gone = (image == 0).numpy()
        assert np.array_equal(gone[0], gone[1])  # exactly 0 after normalisation, in every channel
        rows, columns = np.flatnonzero(gone[0].any(1)), np.flatnonzero(gone[0].any(0))
        tall, wide = len(rows), len(columns)
        assert (np.ptp(rows), np.ptp(columns), gone[0].sum()) == (tall - 1, wide - 1, tall * wide)
        # Sides are rounded to pixels, so the bounds hold for some sides within half a pixel of those seen.
        assert (tall + 0.5) * (wide + 0.5) >= 0.02 * side**2
        assert (tall - 0.5) * (wide - 0.5) <= side**2 / 3
        assert (tall + 0.5) / (wide - 0.5) >= 0.3
        assert (tall - 0.5) / (wide + 0.5) <= 3.3
        places |= {"top"} if rows[0] == 0 else set()
        places |= {"bottom"} if rows[-1] == side - 1 else set()
        places |= {"left"} if columns[0] == 0 else set()
        places |= {"right"} if columns[-1] == side - 1 else set()
    assert places == {"top", "bottom", "left", "right"}


def test_erased_area_aspect_and_place_are_spread_as_in_the_paper() -> None:
    gone = erased(3000, 128)[:, 0] == 0
    areas = gone.sum((1, 2)) / 128**2
    tall, wide = gone.any(2).sum(1), gone.any(1).sum(1)
    assert areas.mean().item() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.01)
    assert areas.std().item() == pytest.approx((1 / 3 - 0.02) / math.sqrt(12), abs=0.01)
    assert (tall / wide).log().mean().item() == pytest.approx(math.log(0.3 * 3.3) / 2, abs=0.05)
    for along, length in ((gone.any(2), tall), (gone.any(1), wide)):
        start = along.byte().argmax(1)
        assert ((start + 0.5) / (128 - length + 1)).mean().item() == pytest.approx(0.5, abs=0.02)


def test_noise_is_standard_normal_where_zero_would_be_and_nowhere_else() -> None:
    zero, noisy = erased(400, 64, channels=3), erased(400, 64, NOISE, channels=3)
    gone = zero == 0
    assert torch.equal(zero[~gone], noisy[~gone])
    assert stats.kstest(noisy[gone][::37].double().numpy(), "norm").pvalue > 0.01
    one = noisy[0][gone[0]]
    assert one.unique().numel() > 0.99 * one.numel()  # for each pixel and channel


def test_noise_is_read_on_from_an_images_own_place() -> None:
    count = 2**20
    numbers = normals(0, Stream.NOISE, tensor=tensor_id("erasing"), count=count)
    images = torch.full((300, 3, 64, 64), 9.0)
    found = erase(images, NOISE, Draw(seed=1, epoch=0, samples=torch.arange(300))).flatten(1)
    draws = Draw(seed=1, epoch=0, samples=torch.arange(300)).uniforms(60)
    starts = (draws[:, 59].double() * count).long()
    expected = numbers[(starts[:, None] + torch.arange(3 * 64 * 64)) % count]
    assert (starts > count - 3 * 64 * 64).any()  # one that goes on at the beginning
    assert torch.equal(torch.where(found == 9, 9.0, expected), found)


@pytest.mark.parametrize("augmentation", [replace(ALWAYS, erasing=0.5), replace(NOISE, erasing=0.5)])
def test_erasing_after_mixing_is_left_out_and_done_alone(augmentation: Augmentation) -> None:
    after = replace(augmentation, erasing_place="after_mixing")
    plain = erased(50, 16, after)
    assert torch.equal(plain, erased(50, 16, Augmentation()))
    assert torch.equal(
        erase(plain, after, Draw(seed=1, epoch=0, samples=torch.arange(50))), erased(50, 16, augmentation)
    )


def test_nothing_to_erase_gives_the_images() -> None:
    images = torch.ones(3, 1, 4, 4)
    assert erase(images, Augmentation(), Draw(seed=1, epoch=0, samples=torch.arange(3))) is images
    with pytest.raises(ValueError, match="2 samples for 3 images"):
        erase(images, ALWAYS, Draw(seed=1, epoch=0, samples=torch.arange(2)))
