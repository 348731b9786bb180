"""Mix the images of the global batch by mixup and cutmix, and make soft targets.

`draw_mixes` draws the mix of each step as a function of (seed, epoch, step): see `training.random`. `mix` applies it to
a batch of normalised images from `augment.py`. With several ranks, each mixes the global batch and keeps its own rows.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from training.random import Draw, Stream
from training.recipes.training import Mixing


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """A step's mix of its batch, as drawn by `draw_mixes`.

    Args:
        kind: Kind of mix.
        weight: lambda, the fraction of an image that is its own; for cutmix corrected to the clipped box.
        box: (top, bottom, left, right) of the partner's part in cutmix, ends excluded; empty otherwise.
        partner: A random word. An image's partner is 1 + partner % (batch - 1) places before it, cyclically.
    """

    kind: Literal["none", "mixup", "cutmix"]
    weight: float
    box: tuple[int, int, int, int]
    partner: int


def draw_mixes(mixing: Mixing, *, seed: int, epoch: int, steps: range, height: int, width: int) -> list[Mix]:
    """Draw each global step's mix as a function of (seed, epoch, step): on the CPU, the same on every rank.

    A whole epoch at once costs little more than one step.

    Source:
        Weight ~ Beta(alpha, alpha): Zhang et al. 2018 (mixup), Yun et al. 2019 (cutmix). The box: timm's `rand_bbox`.
    """
    kinds = [kind for kind, alpha in (("mixup", mixing.mixup), ("cutmix", mixing.cutmix)) if alpha > 0]
    if not kinds or len(steps) == 0:
        return [Mix(kind="none", weight=1.0, box=(0, 0, 0, 0), partner=0) for _ in steps]
    draw = Draw(seed=seed, epoch=epoch, samples=torch.tensor(steps), stream=Stream.MIXING)
    mixes = []
    for size, angle, switch, row, column, partner in draw.words(6).tolist():
        cut = kinds == ["cutmix"] or (len(kinds) == 2 and switch / 2**32 < mixing.switch)
        if not cut:
            weight = symmetric_beta(mixing.mixup, size, angle)
            mixes.append(Mix(kind="mixup", weight=weight, box=(0, 0, 0, 0), partner=partner))
            continue
        share = math.sqrt(1 - symmetric_beta(mixing.cutmix, size, angle))
        top, bottom = _clip(row * height >> 32, int(height * share), height)
        left, right = _clip(column * width >> 32, int(width * share), width)
        weight = 1 - (bottom - top) * (right - left) / (height * width)
        mixes.append(Mix(kind="cutmix", weight=weight, box=(top, bottom, left, right), partner=partner))
    return mixes


def mix(
    images: Float32[Tensor, "batch channels height width"],
    labels: Int[Tensor, "batch"],
    drawn: Mix,
    *,
    classes: int,
    label_smoothing: float = 0.0,
    rows: range | None = None,
) -> tuple[Float32[Tensor, "rows channels height width"], Float32[Tensor, "rows classes"]]:
    """Mix each image of the global batch with its partner, and the targets likewise.

    timm's partner of image i is image batch - 1 - i, so half the pairs repeat the other half. Here the batch is rotated
    by a number of places drawn for the step. That is as cheap, and no image is its own partner.

    Returns:
        The images of ``rows``, such as a rank's own, or all; and targets that sum to 1 for each.
    """
    targets = soft_targets(labels, classes=classes, label_smoothing=label_smoothing)
    rows = rows or range(len(images))
    if drawn.kind == "none" or len(images) == 1:
        return images[rows.start : rows.stop], targets[rows.start : rows.stop]
    turn = 1 + drawn.partner % (len(images) - 1)
    targets = torch.lerp(_rotate_rows(targets, turn, rows), targets[rows.start : rows.stop], drawn.weight)
    own = images[rows.start : rows.stop]
    if drawn.kind == "mixup":
        return torch.lerp(_rotate_rows(images, turn, rows), own, drawn.weight), targets
    top, bottom, left, right = drawn.box
    mixed = own.clone()
    mixed[..., top:bottom, left:right] = _rotate_rows(images[..., top:bottom, left:right], turn, rows)
    return mixed, targets


def soft_targets(
    labels: Int[Tensor, "batch"], *, classes: int, label_smoothing: float = 0.0
) -> Float32[Tensor, "batch classes"]:
    """Return one-hot targets with label smoothing: smoothing / classes, plus 1 - smoothing on the true class.

    Source:
        Szegedy et al. 2016, section 7; timm's `mixup_target`.
    """
    off = label_smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    return targets.scatter_(1, labels[:, None].long(), 1 - label_smoothing + off)


def symmetric_beta(alpha: float, first: int, second: int) -> float:
    """Return a Beta(alpha, alpha) number from two random words of 32 bits in closed form, without rejection.

    Let u in (0, 1] and v be uniform. Then t = sqrt(2 alpha (u^(-1/alpha) - 1)) cos(2 pi v) is Student's t with 2 alpha
    degrees of freedom, and (1 + t / sqrt(2 alpha + t^2)) / 2 is Beta(alpha, alpha).

    Source:
        Bailey, "Polar generation of random variates with the t-distribution", 1994; Devroye, "Random variate generation
        in one line of code", 1996.
    """
    power = math.log((first + 1) / 2**32) / alpha
    spread = math.exp(power) / -math.expm1(power) if power < 0 else math.inf  # 1 / (u^(-1/alpha) - 1)
    cosine = math.cos(2 * math.pi * second / 2**32)
    return 0.5 + 0.5 * cosine / math.sqrt(spread + cosine * cosine)


def _rotate_rows(batch: Tensor, turn: int, rows: range) -> Tensor:
    """Return the rows that a rotation of the batch by ``turn`` places moves to ``rows``."""
    start, count = (rows.start - turn) % len(batch), len(rows)
    if start + count <= len(batch):
        return batch[start : start + count]
    return torch.cat((batch[start:], batch[: start + count - len(batch)]))


def _clip(centre: int, length: int, limit: int) -> tuple[int, int]:
    """Clip a span about a centre to the image."""
    return max(centre - length // 2, 0), min(centre + length // 2, limit)
