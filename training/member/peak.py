"""What a card can do: the rate of a large matrix product, against which a training's speed is told."""

from functools import cache
from typing import Literal

import torch

_SIDE, _REPEATS = 8192, 10


@cache
def matrix_product_rate(precision: Literal["fp32", "bf16"]) -> float | None:
    """Floating-point operations a second of a square matrix product on the current GPU; measured once a process.

    It waits for the device, and takes .4 GB in bf16: to be asked before a training, not during one.

    Args:
        precision: Of the factors.

    Returns:
        The rate of the fastest of ten products of side 8192; None where the memory for them is not free.
    """
    try:
        return _measure(torch.bfloat16 if precision == "bf16" else torch.float32)
    except torch.OutOfMemoryError:
        return None
    finally:
        torch.cuda.empty_cache()


def _measure(dtype: torch.dtype) -> float:
    left, right = (torch.randn(_SIDE, _SIDE, device="cuda", dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    milliseconds = []
    for _ in range(_REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.mm(left, right, out=product)
        end.record()
        end.synchronize()
        milliseconds.append(begin.elapsed_time(end))
    return 2 * _SIDE**3 / (min(milliseconds) / 1000)
