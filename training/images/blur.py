"""The Gaussian blur: two passes of a short kernel, mirrored at the edges, rounded to bytes at the end."""

import torch
from jaxtyping import Bool, Float32, Float64, UInt8
from torch import Tensor


def gaussian_blur(
    images: UInt8[Tensor, "batch channels height width"], sigmas: Float64[Tensor, "batch"], *, kernel_size: int
) -> UInt8[Tensor, "batch channels height width"]:
    """Images blurred, each with a width of its own.

    Sums are taken in float32 and in one order, so a pixel is the same in every batch and on every device. Against
    float64 a value differs by at most 1, where the sum lies within 1e-4 of a half: in less than 1 of 10,000 values.

    Args:
        images: values 0 to 255; each side more than half the kernel.
        sigmas: standard deviations, pixels, above 0.
        kernel_size: pixels along each axis, odd.

    Returns:
        The images blurred.

    Raises:
        ValueError: a side is too short to be mirrored.

    Source:
        torchvision's `gaussian_blur`: weights exp(-x^2 / (2 sigma^2)) over their sum; mirrored without the edge.
    """
    reach = kernel_size // 2
    if min(images.shape[2:]) <= reach:
        raise ValueError(
            f"kernel_size is {kernel_size} for images of {images.shape[2]} x {images.shape[3]} pixels; "
            f"expected sides above {reach}"
        )
    distances = torch.arange(reach + 1, device=images.device, dtype=torch.float64)
    heights = torch.exp(-0.5 * (distances / sigmas[:, None]).square())
    weights = (heights / (heights[:, :1] + 2 * heights[:, 1:].sum(1, keepdim=True))).float()
    pixels = _along(_along(images.float(), 3, weights), 2, weights)
    return pixels.round_().to(torch.uint8)


def blur_some(
    images: UInt8[Tensor, "batch channels height width"],
    chosen: Bool[Tensor, "batch"],
    sigmas: Float64[Tensor, "batch"],
    *,
    kernel_size: int,
) -> UInt8[Tensor, "batch channels height width"]:
    """Some images blurred by `gaussian_blur`, the others as they are."""
    return torch.where(chosen[:, None, None, None], gaussian_blur(images, sigmas, kernel_size=kernel_size), images)


def _along(
    pixels: Float32[Tensor, "batch channels height width"], axis: int, weights: Float32[Tensor, "batch reach"]
) -> Float32[Tensor, "batch channels height width"]:
    """One pass. A product and a sum are two operations: one that does both may round otherwise in other places."""
    length, reach = pixels.shape[axis], weights.shape[1] - 1
    places = torch.arange(-reach, length + reach, device=pixels.device).abs()
    mirrored = pixels.index_select(axis, (length - 1) - (length - 1 - places).abs())
    sums = pixels * weights[:, :1, None, None]
    for distance in range(1, reach + 1):
        pair = mirrored.narrow(axis, reach - distance, length) + mirrored.narrow(axis, reach + distance, length)
        sums += pair.mul_(weights[:, distance, None, None, None])
    return sums
