"""Mixup, cutmix and soft targets, over the global batch.

`draw_mixes` decides what each step does, a function of (seed, epoch, step) alone: see `random.py`. `mix` does it to a
batch of normalised images from `augment.py`. With several ranks each mixes the global batch and slices afterwards.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from training.images.random import Stream, words
from training.recipes.training import Mixing


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """What one step does to its batch, as drawn by `draw_mixes`.

    Args:
        kind: what is done.
        weight: lambda, the share of an image that stays its own; for cutmix corrected to the box as clipped.
        box: (top, bottom, left, right) of what cutmix takes from the partner, ends excluded; empty otherwise.
        partner: a random word; an image's partner stands 1 + partner % (batch - 1) places before it, cyclically.
    """

    kind: Literal["none", "mixup", "cutmix"]
    weight: float
    box: tuple[int, int, int, int]
    partner: int


def draw_mixes(mixing: Mixing, *, seed: int, epoch: int, steps: range, height: int, width: int) -> list[Mix]:
    """What each step does to its batch, a function of (seed, epoch, step): the same on every rank, drawn on the CPU.

    Args:
        mixing: which kinds, and their strength.
        seed: the augmentation seed, in [0, 2^32).
        epoch: in [0, 2^32).
        steps: the global steps asked for; an epoch's at once cost little more than one.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        One `Mix` a step.

    Source:
        Weight ~ Beta(alpha, alpha): Zhang et al. 2018 (mixup), Yun et al. 2019 (cutmix). The box: timm's `rand_bbox`.
    """
    kinds = [kind for kind, alpha in (("mixup", mixing.mixup), ("cutmix", mixing.cutmix)) if alpha > 0]
    if not kinds or len(steps) == 0:
        return [Mix(kind="none", weight=1.0, box=(0, 0, 0, 0), partner=0) for _ in steps]
    drawn = words(seed, Stream.MIXING, epoch=epoch, samples=torch.tensor(steps), draws=6)
    mixes = []
    for size, angle, switch, row, column, partner in drawn.tolist():
        cut = kinds == ["cutmix"] or (len(kinds) == 2 and switch / 2**32 < mixing.switch)
        if not cut:
            weight = symmetric_beta(mixing.mixup, size, angle)
            mixes.append(Mix(kind="mixup", weight=weight, box=(0, 0, 0, 0), partner=partner))
            continue
        share = math.sqrt(1 - symmetric_beta(mixing.cutmix, size, angle))
        top, bottom = _clipped(row * height >> 32, int(height * share), height)
        left, right = _clipped(column * width >> 32, int(width * share), width)
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
    """Mix each image of the global batch with its partner, and the targets alike.

    timm's partner of image i is image batch - 1 - i, so half the pairs repeat the other half. Here the batch is turned
    by a number of places drawn for the step: as cheap, a permutation in which no image meets itself, and keyed by the
    step as everything else.

    Args:
        images: the global batch, normalised.
        labels: class of each, in [0, classes).
        drawn: what this step does, from `draw_mixes`.
        classes: number of classes.
        label_smoothing: share of each target spread over all classes, in [0, 1).
        rows: those that are wanted, a rank's own; None for all.

    Returns:
        The images, and targets that sum to 1 for each.
    """
    targets = soft_targets(labels, classes=classes, label_smoothing=label_smoothing)
    rows = rows or range(len(images))
    if drawn.kind == "none" or len(images) == 1:
        return images[rows.start : rows.stop], targets[rows.start : rows.stop]
    turn = 1 + drawn.partner % (len(images) - 1)
    targets = torch.lerp(_turned(targets, turn, rows), targets[rows.start : rows.stop], drawn.weight)
    own = images[rows.start : rows.stop]
    if drawn.kind == "mixup":
        return torch.lerp(_turned(images, turn, rows), own, drawn.weight), targets
    top, bottom, left, right = drawn.box
    mixed = own.clone()
    mixed[..., top:bottom, left:right] = _turned(images[..., top:bottom, left:right], turn, rows)
    return mixed, targets


def soft_targets(
    labels: Int[Tensor, "batch"], *, classes: int, label_smoothing: float = 0.0
) -> Float32[Tensor, "batch classes"]:
    """One-hot targets with label smoothing: smoothing / classes everywhere, and 1 - smoothing more on the true class.

    Args:
        labels: in [0, classes).
        classes: number of classes.
        label_smoothing: in [0, 1).

    Returns:
        Targets that sum to 1 for each label.

    Source:
        Szegedy et al. 2016, section 7; timm's `mixup_target`.
    """
    off = label_smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    return targets.scatter_(1, labels[:, None].long(), 1 - label_smoothing + off)


def symmetric_beta(alpha: float, first: int, second: int) -> float:
    """A Beta(alpha, alpha) number from two random words, in closed form: no rejection, so no unknown number of draws.

    With u in (0, 1] and v uniform, t = sqrt(2 alpha (u^(-1/alpha) - 1)) cos(2 pi v) is Student's t with 2 alpha degrees
    of freedom, and (1 + t / sqrt(2 alpha + t^2)) / 2 is Beta(alpha, alpha).

    Args:
        alpha: above 0.
        first: a word in [0, 2^32).
        second: another.

    Returns:
        A number in [0, 1].

    Source:
        Bailey, "Polar generation of random variates with the t-distribution", 1994; Devroye, "Random variate generation
        in one line of code", 1996.
    """
    power = math.log((first + 1) / 2**32) / alpha
    spread = math.exp(power) / -math.expm1(power) if power < 0 else math.inf  # 1 / (u^(-1/alpha) - 1)
    cosine = math.cos(2 * math.pi * second / 2**32)
    return 0.5 + 0.5 * cosine / math.sqrt(spread + cosine * cosine)


def _turned(batch: Tensor, turn: int, rows: range) -> Tensor:
    """The rows that come to stand at ``rows`` when a batch is turned by so many places."""
    start, count = (rows.start - turn) % len(batch), len(rows)
    if start + count <= len(batch):
        return batch[start : start + count]
    return torch.cat((batch[start:], batch[: start + count - len(batch)]))


def _clipped(centre: int, length: int, limit: int) -> tuple[int, int]:
    """The part inside the image of a span about a centre."""
    return max(centre - length // 2, 0), min(centre + length // 2, limit)
