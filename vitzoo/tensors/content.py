"""Hash a safetensors file and find NaN or infinite values, without building tensors.

The file is memory-mapped and read in chunks, so its size costs no memory. See `vitzoo.verification` for the checks that
compare the result with a member's records.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitzoo.records.files import file_sha256
from vitzoo.tensors.dtypes import NUMPY
from vitzoo.tensors.header import TensorEntry, content_ids, load_header

_CHUNK = 2**20  # numbers checked at once: their bytes stay in the processor's cache
_BF16_EXPONENT = 0x7F80  # all of these bits are set in NaN and infinity


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsContent:
    """Content of a weights file.

    Args:
        sha256: Digest of the whole file.
        tensors: Tensor names to their entries in the header.
        weights_id: Digest of all weights (`vitzoo.tensors.header.content_ids`).
        backbone_id: Digest of all weights but the head's.
        not_finite: Names of the tensors with NaN or infinite values.
    """

    sha256: str
    tensors: Mapping[str, TensorEntry]
    weights_id: str
    backbone_id: str
    not_finite: tuple[str, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor names to shapes."""
        return {name: entry.shape for name, entry in self.tensors.items()}


def load_content(path: Path, *, is_head: Callable[[str], bool]) -> WeightsContent:
    """Read a weights file completely and compute its digests, with errors as `load_header`."""
    tensors = load_header(path)
    sha256 = file_sha256(path)
    data = np.memmap(path, np.uint8, mode="r").data
    content = {name: (entry.dtype, entry.shape, data[entry.start : entry.end]) for name, entry in tensors.items()}
    weights_id, backbone_id = content_ids(content, is_head=is_head)
    return WeightsContent(
        sha256=sha256,
        tensors=tensors,
        weights_id=weights_id,
        backbone_id=backbone_id,
        not_finite=tuple(name for name, (dtype, _, part) in content.items() if not is_finite(part, dtype)),
    )


def is_finite(data: bytes | memoryview, dtype: str) -> bool:
    """Return whether the little-endian bytes of a tensor, aligned or not, have no NaN and no infinity."""
    numbers = np.frombuffer(data, NUMPY[dtype])
    for start in range(0, len(numbers), _CHUNK):
        chunk = numbers[start : start + _CHUNK]
        finite = (chunk & _BF16_EXPONENT) != _BF16_EXPONENT if dtype == "BF16" else np.isfinite(chunk)
        if not finite.all():
            return False
    return True
