"""Apply one affine map to each image, bilinear or to the nearest pixel, with zeros outside.

See `augment.py` for how rotation, shift and scale are drawn, and `crops.py` for the part of an image.
"""

import math

import torch
from jaxtyping import Float, Float32, Float64, Int32, UInt8
from torch import Tensor
from torch.nn import functional


def transform(
    pixels: Float32[Tensor, "batch channels height width"],
    *,
    rotation: Float[Tensor, "batch"],
    right: Float[Tensor, "batch"],
    down: Float[Tensor, "batch"],
    scale: Float[Tensor, "batch"],
) -> Float32[Tensor, "batch channels height width"]:
    """Scale about the centre, then rotate about it, then shift: one bilinear look-up, with zeros outside the image.

    Args:
        pixels: Pixels of the images.
        rotation: Degrees for each image, counter-clockwise as displayed, in float64.
        right: Shift of each image, as a fraction of the width.
        down: Shift of each image, as a fraction of the height.
        scale: Factor of size for each image, above 0.
    """
    height, width = pixels.shape[-2:]
    angle = torch.deg2rad(rotation)
    cosine, sine = (angle.cos() / scale).float(), (angle.sin() / scale).float()
    # The source of each output pixel, in pixels from the centre. A matrix product may round differently in batches of
    # different sizes, so these are plain products.
    x = _from_centre(width, pixels) - (right * width).float()[:, None, None]
    y = _from_centre(height, pixels)[:, None] - (down * height).float()[:, None, None]
    cosine, sine = cosine[:, None, None], sine[:, None, None]
    source_x, source_y = cosine * x - sine * y, sine * x + cosine * y
    grid = torch.stack((source_x * (2 / width), source_y * (2 / height)), dim=-1)
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def transform_nearest(
    images: UInt8[Tensor, "batch channels height width"],
    *,
    rotation: Float64[Tensor, "batch"],
    right: Float64[Tensor, "batch"],
    down: Float64[Tensor, "batch"],
    scale: Float64[Tensor, "batch"],
) -> UInt8[Tensor, "batch channels height width"]:
    """Apply the map of `transform` to the nearest pixel: without shift and scale, PIL's ``Image.rotate``.

    PIL computes the map in units of 2^-16 pixel, and its matrix in float64, rounded to 15 decimals. This gives the same
    pixels, unless a sine differs in its last bit between two libraries and is within 1e-10 of a step of 2^-16.

    Source:
        Pillow's `Image.rotate` with ``Resampling.NEAREST``, and `affine_fixed` in its libImaging/Geometry.c.
    """
    batch, channels, height, width = images.shape
    angle = -((rotation % 360.0) * (math.pi / 180.0))
    cosine, sine = angle.cos().round(decimals=15) / scale, angle.sin().round(decimals=15) / scale
    away_x, away_y = -width / 2 - right * width, -height / 2 - down * height
    across = cosine * away_x + sine * away_y + width / 2
    along = -sine * away_x + cosine * away_y + height / 2
    x = torch.arange(width, device=images.device, dtype=torch.int32)
    y = torch.arange(height, device=images.device, dtype=torch.int32)[:, None]
    turn, stay = _to_fixed_point(sine), _to_fixed_point(cosine)
    source_x = (_to_fixed_point(across + cosine * 0.5 + sine * 0.5) + turn * y) + stay * x
    source_y = (_to_fixed_point(along + -sine * 0.5 + cosine * 0.5) + stay * y) + _to_fixed_point(-sine) * x
    # Pixels outside are read from a border of zeros.
    column, row = (source_x >> 16).clamp_(-1, width).add_(1), (source_y >> 16).clamp_(-1, height).add_(1)
    places = row.mul_(width + 2).add_(column).view(batch, 1, -1).long().expand(-1, channels, -1)
    return functional.pad(images, (1, 1, 1, 1)).flatten(2).gather(2, places).view(images.shape)


def _to_fixed_point(values: Float64[Tensor, "batch"]) -> Int32[Tensor, "batch 1 1"]:
    """Round to units of 2^-16; exact in int32 for images below 32,768 pixels a side."""
    return (values * 65536.0 + 0.5).floor().to(torch.int32)[:, None, None]


def _from_centre(length: int, like: Tensor) -> Float32[Tensor, "length"]:
    """Return pixel positions along an axis, measured from its centre."""
    return torch.arange(length, device=like.device, dtype=torch.float32) - (length - 1) / 2
