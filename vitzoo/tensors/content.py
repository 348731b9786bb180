"""Hash and measure a safetensors file and find NaN or infinite values, without building tensors.

The file is memory-mapped and read in chunks, so its size costs no memory. `write_content` measures while it writes. See
`vitzoo.verification` for the checks that compare the result with a member's records.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitzoo.records.files import file_sha256
from vitzoo.tensors.dtypes import NUMPY, as_floats
from vitzoo.tensors.header import (
    DTYPE_BYTES,
    TensorEntry,
    combine_digests,
    content_ids,
    load_header,
    make_header,
    parse_header,
)

_CHUNK = 2**16  # numbers checked at once: their bytes stay in the processor's cache
_PIECE = 4 * _CHUNK  # numbers that are hashed, measured and written at once
_BF16_EXPONENT = 0x7F80  # all of these bits are set in NaN and infinity
Tensor = tuple[str, tuple[int, ...], memoryview]  # safetensors dtype, shape, little-endian bytes
Content = Mapping[str, Tensor]


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
    first = _map_start(start, tensors)
    return WeightsContent(
        sha256=sha256,
        tensors=tensors,
        weights_id=weights_id,
        backbone_id=backbone_id,
        not_finite=tuple(name for name, (dtype, _, part) in content.items() if not is_finite(part, dtype)),
        weight_norm=_norm(content),
        distance_from_start=None if first is None else _norm(content, first),
    )


def write_content(
    path: Path, tensors: Content, *, is_head: Callable[[str], bool], start: Path | None = None
) -> WeightsContent:
    """Write a new safetensors file, and compute what `load_content` computes of it, in one pass over the tensors.

    Args:
        path: The file.
        tensors: Tensors by name. Their order in the file is safetensors' own.
        is_head: As `load_content`.
        start: As `load_content`.
    """
    header, order = make_header({name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()})
    entries = parse_header(header[8:], data_start=len(header), path=path)
    first = _map_start(start, entries)
    whole, squares, moved = hashlib.sha256(header), 0.0, 0.0
    digests, not_finite = {}, []
    with open(path, "xb", buffering=0) as file:
        file.write(header)
        for name in order:
            own, finite = hashlib.sha256(), True
            pairs = (_pieces(tensors[name]),) if first is None else (_pieces(tensors[name]), _pieces(first[name]))
            for piece, *before in zip(*pairs, strict=True):
                dtype, _, data = piece
                whole.update(data)
                own.update(data)
                file.write(data)
                finite = finite and is_finite(data, dtype)
                squares += _squares(piece)
                moved += _squares(piece, *before) if before else 0.0
            digests[name] = *tensors[name][:2], own.hexdigest()
            if not finite:
                not_finite.append(name)
    weights_id, backbone_id = combine_digests(digests, is_head=is_head)
    return WeightsContent(
        sha256=whole.hexdigest(),
        tensors=entries,
        weights_id=weights_id,
        backbone_id=backbone_id,
        not_finite=tuple(not_finite),
        weight_norm=squares**0.5,
        distance_from_start=None if first is None else moved**0.5,
    )


def _map_start(start: Path | None, tensors: Mapping[str, TensorEntry]) -> Content | None:
    """Map the start's tensors; None where their shapes are others."""
    if start is None:
        return None
    first = _map(start, load_header(start))
    shapes = {name: entry.shape for name, entry in tensors.items()}
    return first if {name: shape for name, (_, shape, _) in first.items()} == shapes else None


def _map(path: Path, tensors: Mapping[str, TensorEntry]) -> dict[str, Tensor]:
    data = np.memmap(path, np.uint8, mode="r").data
    return {name: (entry.dtype, entry.shape, data[entry.start : entry.end]) for name, entry in tensors.items()}


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Cut a tensor into pieces of `_PIECE` numbers."""
    dtype, shape, data = tensor
    size = _PIECE * DTYPE_BYTES[dtype]
    return ((dtype, shape, data[place : place + size]) for place in range(0, len(data), size))


def _norm(content: Content, start: Content | None = None) -> float:
    """Return the L2 norm of all tensors, or of their differences from ``start``, summed in float64."""
    return sum(_squares(tensor, None if start is None else start[name]) for name, tensor in content.items()) ** 0.5


def _squares(tensor: Tensor, start: Tensor | None = None) -> float:
    """Return the sum of the squares of a tensor, or of its differences from ``start``."""
    squares = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        pairs = [_chunks(tensor)] if start is None else [_chunks(tensor), _chunks(start)]
        for chunk, *others in zip(*pairs, strict=True):
            chunk = chunk - others[0] if others else chunk
            squares += float(chunk @ chunk)
    return squares


def _chunks(tensor: Tensor) -> Iterator[np.ndarray]:
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
