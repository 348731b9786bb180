"""Number types of weights: safetensors' names as numpy's types, conversions, and checks of arrays from callers.

numpy has no bfloat16: here it is read as the integers of its bits.
"""

from contextlib import suppress
from typing import Any

import numpy as np

from vitzoo.errors import RepresentationError, WeightsError

# safetensors' name -> numpy's, little-endian as in the file.
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# The name that torch, numpy and config.json use -> safetensors' name.
SAFETENSORS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_WIDTHS = {name: short for name, short in SAFETENSORS.items() if short != "BF16"}


def parse_dtype(dtype: Any) -> str:
    """Return safetensors' name of a type that weights can be converted to.

    Args:
        dtype: ``"float16"``, ``"float32"`` or ``"float64"``, or numpy's or torch's type of that name.

    Raises:
        WeightsError: It is another type.
    """
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    if name not in _WIDTHS:
        with suppress(TypeError):
            name = np.dtype(dtype).name  # np.float32, which prints as a class
    if name not in _WIDTHS:
        raise WeightsError(f"Weights cannot be converted to dtype {dtype}", expected=f"one of {', '.join(_WIDTHS)}")
    return _WIDTHS[name]


def as_floats(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """Return numbers of a file, of safetensors' ``dtype``, as floats: a float32 copy for bfloat16."""
    return (numbers.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else numbers


def convert(numbers: np.ndarray, dtype: str, out: np.ndarray) -> None:
    """Copy numbers of a file into a float array of the same shape, rounding to nearest. See `as_floats`."""
    with np.errstate(over="ignore"):  # beyond float16's range is infinite, as in torch
        np.copyto(out, as_floats(numbers, dtype), casting="same_kind")


def float_array(values: Any) -> np.ndarray:
    """Return floats as an array: of the same memory for an array or a torch tensor.

    Raises:
        RepresentationError: The numbers are not floats, are bfloat16, or are not on the CPU.
    """
    if hasattr(values, "detach"):  # a torch tensor, without importing torch
        values = values.detach()
        if values.device.type != "cpu":
            raise RepresentationError(
                f"A tensor on {values.device} cannot become an array",
                fix="Call .cpu() on it.",
                value=str(values.device),
            )
        if str(values.dtype) == "torch.bfloat16":
            raise RepresentationError(
                "numpy has no bfloat16", fix="Call .float() on the tensor.", value=str(values.dtype)
            )
        values = values.numpy()
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise RepresentationError(
            f"Numbers of {array.dtype} are not weights", expected="float16, float32 or float64", value=str(array.dtype)
        )
    return array
