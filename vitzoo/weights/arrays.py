"""What representations take as numbers: numpy's floats, and torch's where they are the same memory. No torch."""

import operator
from typing import Any

import numpy as np

from vitzoo.errors import RepresentationError


def float_array(values: Any) -> np.ndarray:
    """Numbers as an array: numpy's as they are, a torch tensor on the CPU as a view of it.

    Args:
        values: An array, a tensor (one that requires a gradient, too), or nested lists.

    Raises:
        RepresentationError: A tensor is elsewhere or of a type that numpy lacks; or they are no floats.
    """
    if hasattr(values, "detach"):
        if values.device.type != "cpu":
            raise RepresentationError(f"A tensor on {values.device} is no array: call .cpu() first.", value=None)
        if "bfloat16" in str(values.dtype):
            raise RepresentationError(
                "A tensor is bfloat16, which numpy does not have: call .float() first.", value=values.dtype
            )
        values = values.detach().numpy()
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise RepresentationError(
            f"Numbers of {array.dtype} are no weights: expected floats. Convert them first.", value=array.dtype
        )
    return array


def is_integer(value: Any) -> bool:
    """Whether a value is a whole number, numpy's too; a bool is none."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, (bool, np.bool_))
