"""The number types of weights files, as numpy has them; bfloat16, which numpy lacks, as the integers of its bits."""

from contextlib import suppress
from typing import Any

import numpy as np

from vitzoo.errors import WeightsError

# safetensors' name -> numpy's, little-endian as in the file.
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_WIDTHS = {"float64": "F64", "float32": "F32", "float16": "F16"}


def parse_dtype(dtype: Any) -> str:
    """The name that safetensors has for a type that weights are converted to.

    Args:
        dtype: ``"float16"``, ``"float32"`` or ``"float64"``, or numpy's or torch's type of that name.

    Raises:
        WeightsError: It is another one.
    """
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    if name not in _WIDTHS:
        with suppress(TypeError):
            name = np.dtype(dtype).name  # np.float32, which prints as a class
    if name not in _WIDTHS:
        raise WeightsError(
            f"dtype {dtype} is none that weights are converted to: expected one of {', '.join(_WIDTHS)}."
        )
    return _WIDTHS[name]


def as_floats(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers of a file as numpy's floats: the same array, but for bfloat16, which becomes float32.

    Args:
        numbers: As `NUMPY` reads them.
        dtype: Their type as safetensors calls it.
    """
    return (numbers.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else numbers


def convert(numbers: np.ndarray, dtype: str, out: np.ndarray) -> None:
    """Write numbers of a file into an array of another float type, rounding to nearest where that is narrower.

    Args:
        numbers: As `NUMPY` reads them.
        dtype: Their type as safetensors calls it.
        out: Of their shape.
    """
    with np.errstate(over="ignore"):  # beyond float16's range is infinite, as torch has it
        np.copyto(out, as_floats(numbers, dtype), casting="same_kind")
