"""What a weights file holds, read from its bytes alone: digests, and numbers that are none.

The file is mapped and read in pieces, so its size costs no memory; no tensor is built. Whether it should hold that is
the business of `vitzoo.verification`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitzoo.records.files import file_sha256
from vitzoo.tensors.dtypes import NUMPY
from vitzoo.tensors.header import TensorEntry, content_ids, load_header

_CHUNK = 2**20  # numbers looked at at once: their bytes stay in the processor's cache
_BF16_EXPONENT = 0x7F80  # all of these bits set: infinite, or not a number


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsContent:
    """What a weights file holds.

    Args:
        sha256: Of the whole file.
        tensors: The header: names to entries.
        weights_id: Digest of all weights (`vitzoo.tensors.header.content_ids`).
        backbone_id: Digest of all but the head's.
        not_finite: The tensors with a number that is infinite or none.
    """

    sha256: str
    tensors: Mapping[str, TensorEntry]
    weights_id: str
    backbone_id: str
    not_finite: tuple[str, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names to shapes."""
        return {name: entry.shape for name, entry in self.tensors.items()}


def load_content(path: Path, *, is_head: Callable[[str], bool]) -> WeightsContent:
    """Read a weights file to its last byte.

    Args:
        path: The file.
        is_head: Tells by a tensor's name whether it belongs to the head.

    Returns:
        Its digests, its header, and the tensors that are not finite.

    Raises:
        WeightsError: It is truncated, too long, or its header is damaged.
    """
    tensors = load_header(path)
    sha256 = file_sha256(path)
    data = np.memmap(path, np.uint8, mode="r").data
    parts = {name: data[entry.start : entry.end] for name, entry in tensors.items()}
    weights_id, backbone_id = content_ids(
        {name: (entry.dtype, entry.shape, parts[name]) for name, entry in tensors.items()}, is_head=is_head
    )
    return WeightsContent(
        sha256=sha256,
        tensors=tensors,
        weights_id=weights_id,
        backbone_id=backbone_id,
        not_finite=tuple(name for name, entry in tensors.items() if not is_finite(parts[name], entry.dtype)),
    )


def is_finite(data: bytes | memoryview, dtype: str) -> bool:
    """Whether every number of a tensor is one: no NaN, no infinity.

    Args:
        data: Its little-endian bytes, aligned or not.
        dtype: safetensors' name of the type: F64, F32, F16 or BF16.
    """
    numbers = np.frombuffer(data, NUMPY[dtype])
    for start in range(0, len(numbers), _CHUNK):
        chunk = numbers[start : start + _CHUNK]
        finite = (chunk & _BF16_EXPONENT) != _BF16_EXPONENT if dtype == "BF16" else np.isfinite(chunk)
        if not finite.all():
            return False
    return True
