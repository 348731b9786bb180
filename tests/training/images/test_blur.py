"""The blur against scipy's, in float64."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from tests.images.oracles import noise, photographs
from training.images.blur import gaussian_blur


def widths(count: int) -> Tensor:
    sigmas = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.9 + 0.1
    sigmas[:2] = torch.tensor([0.1, 2.0], dtype=torch.float64)
    return sigmas


@pytest.mark.parametrize("kernel_size", [3, 9, 23])
@pytest.mark.parametrize("images", [photographs(30, 64, 50), noise(30, 33, 64)], ids=["photographs", "noise"])
def test_blur_equals_scipy(images: Tensor, kernel_size: int) -> None:
    sigmas = widths(30)
    found = gaussian_blur(images, sigmas, kernel_size=kernel_size)
    expected = np.stack(
        [
            [
                ndimage.gaussian_filter(channel.double().numpy(), sigma, mode="mirror", radius=kernel_size // 2)
                for channel in image
            ]
            for image, sigma in zip(images, sigmas.tolist(), strict=True)
        ]
    )
    different = np.abs(found.numpy() - np.rint(expected))
    assert different.max() <= 1
    assert different.mean() < 1e-4  # measured 3e-6


def test_blur_equals_values_by_hand() -> None:
    image = torch.zeros(1, 1, 3, 4, dtype=torch.uint8)
    image[0, 0, 1, 1] = 240
    # sigma = 1 / sqrt(2 ln 2): weights 1/4, 1/2, 1/4; the row above the first is the second.
    sigma = torch.tensor([1 / np.sqrt(2 * np.log(2))])
    found = gaussian_blur(image, sigma, kernel_size=3)
    assert found.tolist() == [[[[60, 60, 30, 0], [60, 60, 30, 0], [60, 60, 30, 0]]]]


def test_blur_is_the_same_in_every_batch_and_mirrored() -> None:
    images, sigmas = noise(20, 30, 41), widths(20)
    together = gaussian_blur(images, sigmas, kernel_size=9)
    for size in (1, 3):
        parts = zip(images.split(size), sigmas.split(size), strict=True)
        assert torch.equal(torch.cat([gaussian_blur(one, sigma, kernel_size=9) for one, sigma in parts]), together)
    assert torch.equal(gaussian_blur(images.flip(-1), sigmas, kernel_size=9), together.flip(-1))


def test_blur_refuses_images_too_small_for_the_kernel() -> None:
    with pytest.raises(ValueError, match="kernel_size is 9 for images of 4 x 30 pixels"):
        gaussian_blur(noise(1, 4, 30), widths(2)[:1], kernel_size=9)
