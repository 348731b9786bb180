"""Resize 8-bit images like PIL, bit for bit, in batches on their device.

An output pixel is a weighted sum of a few input pixels, first along the rows, then along the columns, with bytes in
between. PIL widens the filter when it shrinks an image, and rounds the weights to 22 bits behind the point. The rest is
integers, so every device gives the same bytes. See `training.images.crops` for the crops of training.

Every Pillow until 12.1 resized the rows first. Pillow 12.2 takes the columns first where an image is a hundred times
taller than wide. Pillow 13 does so where the height shrinks by more than twice as many pixels as the width. The bytes
then differ by a few levels. Here the rows stay first, and `resize_image` makes every Pillow do the same.

Source: Pillow's ``libImaging/Resample.c``; sizes as torchvision's ``Resize``.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float64, Int32, Int64, UInt8
from PIL import Image
from torch import Tensor

from vitzoo.errors import DatasetError

Resample = Literal["bilinear", "bicubic"]

_SUPPORT = {"bilinear": 1, "bicubic": 2}  # input pixels with a weight, either way, where an image grows
_MAX_PIXELS = 2**26  # of a resized image: a file of 300 bytes can ask for 2^32
_BITS = 22  # of a weight, behind the point: 32 less 8 of a pixel and 2 for sums outside 0 to 255
_CPU_BYTES, _DEVICE_BYTES = 2**20, 2**28  # sums in memory at once: a processor's cache; little for any card


def resize(
    images: UInt8[Tensor, "batch channels height width"], *, height: int, width: int, resample: Resample
) -> UInt8[Tensor, "batch channels new_height new_width"]:
    """Resize a batch like PIL's ``Image.resize``, bit for bit, where Pillow takes the rows first."""
    rows = _axis_taps(images.shape[2], height, resample, images.device)
    columns = _axis_taps(images.shape[3], width, resample, images.device)
    return _resample(images, rows=rows, columns=columns)


def resize_image(image: Image.Image, *, height: int, width: int, resample: Resample) -> Image.Image:
    """Resize an image of mode L or RGB by PIL, rows first under every Pillow: equal to `resize`, bit for bit."""
    kernel = Image.Resampling.BICUBIC if resample == "bicubic" else Image.Resampling.BILINEAR
    return image.resize((width, image.height), kernel).resize((width, height), kernel)


def resized_shape(height: int, width: int, side: int, *, named: str = "An image") -> tuple[int, int]:
    """Return height and width, in pixels, after a resize of the shorter to ``side``; the longer one is rounded down.

    Raises:
        DatasetError: The image is so long that it would have more than 2^26 pixels.
    """
    tall, wide = (side, int(side * width / height)) if height < width else (int(side * height / width), side)
    if tall * wide > _MAX_PIXELS:
        raise DatasetError(
            f"{named} has {width} x {height} pixels and, its shorter side resized to {side}, would have "
            f"{wide:,} x {tall:,} pixels",
            expected=f"at most {_MAX_PIXELS:,} in all",
            fix="Crop or delete the image.",
        )
    return tall, wide


def resize_and_crop(
    images: UInt8[Tensor, "batch channels height width"],
    corners: Int64[Tensor, "batch 2"],
    *,
    height: int,
    width: int,
    side: int,
    resample: Resample,
) -> UInt8[Tensor, "batch channels side side"]:
    """Cut a square of each resized image, without the work on the rest of it: equal to `resize`, then a crop.

    The corners (top, left) must give squares inside the resized image of ``height`` x ``width`` pixels. This is not
    checked, since a check would wait for the device.
    """
    line = torch.arange(side, device=images.device)
    rows = _axis_taps(images.shape[2], height, resample, images.device)[corners[:, :1] + line]
    columns = _axis_taps(images.shape[3], width, resample, images.device)[corners[:, 1:] + line]
    return _resample(images, rows=rows, columns=columns)


def resize_boxes(
    images: UInt8[Tensor, "batch channels height width"],
    boxes: Int64[Tensor, "batch 4"],
    *,
    size: int,
    resample: Resample,
) -> UInt8[Tensor, "batch channels size size"]:
    """Resize a box of each image to a square of ``size`` pixels: equal to PIL's ``crop``, then `resize_image`.

    The boxes (top, left, height, width) have at least a pixel and must be inside the image, which is not checked.
    """
    top, left, tall, wide = boxes.unbind(1)
    # Room for the largest possible box, since only the device knows the sizes.
    rows = _taps(tall, size, resample, longest=images.shape[2]).shifted(top)
    columns = _taps(wide, size, resample, longest=images.shape[3]).shifted(left)
    return _resample(images, rows=rows, columns=columns)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Taps:
    """The input pixels of each output pixel along one axis.

    Args:
        places: Indices of input pixels: one line for all images, or a line for each.
        weights: Weights of the input pixels in units of 2^-22; 0 for padding.
    """

    places: Int64[Tensor, "lines out taps"]
    weights: Int32[Tensor, "lines out taps"]

    def __getitem__(self, chosen: Int64[Tensor, "lines out"]) -> "_Taps":
        """Return the taps of chosen output pixels for each image, of one line for all images."""
        return _Taps(places=self.places[0][chosen], weights=self.weights[0][chosen])

    def shifted(self, by: Int64[Tensor, " lines"]) -> "_Taps":
        """Return the same weights, further on in the image."""
        return _Taps(places=self.places + by[:, None, None], weights=self.weights)

    def of(self, images: slice) -> "_Taps":
        """Return the taps of some images."""
        return self if len(self.places) == 1 else _Taps(places=self.places[images], weights=self.weights[images])


@lru_cache(maxsize=256)
def _axis_taps(length: int, size: int, resample: Resample, device: torch.device) -> _Taps:
    """Compute the taps of a whole axis on the CPU. They are cached on the device, since a copy would wait for it."""
    taps = _taps(torch.tensor([length]), size, resample, longest=length)
    return _Taps(places=taps.places.to(device), weights=taps.weights.to(device))


def _taps(lengths: Int64[Tensor, " lines"], size: int, resample: Resample, *, longest: int) -> _Taps:
    """Compute PIL's ``precompute_coeffs``, in its order of operations, for lines of any lengths."""
    room = math.ceil(2 * _SUPPORT[resample] * max(1.0, longest / size))
    scale = lengths.double()[:, None] / size
    spread = scale.clamp(min=1)
    centre = (torch.arange(size, device=lengths.device, dtype=torch.float64) + 0.5) * scale
    support = _SUPPORT[resample] * spread
    first = (centre - support + 0.5).clamp(min=0).floor()
    end = (centre + support + 0.5).floor().minimum(lengths.double()[:, None])
    places = first[..., None] + torch.arange(room, device=lengths.device)
    heights = _filter((places - centre[..., None] + 0.5) * (1 / spread)[..., None], resample)
    heights = torch.where(places < end[..., None], heights, 0.0)
    total = heights[..., 0]
    for tap in range(1, room):
        total = total + heights[..., tap]  # one after another, as PIL: a sum over the axis might round otherwise
    weights = heights / total[..., None] * 2**_BITS
    rounded = torch.where(weights < 0, weights - 0.5, weights + 0.5).to(torch.int32)
    inside = places.long().minimum(lengths[:, None, None] - 1)
    return _Taps(places=inside, weights=rounded)


def _filter(distance: Float64[Tensor, "*shape"], resample: Resample) -> Float64[Tensor, "*shape"]:
    """Return an input pixel's weight by its distance, in output pixels where the image shrinks, else input pixels."""
    x = distance.abs()
    if resample == "bilinear":
        return torch.where(x < 1, 1 - x, 0.0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _resample(
    images: UInt8[Tensor, "batch channels height width"], *, rows: _Taps, columns: _Taps
) -> UInt8[Tensor, "batch channels out_rows out_columns"]:
    """Resize rows, then columns, over as many images at once as the memory for their sums allows."""
    batch, channels, height, _ = images.shape
    tall, wide = rows.places.shape[1], columns.places.shape[1]
    sums = 4 * channels * max(height, tall) * wide
    at_once = max(1, (_CPU_BYTES if images.device.type == "cpu" else _DEVICE_BYTES) // sums)
    done = torch.empty((batch, channels, tall, wide), dtype=torch.uint8, device=images.device)
    for start in range(0, batch, at_once):
        part = slice(start, start + at_once)
        done[part] = _along(_along(images[part], 3, columns.of(part)), 2, rows.of(part))
    return done


def _along(
    images: UInt8[Tensor, "batch channels height width"], axis: int, taps: _Taps
) -> UInt8[Tensor, "batch channels new_height new_width"]:
    """Resize along one axis. It comes to the front of each image, so that whole lines of memory are gathered."""
    lines = images.movedim(axis, 1).contiguous()
    batch, length, *line = lines.shape
    starts = length * torch.arange(batch, device=images.device)
    places = taps.places + starts[:, None, None]
    weights = taps.weights.expand(places.shape)
    flat = lines.view(batch * length, -1)
    sums = torch.full((batch * places.shape[1], flat.shape[1]), 1 << (_BITS - 1), dtype=torch.int32, device=flat.device)
    for tap in range(places.shape[2]):
        sums += flat.index_select(0, places[..., tap].flatten()) * weights[..., tap].reshape(-1, 1)
    pixels = (sums >> _BITS).clamp_(0, 255).to(torch.uint8)
    return pixels.view(batch, -1, *line).movedim(1, axis)
