"""What a caller gives as weights, as numpy's floats: torch tensors on the CPU too, without importing torch."""

from numbers import Integral
from typing import Any

import numpy as np

from vitzoo.errors import RepresentationError


def float_array(values: Any) -> np.ndarray:
    """Numbers as an array of floats: the same memory where they are an array or a tensor.

    Args:
        values: An array, or a torch tensor, whose gradient is left behind.

    Raises:
        RepresentationError: They are no floats, bfloat16, which numpy does not have, or not on the CPU.
    """
    if hasattr(values, "detach"):
        values = values.detach()
        if values.device.type != "cpu":
            raise RepresentationError(
                f"A tensor on {values.device} is no array: call .cpu() on it first.", value=str(values.device)
            )
        if str(values.dtype) == "torch.bfloat16":
            raise RepresentationError(
                "A tensor of bfloat16, which numpy does not have: call .float() on it first.", value="bfloat16"
            )
        values = values.numpy()
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.dtype.kind != "f":
        raise RepresentationError(
            f"Numbers of {array.dtype} are no weights", expected="float16, float32 or float64", value=str(array.dtype)
        )
    return array


def is_integer(value: object) -> bool:
    """Whether a value is an integer, Python's or numpy's, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)
