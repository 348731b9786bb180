"""What speeds are held against: the rate of a large matrix product on this device, and the operations of an image."""

import time
from functools import cache
from typing import Literal

import torch

from training.member.peak import matrix_product_rate
from training.recipes.cost import in_flop
from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError

_SIDE, _REPEATS = 1024, 10


def peak_rate(device: torch.device, precision: Literal["fp32", "bf16"]) -> float:
    """Floating-point operations a second of a square matrix product: of side 8192 on a GPU, 1024 on a CPU."""
    rate = matrix_product_rate(precision) if device.type == "cuda" else _cpu_rate(precision)
    if rate is None:
        raise TrainingError("The GPU's memory is full before anything was measured. End what else is on the card.")
    return rate


def describe_floor(planned: PlannedMember, rate: float) -> str:
    """A line: what an image of a member costs, and how many a second the rate of a matrix product would allow."""
    return (
        f"floor: {in_flop(planned.image_flops)} an image, forward and backward; matrix products run at "
        f"{in_flop(rate)}/s in {planned.training.precision}, so {rate / planned.image_flops:,.0f} images/s at most"
    )


@cache
def _cpu_rate(precision: Literal["fp32", "bf16"]) -> float:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(_SIDE, _SIDE).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - began)
    return 2 * _SIDE**3 / min(seconds)
