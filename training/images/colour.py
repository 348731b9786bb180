"""Change brightness, contrast, saturation, hue and greyness of images: PIL's ``ImageEnhance``, byte for byte.

The first three blend an image with another: black, its mean grey, its own greys; in float32, cut to bytes.

PIL converts to HSV in bytes and back, in floating point, and cuts or rounds to bytes. Values that depend on two bytes
are looked up in tables. One value depends on three bytes: a whole number over 21,675 = 255 x 85, which float32 rounds
like PIL.
"""

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from training.images import draws as places
from training.recipes.augmentation import ColorJitter

_STEPS = 255 * 85  # saturation is a fraction of 255; 6 hue / 255 less its whole part, of 85
BRIGHTNESS, CONTRAST, SATURATION, _HUE = range(4)  # as torchvision numbers them


def jitter(
    images: UInt8[Tensor, "batch 3 height width"], settings: ColorJitter, draws: Float32[Tensor, "batch draws"]
) -> UInt8[Tensor, "batch 3 height width"]:
    """Change brightness, contrast, saturation and hue of some images, each image's in its own order.

    Every image passes every possible blend before and after the rotation of its hue. Where a blend is not in the
    image's order, its factor is 1, which changes nothing. So nothing waits for the device.

    Source:
        torchvision's `ColorJitter` of PIL images: factors uniform, one order of the four an image.
    """
    amounts = (settings.brightness, settings.contrast, settings.saturation)
    chosen = draws[:, places.JITTER] < settings.probability
    factors = _factors(amounts, draws, chosen)
    enabled = tuple(kind for kind, amount in enumerate(amounts) if amount > 0)
    kinds, before = _order(enabled, draws)
    if settings.hue > 0:
        for place, kind in enumerate(kinds):
            images = enhance(images, kind, _own(factors, kind, place < before))
        turned = turn_hue(images, _turns(settings.hue, draws))
        images = torch.where(chosen[:, None, None, None], turned, images)
        for place, kind in enumerate(kinds):
            images = enhance(images, kind, _own(factors, kind, place >= before))
        return images
    for kind in kinds:
        images = enhance(images, kind, factors.gather(1, kind[:, None])[:, 0])
    return images


def enhance(
    images: UInt8[Tensor, "batch 3 height width"],
    kinds: Int64[Tensor, "batch"],
    factors: Float32[Tensor, "batch"],
) -> UInt8[Tensor, "batch 3 height width"]:
    """Blend images with black (brightness), their mean grey (contrast) or their greys (saturation).

    Args:
        images: Images in RGB.
        kinds: `BRIGHTNESS`, `CONTRAST` or `SATURATION`, for each image.
        factors: Weight of each image: 0 gives the other one, 1 the image itself; at least 0.

    Source:
        Pillow's `ImageEnhance`, and libImaging/Blend.c.
    """
    greys = luma(images)
    means = (greys.sum((1, 2, 3), dtype=torch.float64) / greys[0].numel() + 0.5).floor().float()
    base = (greys * (kinds == SATURATION)[:, None, None, None]).add_(
        torch.where(kinds == CONTRAST, means, 0.0)[:, None, None, None]
    )
    blended = (images - base).mul_(factors[:, None, None, None]).add_(base)
    return blended.clamp_(0, 255).to(torch.uint8)


def grey(
    images: UInt8[Tensor, "batch 3 height width"], chosen: Bool[Tensor, "batch"]
) -> UInt8[Tensor, "batch 3 height width"]:
    """Make the chosen images grey, in three channels: equal to PIL's ``convert("L")``."""
    return torch.where(chosen[:, None, None, None], luma(images).to(torch.uint8), images)


def luma(images: UInt8[Tensor, "batch 3 height width"]) -> Float32[Tensor, "batch 1 height width"]:
    """Return the brightness of each pixel: (19595 R + 38470 G + 7471 B + 32768) / 65536, rounded down.

    Source:
        ITU-R 601-2 as in Pillow's libImaging/Convert.c.
    """
    red, green, blue = images.split(1, dim=1)
    weighted = (red * 19595.0).add_(green, alpha=38470).add_(blue, alpha=7471)  # below 2^24: float32 is exact
    return weighted.add_(32768).mul_(2.0**-16).floor_()


def _factors(
    amounts: tuple[float, float, float], draws: Float32[Tensor, "batch draws"], chosen: Bool[Tensor, "batch"]
) -> Float32[Tensor, "batch 3"]:
    """Return uniform factors from max(0, 1 - amount) to 1 + amount; 1 for images that are not chosen."""
    columns = []
    for place, amount in zip((places.BRIGHTNESS, places.CONTRAST, places.SATURATION), amounts, strict=True):
        low, high = max(0.0, 1 - amount), 1 + amount
        factor = low + (high - low) * draws[:, place].double()
        columns.append(torch.where(chosen, factor, 1.0).float())
    return torch.stack(columns, 1)


def _turns(hue: float, draws: Float32[Tensor, "batch draws"]) -> UInt8[Tensor, "batch"]:
    """Return uniform rotations up to ``hue`` circles either way, in whole 255ths, like torchvision."""
    turns = (2 * draws[:, places.HUE].double() - 1) * hue * 255
    return (turns.long() % 256).to(torch.uint8)


def _order(
    enabled: tuple[int, ...], draws: Float32[Tensor, "batch draws"]
) -> tuple[list[Int64[Tensor, "batch"]], Int64[Tensor, "batch"]]:
    """Return each image's first, second, third blend, and the number of blends before the hue."""
    orders = _orders(enabled, draws.device)
    drawn = orders[(draws[:, places.ORDER].double() * len(orders)).long()]
    return list(drawn[:, :-1].unbind(1)), drawn[:, -1]


@cache
def _orders(enabled: tuple[int, ...], device: torch.device) -> Int64[Tensor, "orders blends_and_hue"]:
    """Return, for each order of the four changes, its blends and the number of blends before the hue."""
    rows = []
    for order in permutations(range(4)):
        blends = [kind for kind in order if kind in enabled]
        rows.append([*blends, sum(kind in enabled for kind in order[: order.index(_HUE)])])
    return torch.tensor(rows, device=device)


def _own(
    factors: Float32[Tensor, "batch 3"], kind: Int64[Tensor, "batch"], active: Bool[Tensor, "batch"]
) -> Float32[Tensor, "batch"]:
    return torch.where(active, factors.gather(1, kind[:, None])[:, 0], 1.0)


def turn_hue(
    images: UInt8[Tensor, "batch 3 height width"], turns: UInt8[Tensor, "batch"]
) -> UInt8[Tensor, "batch 3 height width"]:
    """Rotate the hue of every pixel through PIL's HSV, with PIL's rounding, even where the rotation is 0.

    Args:
        images: Images in RGB.
        turns: Rotation of each image in 255ths of the circle; 256 less the rotation for the other direction.

    Source:
        Pillow's `rgb2hsv_row` and `hsv2rgb` in libImaging/Convert.c; torchvision's `adjust_hue` of PIL images.
    """
    tables = _tables(images.device)
    red, green, blue = images.unbind(1)
    most, least = images.amax(1), images.amin(1)
    middle = images.sum(1, dtype=torch.int32) - most - least
    spread = (most - least).int()
    # The largest of red, green and blue, the first of equals; and the smallest of the other two.
    is_red, is_green = red == most, green == most
    largest = torch.where(is_red, 0, torch.where(is_green, 2, 4)).int()
    other = torch.where(is_red | is_green, blue, red) != least
    hue = _look_up(tables.hue, ((largest + other) * 256 + spread) * 256 + (most - middle))
    hue += turns[:, None, None]
    pair = spread * 256 + most
    low = _look_up(tables.low, pair)
    part = _look_up(tables.middle, hue.int() * 256 + _look_up(tables.saturation, pair))
    middle = (part * most).add_(_STEPS // 2).div_(_STEPS).to(torch.uint8)  # cut: a division rounded down
    turned = torch.empty_like(images)
    for channel, is_most, is_low in zip(turned.unbind(1), tables.is_most, tables.is_low, strict=True):
        rest = torch.where(_look_up(is_low, hue.int()), low, middle)
        channel.copy_(torch.where(_look_up(is_most, hue.int()), most, rest))
    return turned


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Tables:
    """PIL's conversions, for every pair of bytes.

    Args:
        hue: Hue by (largest and smallest channel, largest less smallest value, largest less middle value).
        saturation: Saturation by (largest less smallest value, largest value).
        low: Smallest value of the result, by the same.
        middle: Middle value of the result in 21,675ths of the largest, by (hue, saturation).
        is_most: Whether red, green, blue is the largest value, by hue.
        is_low: Whether red, green, blue is the smallest value, by hue.
    """

    hue: UInt8[Tensor, "entries"]
    saturation: UInt8[Tensor, "pairs"]
    low: UInt8[Tensor, "pairs"]
    middle: Float32[Tensor, "pairs"]
    is_most: tuple[Tensor, Tensor, Tensor]
    is_low: tuple[Tensor, Tensor, Tensor]


@cache
def _tables(device: torch.device) -> _Tables:
    hues = np.arange(256)
    sector, part = hues * 6 // 255 % 6, hues * 6 % 255 // 3
    part = np.where(sector % 2 == 1, part, 85 - part)
    largest, smallest = (0, 1, 1, 2, 2, 0), (2, 2, 0, 0, 1, 1)  # channel, by sector
    saturation, low = _to_saturation()
    return _Tables(
        hue=torch.from_numpy(_to_hue()).to(device),
        saturation=torch.from_numpy(saturation).to(device),
        low=torch.from_numpy(low).to(device),
        middle=torch.from_numpy((_STEPS - part[:, None] * hues).astype(np.float32).ravel()).to(device),
        is_most=_by_channel(np.asarray(largest)[sector], device),
        is_low=_by_channel(np.asarray(smallest)[sector], device),
    )


def _to_hue() -> UInt8[np.ndarray, "entries"]:
    spread, below = np.arange(256, dtype=np.float32)[:, None], np.arange(256, dtype=np.float32)
    # PIL's distances of red, green and blue from the largest, over the spread, are 0, 1 and this.
    distance = np.divide(below, spread, where=spread > 0, out=np.zeros((256, 256), np.float32))
    one = np.float32(1)
    between = (one - distance, distance - one)  # in float32 for red, in float64 beyond, as C has it
    wide = distance.astype(np.float64)
    angles = [
        *between,
        (2.0 + wide - 1.0).astype(np.float32),
        (2.0 + 1.0 - wide).astype(np.float32),
        (4.0 + wide - 1.0).astype(np.float32),
        (4.0 + 1.0 - wide).astype(np.float32),
    ]
    turns = np.fmod(np.stack(angles).astype(np.float64) / 6.0 + 1.0, 1.0).astype(np.float32)
    hue = np.clip((turns.astype(np.float64) * 255.0).astype(np.int64), 0, 255)
    hue[:, 0] = 0  # grey
    return hue.astype(np.uint8).ravel()


def _to_saturation() -> tuple[UInt8[np.ndarray, "pairs"], UInt8[np.ndarray, "pairs"]]:
    spread, most = np.arange(256, dtype=np.float32)[:, None], np.arange(256, dtype=np.float32)
    share = np.divide(spread, most, where=most > 0, out=np.zeros((256, 256), np.float32))
    saturation = np.clip((share.astype(np.float64) * 255.0).astype(np.int64), 0, 255)
    again = (saturation / 255.0).astype(np.float32).astype(np.float64)
    low = np.floor(most.astype(np.float64) * (1.0 - again) + 0.5)
    return saturation.astype(np.uint8).ravel(), low.astype(np.uint8).ravel()


def _by_channel(channels: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    red, green, blue = (torch.from_numpy(channels == channel).to(device) for channel in range(3))
    return red, green, blue


def _look_up(table: Tensor, entries: Tensor) -> Tensor:
    return table.index_select(0, entries.flatten()).view(entries.shape)
