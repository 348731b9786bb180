"""Places of crops equal torchvision's definition, number by number, and the crops equal PIL's."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from tests.images.oracles import by_pil, photographs
from training.images.crops import crop, draw_boxes, draw_corners
from training.random import Draw, Stream
from training.recipes.augmentation import Augmentation, RandomResizedCrop
from vitzoo.images.resizing import resize_image

KEY: dict[str, Any] = {"seed": 3, "epoch": 2}
DEFAULT = RandomResizedCrop(size=224)


def torchvision_box(
    settings: RandomResizedCrop, height: int, width: int, numbers: list[float]
) -> tuple[int, int, int, int]:
    """Compute `RandomResizedCrop.get_params` with the drawn numbers in place of torch's generator."""
    low, high = math.log(settings.ratio[0]), math.log(settings.ratio[1])
    for attempt in range(10):
        area, aspect = numbers[30 + 2 * attempt], numbers[31 + 2 * attempt]
        target = height * width * (settings.scale[0] + (settings.scale[1] - settings.scale[0]) * area)
        ratio = math.exp(low + (high - low) * aspect)
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(numbers[28] * (height - h + 1)), int(numbers[29] * (width - w + 1)), h, w
    ratio = width / height
    if ratio < settings.ratio[0]:
        w, h = width, round(width / settings.ratio[0])
    elif ratio > settings.ratio[1]:
        w, h = round(height * settings.ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def boxes(settings: RandomResizedCrop, heights: Tensor, widths: Tensor) -> Tensor:
    return draw_boxes(settings, Draw(samples=torch.arange(len(heights)), **KEY), heights=heights, widths=widths)


@pytest.mark.parametrize(
    "settings",
    [
        DEFAULT,
        RandomResizedCrop(size=32, scale=(0.2, 0.7), ratio=(0.5, 3.0)),
        RandomResizedCrop(size=8, scale=(0.99, 1.0), ratio=(0.9, 1.1)),  # most attempts do not fit
        RandomResizedCrop(size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0)),
    ],
)
def test_boxes_equal_torchvision(settings: RandomResizedCrop) -> None:
    generator = np.random.default_rng(0)
    heights, widths = torch.from_numpy(generator.integers(1, 600, (2, 3000)))
    numbers = Draw(seed=3, epoch=2, samples=torch.arange(3000)).uniforms(50).double().tolist()
    found = boxes(settings, heights, widths).tolist()
    for one, height, width, drawn in zip(found, heights.tolist(), widths.tolist(), numbers, strict=True):
        assert tuple(one) == torchvision_box(settings, height, width, drawn)


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0.001, 1), st.floats(0.1, 1), st.floats(1, 10))
def test_boxes_are_inside_the_image(height: int, width: int, scale: float, narrow: float, wide: float) -> None:
    settings = RandomResizedCrop(size=8, scale=(scale, 1.0), ratio=(narrow, wide))
    found = boxes(settings, torch.full((50,), height), torch.full((50,), width))
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] >= 1).all()
    assert (found[:, :2] + found[:, 2:] <= torch.tensor([height, width])).all()


def test_corners_are_uniform() -> None:
    side, count = 5, 40_000
    found = draw_corners(
        side, Draw(samples=torch.arange(count), **KEY), heights=torch.full((count,), 7), widths=torch.full((count,), 8)
    )
    numbers = Draw(seed=3, epoch=2, samples=torch.arange(count)).uniforms(30).double()
    assert torch.equal(found, (numbers[:, 28:] * torch.tensor([3, 4])).floor().long())
    counts = torch.bincount(found[:, 0] * 4 + found[:, 1], minlength=12)
    assert len(counts) == 12
    assert (counts / count - 1 / 12).abs().max() < 0.006


def test_crop_of_boxes_equals_pil() -> None:
    images, samples = photographs(30, 61, 90), torch.arange(30) * 7
    augmentation = Augmentation(random_resized_crop=RandomResizedCrop(size=24))
    found = crop(images, augmentation, Draw(samples=samples, view=1, **KEY))

    def cut(number: int, image: Image.Image) -> Image.Image:
        top, left, height, width = draw_boxes(
            RandomResizedCrop(size=24),
            Draw(samples=samples[number : number + 1], view=1, **KEY),
            heights=torch.tensor([image.height]),
            widths=torch.tensor([image.width]),
        )[0].tolist()
        box = image.crop((left, top, left + width, top + height))
        return resize_image(box, height=24, width=24, resample="bilinear")

    assert torch.equal(found, by_pil(images, cut))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (30, 45), (45, 30)])
@pytest.mark.parametrize("resize", [None, 40, 64])
def test_resize_and_random_crop_equal_pil(resize: int | None, height: int, width: int) -> None:
    images, samples = photographs(30, height, width), torch.arange(30) * 7
    found = crop(images, Augmentation(resize=resize, random_crop=28), Draw(samples=samples, **KEY))

    def cut(number: int, image: Image.Image) -> Image.Image:
        if resize is not None:
            short, long = sorted(image.size)
            longer = int(resize * long / short)
            size = (resize, longer) if image.width <= image.height else (longer, resize)
            image = image.resize(size, Image.Resampling.BICUBIC)
        top, left = draw_corners(
            28,
            Draw(samples=samples[number : number + 1], **KEY),
            heights=torch.tensor([image.height]),
            widths=torch.tensor([image.width]),
        )[0].tolist()
        return image.crop((left, top, left + 28, top + 28))

    assert torch.equal(found, by_pil(images, cut))


def test_resize_alone_equals_pil() -> None:
    images = photographs(3, 20, 30)
    found = crop(images, Augmentation(resize=31), Draw(samples=torch.arange(3), **KEY))
    assert torch.equal(found, by_pil(images, lambda _, image: image.resize((46, 31), Image.Resampling.BICUBIC)))


def test_crop_returns_the_images_without_crops() -> None:
    images = photographs(3, 20, 30)
    assert crop(images, Augmentation(rotation=10.0), Draw(samples=torch.arange(3), **KEY)) is images


def test_crop_refuses_images_smaller_than_the_square() -> None:
    images = photographs(2, 27, 40)
    with pytest.raises(ValueError, match="random_crop is 28 for images of 27 x 40 pixels"):
        crop(images, Augmentation(random_crop=28), Draw(samples=torch.arange(2), **KEY))


def test_box_depends_on_seed_epoch_sample_view_and_stream() -> None:
    sides = torch.full((2000,), 300)
    found = boxes(DEFAULT, sides, sides)
    some = draw_boxes(DEFAULT, Draw(samples=torch.tensor([5, 1999, 5]), **KEY), heights=sides[:3], widths=sides[:3])
    assert torch.equal(some, found[[5, 1999, 5]])
    for other in ({"seed": 4}, {"epoch": 1}, {"view": 1}, {"stream": Stream.EVALUATION}):
        moved = draw_boxes(DEFAULT, Draw(samples=torch.arange(2000), **{**KEY, **other}), heights=sides, widths=sides)
        assert (moved == found).all(1).float().mean() < 0.01
    assert torch.equal(boxes(replace(DEFAULT, size=32), sides, sides), found)
