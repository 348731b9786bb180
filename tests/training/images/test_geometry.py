"""The affine maps equal scipy's and PIL's, on real digits and photographs."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from tests.images.oracles import by_pil, digits, noise, photographs
from training.images.geometry import transform, transform_nearest


def scipy_transform(
    image: np.ndarray, *, rotation: float, right: float, down: float, scale: float, order: int
) -> np.ndarray:
    """Apply the same map by scipy, in (row, column) coordinates and float64."""
    height, width = image.shape
    angle = math.radians(rotation)
    inverse = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / scale
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = centre - inverse @ (centre + np.array([down * height, right * width]))
    return ndimage.affine_transform(
        image.astype(np.float64),
        inverse,
        offset,  # pyright: ignore[reportArgumentType]
        order=order,
        mode="grid-constant",
        cval=0,
    )


def parameters(count: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    bounds = {"rotation": (-180, 180), "right": (-0.5, 0.5), "down": (-0.5, 0.5), "scale": (0.5, 1.5)}
    return {name: generator.uniform(low, high, count) for name, (low, high) in bounds.items()}


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (7, 5), (5, 8)])
def test_transform_equals_scipy(rows: int, columns: int) -> None:
    images = digits()[:, :1, :rows, :columns].float()
    drawn = parameters(len(images))
    found = transform(images, **{name: torch.from_numpy(values) for name, values in drawn.items()})
    expected = [
        scipy_transform(image[0].numpy(), order=1, **{name: values[i] for name, values in drawn.items()})
        for i, image in enumerate(images)
    ]
    assert np.abs(found[:, 0].numpy() - np.stack(expected)).max() < 1e-3  # of 255; measured 1.9e-4


def test_transform_equals_values_by_hand() -> None:
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


def test_identity_map_returns_the_exact_image() -> None:
    images = digits()
    one, none = torch.ones(64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    assert torch.equal(transform(images.float(), rotation=none, right=none, down=none, scale=one), images.float())
    assert torch.equal(transform_nearest(images, rotation=none, right=none, down=none, scale=one), images)


SPECIAL = [0, 90, -90, 180, -180, 270, 360, 45, -45, 30, 60, -120, 10, -10, 1e-9, 1e-3, 179.999]


@pytest.mark.parametrize(
    ("count", "rows", "columns"),
    [(300, 32, 32), (40, 224, 224), (200, 33, 40), (200, 40, 31), (100, 1, 9), (100, 2, 1)],
)
def test_rotation_to_the_nearest_pixel_equals_pil(count: int, rows: int, columns: int) -> None:
    images = noise(count, rows, columns).clamp(min=1)  # so that 0 comes from outside alone
    rotation = torch.rand(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 720 - 360
    rotation[: len(SPECIAL)] = torch.tensor(SPECIAL, dtype=torch.float64)
    one, none = torch.ones(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    found = transform_nearest(images, rotation=rotation, right=none, down=none, scale=one)
    angles = rotation.tolist()
    expected = by_pil(images, lambda i, image: image.rotate(angles[i], Image.Resampling.NEAREST, fillcolor=0))
    assert torch.equal(found, expected)


def test_map_to_the_nearest_pixel_equals_scipy() -> None:
    images = photographs(60, 31, 40)
    drawn = parameters(60)
    found = transform_nearest(images, **{name: torch.from_numpy(values) for name, values in drawn.items()})
    expected = np.stack(
        [
            [
                scipy_transform(channel.numpy(), order=0, **{name: values[i] for name, values in drawn.items()})
                for channel in image
            ]
            for i, image in enumerate(images)
        ]
    )
    # PIL's steps of 2^-16 pixel, against float64: a pixel on the line between two may fall to the other.
    assert (found.numpy() != expected).mean() < 1e-3  # measured 1.3e-4
