"""Hash and measure a safetensors file and find NaN or infinite values, without building tensors.

The file is memory-mapped and read in chunks, so its size costs no memory. See `vitzoo.verification` for the checks that
compare the result with a member's records.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitzoo.records.files import file_sha256
from vitzoo.tensors.dtypes import NUMPY, as_floats
from vitzoo.tensors.header import TensorEntry, content_ids, load_header

_CHUNK = 2**16  # numbers checked at once: their bytes stay in the processor's cache
_BF16_EXPONENT = 0x7F80  # all of these bits are set in NaN and infinity
_Tensor = tuple[str, tuple[int, ...], memoryview]  # safetensors dtype, shape, bytes
_Content = dict[str, _Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsContent:
    """Content of a weights file.

    Args:
        sha256: Digest of the whole file.
        tensors: Tensor names to their entries in the header.
        weights_id: Digest of all weights (`vitzoo.tensors.header.content_ids`).
        backbone_id: Digest of all weights but the head's.
        not_finite: Names of the tensors with NaN or infinite values.
        weight_norm: L2 norm of all weights; NaN or infinite where a weight is.
        distance_from_start: L2 distance of all weights from the start's; None without a start of the same shapes.
    """

    sha256: str
    tensors: Mapping[str, TensorEntry]
    weights_id: str
    backbone_id: str
    not_finite: tuple[str, ...]
    weight_norm: float
    distance_from_start: float | None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor names to shapes."""
        return {name: entry.shape for name, entry in self.tensors.items()}


def load_content(path: Path, *, is_head: Callable[[str], bool], start: Path | None = None) -> WeightsContent:
    """Read a weights file completely and compute its digests and norms, with errors as `load_header`.

    Args:
        path: The file.
        is_head: Tells from a tensor's name whether it belongs to the head.
        start: The file of the weights before the first step.
    """
    tensors = load_header(path)
    sha256 = file_sha256(path)
    content = _map(path, tensors)
    weights_id, backbone_id = content_ids(content, is_head=is_head)
    first = None if start is None else _map(start, load_header(start))
    if first is not None and {name: item[1] for name, item in first.items()} != {
        name: entry.shape for name, entry in tensors.items()
    }:
        first = None
    return WeightsContent(
        sha256=sha256,
        tensors=tensors,
        weights_id=weights_id,
        backbone_id=backbone_id,
        not_finite=tuple(name for name, (dtype, _, part) in content.items() if not is_finite(part, dtype)),
        weight_norm=_norm(content),
        distance_from_start=None if first is None else _norm(content, first),
    )


def _map(path: Path, tensors: Mapping[str, TensorEntry]) -> _Content:
    data = np.memmap(path, np.uint8, mode="r").data
    return {name: (entry.dtype, entry.shape, data[entry.start : entry.end]) for name, entry in tensors.items()}


def _norm(content: _Content, start: _Content | None = None) -> float:
    """Return the L2 norm of all tensors, or of their differences from ``start``, summed in float64."""
    squares = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for name, tensor in content.items():
            pairs = [_chunks(tensor)] if start is None else [_chunks(tensor), _chunks(start[name])]
            for chunk, *others in zip(*pairs, strict=True):
                chunk = chunk - others[0] if others else chunk
                squares += float(chunk @ chunk)
    return squares**0.5


def _chunks(tensor: _Tensor) -> Iterator[np.ndarray]:
    dtype, _, data = tensor
    numbers = np.frombuffer(data, NUMPY[dtype])
    for begin in range(0, len(numbers), _CHUNK):
        yield as_floats(numbers[begin : begin + _CHUNK], dtype).astype(np.float64)


def is_finite(data: bytes | memoryview, dtype: str) -> bool:
    """Return whether the little-endian bytes of a tensor, aligned or not, have no NaN and no infinity."""
    numbers = np.frombuffer(data, NUMPY[dtype])
    for start in range(0, len(numbers), _CHUNK):
        chunk = numbers[start : start + _CHUNK]
        finite = (chunk & _BF16_EXPONENT) != _BF16_EXPONENT if dtype == "BF16" else np.isfinite(chunk)
        if not finite.all():
            return False
    return True
