"""Resizing against PIL: no byte differs."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from tests.images.oracles import by_pil, noise, photographs
from vitzoo.images import resizing
from vitzoo.images.resizing import (
    Resample,
    resize,
    resize_and_crop,
    resize_boxes,
    resize_image,
    resized_shape,
)

RESAMPLE: list[Resample] = ["bilinear", "bicubic"]
KERNELS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SIDES = st.integers(1, 70)


def rows_first(image: Image.Image, *, height: int, width: int, resample: Resample) -> Image.Image:
    """Resize rows, then columns, by PIL: bytes in between, and the order is ours under every Pillow."""
    return image.resize((width, image.height), KERNELS[resample]).resize((width, height), KERNELS[resample])


@pytest.mark.parametrize("resample", RESAMPLE)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 99), st.booleans())
def test_resize_to_any_size_equals_pil(
    resample: Resample, height: int, width: int, new_height: int, new_width: int, seed: int, extremes: bool
) -> None:
    images = noise(2, height, width, seed=seed)
    images = (images > 127).byte() * 255 if extremes else images
    found = resize(images, height=new_height, width=new_width, resample=resample)
    assert torch.equal(
        found,
        by_pil(images, lambda _, one: rows_first(one, height=new_height, width=new_width, resample=resample)),
    )
    if height - new_height <= 2 * max(width - new_width, 0):  # there, Pillow's order is ours
        assert torch.equal(found, by_pil(images, lambda _, one: one.resize((new_width, new_height), KERNELS[resample])))


@pytest.mark.parametrize("resample", RESAMPLE)
@pytest.mark.parametrize(
    ("shape", "side"), [((32, 32), 256), ((320, 427), 256), ((427, 320), 224), ((427, 640), 37), ((8, 8), 8)]
)
def test_resized_photographs_equal_pil(shape: tuple[int, int], side: int, resample: Resample) -> None:
    images = photographs(4, *shape)
    height, width = resized_shape(*shape, side)
    expected = by_pil(images, lambda _, one: one.resize((width, height), KERNELS[resample]))
    assert torch.equal(resize(images, height=height, width=width, resample=resample), expected)


@pytest.mark.parametrize("resample", RESAMPLE)
@pytest.mark.parametrize(("shape", "new"), [((500, 3), (20, 5)), ((500, 400), (60, 380)), ((300, 90), (10, 90))])
def test_resize_image_takes_rows_first_where_pillow_takes_columns_first(
    shape: tuple[int, int], new: tuple[int, int], resample: Resample
) -> None:
    images = noise(1, *shape)
    expected = by_pil(images, lambda _, one: resize_image(one, height=new[0], width=new[1], resample=resample))
    assert torch.equal(resize(images, height=new[0], width=new[1], resample=resample), expected)


def test_resize_equals_values_by_hand() -> None:
    image = torch.tensor([[[[0, 100]]]], dtype=torch.uint8)
    # Centres of four pixels out of two are at .25, .75, 1.25, 1.75: three quarters of the nearer pixel, or all of it.
    assert resize(image, height=1, width=4, resample="bilinear").tolist() == [[[[0, 25, 75, 100]]]]
    # Two into one: a triangle two pixels wide either way weighs both alike.
    assert resize(image, height=1, width=1, resample="bilinear").tolist() == [[[[50]]]]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 600))
def test_resized_shape_equals_torchvision(height: int, width: int, side: int) -> None:
    short, long = sorted((height, width))
    longer = int(side * long / short)
    assume(side * longer <= 2**26)
    assert resized_shape(height, width, side) == ((side, longer) if height <= width else (longer, side))


@pytest.mark.parametrize("resample", RESAMPLE)
def test_resize_and_crop_equals_resize_then_crop(resample: Resample) -> None:
    images = photographs(40, 30, 40)
    generator = torch.Generator().manual_seed(0)
    corners = torch.stack([torch.randint(0, last + 1, (40,), generator=generator) for last in (60 - 45, 80 - 45)], 1)
    found = resize_and_crop(images, corners, height=60, width=80, side=45, resample=resample)
    whole = resize(images, height=60, width=80, resample=resample)
    for one, image, (top, left) in zip(found, whole, corners.tolist(), strict=True):
        assert torch.equal(one, image[:, top : top + 45, left : left + 45])


@pytest.mark.parametrize("resample", RESAMPLE)
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 224), (90, 70, 24), (33, 64, 32)])
def test_resized_boxes_equal_pil(height: int, width: int, size: int, resample: Resample) -> None:
    images, generator = photographs(60, height, width), np.random.default_rng(0)
    tall, wide = generator.integers(1, height + 1, 60), generator.integers(1, width + 1, 60)
    tall[:2], wide[:2] = height, width
    tall[2:4], wide[2:4] = 1, (1, width)
    boxes = np.stack((generator.integers(0, height - tall + 1), generator.integers(0, width - wide + 1), tall, wide), 1)
    found = resize_boxes(images, torch.from_numpy(boxes), size=size, resample=resample)

    def cut(number: int, image: Image.Image) -> Image.Image:
        top, left, tall, wide = boxes[number].tolist()
        box = image.crop((left, top, left + wide, top + tall))
        return rows_first(box, height=size, width=size, resample=resample)

    assert torch.equal(found, by_pil(images, cut))


@pytest.mark.parametrize("resample", RESAMPLE)
@pytest.mark.parametrize("size", [8, 224])
def test_box_has_room_for_every_pixel_with_a_weight(size: int, resample: Resample) -> None:
    lengths = torch.tensor([*range(1, 40), 223, 224, 225, 255, 257, 511, 512])
    together = resizing._taps(lengths, size, resample, longest=512)
    room = together.weights.shape[2]
    for weights, length in zip(together.weights, lengths, strict=True):
        roomy = resizing._taps(length[None], size, resample, longest=2 * (512 + size))
        assert torch.equal(weights, roomy.weights[0, :, :room])
        assert not roomy.weights[0, :, room:].any()


def test_resize_is_the_same_for_any_number_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images, boxes = noise(9, 20, 17), torch.tensor([[1, 2, 11, 13]]).repeat(9, 1)
    whole, parts = [], []
    for found, limit in ((whole, 2**28), (parts, 1)):
        monkeypatch.setattr(resizing, "_CPU_BYTES", limit)
        found.append(resize(images, height=33, width=9, resample="bicubic"))
        found.append(resize_boxes(images, boxes, size=12, resample="bilinear"))
        found.append(resize_and_crop(images, boxes[:, :2], height=40, width=34, side=20, resample="bicubic"))
    assert all(torch.equal(one, two) for one, two in zip(whole, parts, strict=True))
    alone = torch.cat([resize(one, height=33, width=9, resample="bicubic") for one in images.split(1)])
    assert torch.equal(whole[0], alone)


def test_resize_of_no_images_gives_none() -> None:
    assert resize(noise(0, 4, 4), height=5, width=6, resample="bicubic").shape == (0, 3, 5, 6)
