"""Change brightness, contrast, saturation, hue and greyness of images: PIL's ``ImageEnhance``, byte for byte.

The first three blend an image with another: black, its mean grey, its own greys; in float32, cut to bytes. See `hue.py`
for the rotation of the hue.
"""

from functools import cache
from itertools import permutations

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from training.images import draws as places
from training.images.hue import turn_hue
from training.recipes.augmentation import ColorJitter

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
