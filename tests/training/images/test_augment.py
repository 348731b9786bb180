"""Augmentation against scipy and its definition, on real digits."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from torch import Tensor

from training.images.augment import augment, transform
from training.images.random import Stream, uniforms
from training.recipes.training import Augmentation
from vitzoo.evaluation import normalise

HALF = (0.5, 0.5, 0.5)
EVERYTHING = Augmentation(rotation=15.0, translate=0.12, scale=0.12, horizontal_flip=0.5, erasing=0.25)


def digits(count: int = 64) -> Tensor:
    pixels = np.asarray(load_digits(return_X_y=True)[0])[:count].reshape(-1, 1, 8, 8)
    return torch.from_numpy(np.round(pixels * 255 / 16).astype(np.uint8)).repeat(1, 3, 1, 1)


def augmented(images: Tensor, augmentation: Augmentation, *, samples: Tensor | None = None, view: int = 0) -> Tensor:
    samples = torch.arange(len(images)) if samples is None else samples
    return augment(images, augmentation, mean=HALF, std=HALF, seed=5, epoch=2, samples=samples, view=view)


def scipy_transform(image: np.ndarray, *, rotation: float, right: float, down: float, scale: float) -> np.ndarray:
    """The same map by scipy, in (row, column) coordinates and float64."""
    height, width = image.shape
    angle = math.radians(rotation)
    inverse = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / scale
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = centre - inverse @ (centre + np.array([down * height, right * width]))
    return ndimage.affine_transform(image.astype(np.float64), inverse, offset, order=1, mode="grid-constant", cval=0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (7, 5), (5, 8)])
def test_transform_agrees_with_scipy(rows: int, columns: int) -> None:
    images = digits()[:, :1, :rows, :columns].float()
    generator = np.random.default_rng(0)
    bounds = {"rotation": (-180, 180), "right": (-0.5, 0.5), "down": (-0.5, 0.5), "scale": (0.5, 1.5)}
    parameters = {name: generator.uniform(low, high, len(images)) for name, (low, high) in bounds.items()}
    found = transform(images, **{name: torch.from_numpy(values) for name, values in parameters.items()})
    expected = [
        scipy_transform(image[0].numpy(), **{name: values[i] for name, values in parameters.items()})
        for i, image in enumerate(images)
    ]
    assert np.abs(found[:, 0].numpy() - np.stack(expected)).max() < 1e-3  # of 255; measured 1.9e-4


def test_transform_turns_counter_clockwise_and_shifts_right_and_down() -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    turned = transform(image, rotation=90 * one, right=none, down=none, scale=one)
    assert torch.allclose(turned, torch.tensor([[[[2.0, 4.0], [1.0, 3.0]]]]), atol=1e-6)
    shifted = transform(image, rotation=none, right=0.5 * one, down=none, scale=one)
    assert shifted.tolist() == [[[[0, 1], [0, 3]]]]
    lowered = transform(image, rotation=none, right=none, down=0.5 * one, scale=one)
    assert lowered.tolist() == [[[[0, 0], [1, 2]]]]
    larger = transform(image, rotation=none, right=none, down=none, scale=2 * one)
    assert larger.tolist() == [[[[1.75, 2.25], [2.75, 3.25]]]]


def test_identity_parameters_give_the_exact_image() -> None:
    images = digits()
    one, none = torch.ones(64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    assert torch.equal(transform(images.float(), rotation=none, right=none, down=none, scale=one), images.float())


def test_no_augmentation_is_normalisation() -> None:
    assert torch.equal(augmented(digits(), Augmentation()), normalise(digits(), mean=HALF, std=HALF))


def test_parameters_are_the_samples_draws() -> None:
    samples = torch.tensor([3, 1000, 17])
    draws = uniforms(5, Stream.AUGMENTATION, epoch=2, samples=samples, draws=28).double()
    found = augmented(digits(3), Augmentation(rotation=15.0, translate=0.12, scale=0.2), samples=samples)
    signed = 2 * draws - 1
    expected = transform(
        digits(3).float(),
        rotation=15 * signed[:, 0],
        right=0.12 * signed[:, 1],
        down=0.12 * signed[:, 2],
        scale=1 + 0.2 * signed[:, 3],
    )
    assert torch.equal(found, normalise(expected, mean=HALF, std=HALF))


@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_flips_happen_as_often_as_asked(probability: float) -> None:
    images = digits(1).expand(2000, 3, 8, 8)
    found = augmented(images, Augmentation(horizontal_flip=probability))
    plain = normalise(images, mean=HALF, std=HALF)
    flipped = (found == plain.flip(-1)).all(dim=(1, 2, 3))
    assert torch.equal(~flipped, (found == plain).all(dim=(1, 2, 3)))
    assert flipped.float().mean().item() == pytest.approx(probability, abs=0.03 if 0 < probability < 1 else 0)


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_erasing_happens_as_often_as_asked(probability: float) -> None:
    images = torch.full((4000, 1, 16, 16), 255, dtype=torch.uint8)
    found = augment(
        images,
        Augmentation(erasing=probability),
        mean=(0.5,),
        std=(0.5,),
        seed=1,
        epoch=0,
        samples=torch.arange(4000),
    )
    share = (found == 0).any(dim=(1, 2, 3)).float().mean().item()
    assert share == pytest.approx(probability, abs=0.02 if 0 < probability < 1 else 0)


@pytest.mark.parametrize("side", [8, 64])
def test_what_is_erased_is_a_rectangle_within_bounds(side: int) -> None:
    images = torch.full((1000, 2, side, side), 255, dtype=torch.uint8)
    samples = torch.arange(1000)
    found = augment(
        images, Augmentation(erasing=1.0), mean=(0.5, 0.4), std=(0.5, 0.5), seed=1, epoch=0, samples=samples
    )
    places = set()
    for image in found:
        erased = (image == 0).numpy()
        assert np.array_equal(erased[0], erased[1])  # exactly 0 after normalisation, in every channel
        rows, columns = np.flatnonzero(erased[0].any(1)), np.flatnonzero(erased[0].any(0))
        tall, wide = len(rows), len(columns)
        assert (np.ptp(rows), np.ptp(columns), erased[0].sum()) == (tall - 1, wide - 1, tall * wide)
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


def test_erased_area_and_aspect_are_spread_as_in_the_paper() -> None:
    images = torch.full((3000, 1, 256, 256), 255, dtype=torch.uint8)
    samples = torch.arange(3000)
    found = augment(images, Augmentation(erasing=1.0), mean=(0.5,), std=(0.5,), seed=1, epoch=0, samples=samples)
    erased = found[:, 0] == 0
    areas = erased.sum((1, 2)) / 256**2
    aspects = erased.any(2).sum(1) / erased.any(1).sum(1)
    assert areas.mean().item() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.01)
    assert aspects.log().mean().item() == pytest.approx(math.log(0.3 * 3.3) / 2, abs=0.05)


def test_a_sample_has_the_same_numbers_whatever_the_batch() -> None:
    images = digits(64)
    together = augmented(images, EVERYTHING)
    for size in (1, 3, 7, 32):
        for start in range(0, 64, size):
            rows = torch.arange(start, min(start + size, 64))
            assert torch.equal(augmented(images[rows], EVERYTHING, samples=rows), together[rows])
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augmented(images[order], EVERYTHING, samples=order), together[order])


def test_views_epochs_seeds_and_streams_differ() -> None:
    images, samples = digits(8), torch.arange(8)
    keys = [(0, 0, 0, Stream.AUGMENTATION), (1, 0, 0, Stream.AUGMENTATION), (0, 1, 0, Stream.AUGMENTATION)]
    keys += [(0, 0, 1, Stream.AUGMENTATION), (0, 0, 0, Stream.EVALUATION)]
    found = [
        augment(
            images, EVERYTHING, mean=HALF, std=HALF, seed=seed, epoch=epoch, samples=samples, view=view, stream=stream
        )
        for seed, epoch, view, stream in keys
    ]
    for i in range(8):
        assert len({tuple(result[i].flatten().tolist()) for result in found}) == len(keys)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("rotation", -1.0, "degrees from 0 to 180"),
        ("rotation", 181.0, "degrees from 0 to 180"),
        ("translate", 1.5, "a fraction of the side from 0 to 1"),
        ("scale", 1.0, "a fraction from 0 to below 1"),
        ("horizontal_flip", 2.0, "a probability from 0 to 1"),
        ("erasing", math.nan, "a probability from 0 to 1"),
    ],
)
def test_fields_out_of_range_are_refused(field: str, value: float, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}; expected {expected}"):
        replace(Augmentation(), **{field: value})


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="3 samples for 2 images"):
        augmented(digits(2), EVERYTHING, samples=torch.arange(3))
    with pytest.raises(ValueError, match="for 3 channels; expected 3 values each"):
        augment(digits(2), EVERYTHING, mean=(0.5,), std=(0.5,), seed=5, epoch=2, samples=torch.arange(2))
