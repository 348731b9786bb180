"""Compute linear combinations of checkpoints, such as their mean, streamed from their files. No torch.

The files are read in slices. Each slice is summed in float64 in the order of the checkpoints, and rounded once. Memory:
the result, and a few slices for any number of checkpoints.
"""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Float64

from vitzoo.errors import WeightsError
from vitzoo.weights.files import WORKERS, WeightsFiles
from vitzoo.weights.index import IndexEntry, WeightsIndex

_WIDTH = 2**18  # numbers of a slice


def combine(
    files: WeightsFiles,
    index: WeightsIndex,
    coefficients: Float64[np.ndarray, "tensors checkpoints"],
    *,
    divisor: float = 1.0,
    dtype: np.dtype,
) -> Float[np.ndarray, "params"]:
    """Compute the sum of coefficient times weights over the checkpoints, divided by ``divisor``, for each tensor.

    A coefficient of 0 leaves the checkpoint out: its tensor is not read. With one checkpoint of coefficient 1 and
    divisor 1, the result is the file bit for bit.

    Args:
        files: The checkpoints.
        index: The tensors that they share.
        coefficients: In the order of the index and of the files.
        divisor: Number that is not 0.
        dtype: Type of the result.

    Raises:
        WeightsError: A weight is NaN or infinite, or the result is beyond the range of ``dtype``.
    """
    vector = np.empty(index.size, dtype)
    slices = list(_iter_slices(index))
    with contextlib.ExitStack() as stack:
        open_file, buffers = files.keep_open(stack), threading.local()

        def add(part: tuple[int, IndexEntry, int, int]) -> None:
            place, entry, begin, end = part
            if not hasattr(buffers, "memory"):
                buffers.memory, buffers.total = np.empty(8 * _WIDTH, np.uint8), np.empty(_WIDTH)
            total, rows = buffers.total[: end - begin], np.flatnonzero(coefficients[place]).tolist()
            for number, row in enumerate(rows):
                with open_file(row) as reader:
                    term = reader.read_slice(entry.name, begin, end, memory=buffers.memory)
                if coefficients[place, row] != 1:
                    term = term * np.float64(coefficients[place, row])  # numpy's, or the product would be float32
                if number == 0:
                    total[...] = term  # not 0 + term, which loses the sign of -0
                else:
                    total += term
            out = vector[entry.offset + begin : entry.offset + end]
            with np.errstate(over="ignore", invalid="ignore"):
                out[...] = np.divide(total, divisor, out=total) if rows else 0.0
            if not np.isfinite(out).all():
                raise _not_finite(files, entry, begin, end)

        pool = stack.enter_context(ThreadPoolExecutor(WORKERS))
        try:
            list(pool.map(add, slices))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return vector


def _iter_slices(index: WeightsIndex) -> Iterator[tuple[int, IndexEntry, int, int]]:
    """Iterate over slices of all tensors, with the tensor's place in the index."""
    for place, entry in enumerate(index.values()):
        for begin in range(0, entry.size, _WIDTH):
            yield place, entry, begin, min(entry.size, begin + _WIDTH)


def _not_finite(files: WeightsFiles, entry: IndexEntry, begin: int, end: int) -> WeightsError:
    for row, ref in enumerate(files.refs):
        with files.open(row) as reader:
            if not np.isfinite(reader.read_slice(entry.name, begin, end)).all():
                return WeightsError(
                    f"{entry.name} of {ref} has NaN or infinite weights",
                    expected="numbers",
                    fix="Leave this checkpoint out.",
                    path=reader.path,
                )
    return WeightsError(
        f"{entry.name} of the combination is beyond the range of the files' dtype", fix="Use smaller coefficients."
    )
