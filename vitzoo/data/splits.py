"""Choose samples of a split: a fixed subset, spaced evenly."""

import numpy as np
from jaxtyping import Int64

from vitzoo.errors import DatasetError


def evenly_spaced(count: int, total: int) -> Int64[np.ndarray, " count"]:
    """Return ``count`` places evenly spaced over ``total``, starting with 0.

    Raises:
        DatasetError: ``count`` is below 1 or above ``total``.
    """
    if not 1 <= count <= total:
        raise DatasetError(f"{count} samples were requested from a split of {total}", expected=f"1 to {total}")
    return np.arange(count) * total // count
