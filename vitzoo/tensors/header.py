"""Read and check the header of a safetensors file before any weights are read.

A file is 8 bytes (little-endian length of the header), the header (JSON: name -> dtype, shape, data_offsets; and
``__metadata__``), then the tensors' bytes. The format: https://github.com/huggingface/safetensors#format.
See `vitzoo.weights.reader` for reading the tensors.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vitzoo.errors import WeightsError, shown
from vitzoo.records.files import open_regular, reading

DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_FILE_ORDER = ("F64", "F32", "BF16", "F16")  # of the tensors in a file that safetensors writes, then by name
_MAX_HEADER_BYTES = 2**20  # room for 8,000 tensors; safetensors' own limit is a hundred times this
_MAX_DIMENSIONS = 8
_USUAL_BYTES = 2**16  # of a header; a ViT-S/16's has 20 kB
_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)  # safe to show in a message


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Type, shape and place of a tensor in its file.

    Args:
        dtype: safetensors' name of the type: F64, F32, F16 or BF16.
        shape: Shape of the tensor.
        start: First byte, counted from the start of the file.
        end: One past the last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def load_header(path: Path) -> Mapping[str, TensorEntry]:
    """Read the header of a safetensors file and check the file's size.

    Returns:
        Tensor names to entries, in the order of the file.

    Raises:
        WeightsError: The file is truncated, too long, or has a damaged header.
        UnreadableError: The system refuses to read it.
    """
    with reading(path), open_regular(path) as file:

        def read(start: int, stop: int) -> tuple[bytes, int]:
            file.seek(start)
            return file.read(stop - start), os.fstat(file.fileno()).st_size

        return read_header(read, path=path)


def read_header(read: Callable[[int, int], tuple[bytes, int]], *, path: Path) -> Mapping[str, TensorEntry]:
    """Read a header through a function that reads ranges of bytes; one call is enough for a header of usual length.

    Args:
        read: Returns bytes ``start`` to ``stop`` of the file, fewer at its end, and the size of the whole file.
        path: The file, for errors, as of `load_header`.
    """
    first, size = read(0, _USUAL_BYTES)
    length = int.from_bytes(first[:8], "little")
    if len(first) < 8 or length > _MAX_HEADER_BYTES or 8 + length > size:
        raise _damaged(path, f"it has {size} bytes, and its header would be {length} bytes long")
    if 8 + length > len(first):
        first += read(len(first), 8 + length)[0]
    entries = parse_header(first[8 : 8 + length], data_start=8 + length, path=path)
    end = list(entries.values())[-1].end if entries else 8 + length  # they are in order, without gaps
    if size != end:
        how = "truncated" if size < end else "too long"
        raise _damaged(path, f"it is {how}: its header promises {end} bytes, the file has {size}")
    return entries


def parse_header(text: bytes, *, data_start: int, path: Path) -> Mapping[str, TensorEntry]:
    """Parse and check the JSON of a header. Equal headers, which siblings have, are parsed once and shared, read-only.

    Raises:
        WeightsError: The text is not a header, or offsets overlap, leave gaps or disagree with the shapes.
    """
    try:
        parse = _parse_once if len(text) <= _USUAL_BYTES else _parse
        return parse(text, data_start)
    except _DamageError as damage:
        raise _damaged(path, str(damage)) from None


def make_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[bytes, list[str]]:
    """Return the first bytes of a safetensors file, as safetensors writes them, and the order of the tensors in it.

    Args:
        tensors: Names to dtypes (safetensors' names) and shapes.
    """
    order = sorted(tensors, key=lambda name: (_FILE_ORDER.index(tensors[name][0]), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        dtype, shape = tensors[name]
        start, end = end, end + prod(shape) * DTYPE_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, order


class _DamageError(Exception):
    """A problem of a header, without the file's path."""


def _parse(text: bytes, data_start: int) -> Mapping[str, TensorEntry]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise _DamageError("its header names a tensor twice")
        return dict(pairs)

    def natural(digits: str) -> int:
        return -1 if digits.startswith("-") else int(digits)  # safetensors refuses -0 too

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_int=natural)
        metadata = header.pop("__metadata__", {})
        json.dumps(metadata, ensure_ascii=False).encode()  # safetensors refuses lone surrogates
        entries = {name: _parse_entry(name, entry, data_start) for name, entry in header.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise _DamageError("its header is not a JSON object") from None
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise _DamageError("its __metadata__ is not an object of texts")
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    position = data_start
    for name, entry in entries.items():
        if entry.start != position:
            raise _DamageError(f"{name} begins at byte {entry.start}, expected {position}")
        position = entry.end
    return MappingProxyType(entries)


_parse_once = lru_cache(maxsize=64)(_parse)  # at most 4 MB of headers


def _parse_entry(name: str, entry: Any, data_start: int) -> TensorEntry:
    if _NAME.fullmatch(name) is None:
        raise _DamageError(f"it names a tensor {shown(name)}")
    if not (isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}):
        raise _DamageError(f"{name} has no dtype, shape and data_offsets, or more than these")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (isinstance(dtype, str) and dtype in DTYPE_BYTES):
        raise _DamageError(f"{name} has dtype {shown(dtype)}; expected one of {', '.join(DTYPE_BYTES)}")
    if not (_are_naturals(shape) and len(shape) <= _MAX_DIMENSIONS and 0 not in shape):
        raise _DamageError(f"{name} has a shape that is not a list of at most {_MAX_DIMENSIONS} numbers from 1")
    if not (_are_naturals(offsets) and len(offsets) == 2):
        raise _DamageError(f"{name} has data_offsets that are not two numbers from 0")
    start, end = offsets
    if end - start != prod(shape) * DTYPE_BYTES[dtype]:
        raise _DamageError(f"{name} of shape {shape} and dtype {dtype} takes {end - start} bytes")
    return TensorEntry(dtype, tuple(shape), data_start + start, data_start + end)


def _are_naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)


def _damaged(path: Path, damage: str) -> WeightsError:
    return WeightsError(
        f"{path} is a damaged safetensors file: {damage}", fix="Get it again, or train the member again.", path=path
    )


def content_ids(
    tensors: Mapping[str, tuple[str, tuple[int, ...], bytes | memoryview]], *, is_head: Callable[[str], bool]
) -> tuple[str, str]:
    """Hash the bytes of tensors, and combine the digests as `combine_digests`."""
    digests = {name: (dtype, shape, hashlib.sha256(data).hexdigest()) for name, (dtype, shape, data) in tensors.items()}
    return combine_digests(digests, is_head=is_head)


def combine_digests(
    tensors: Mapping[str, tuple[str, tuple[int, ...], str]], *, is_head: Callable[[str], bool]
) -> tuple[str, str]:
    """Identify a set of weights by its content, independently of the file.

    Args:
        tensors: On-disk names to (safetensors dtype, shape, sha256 of the little-endian bytes).
        is_head: Tells from a tensor's name whether it belongs to the head.

    Returns:
        ``weights_id`` over all tensors and ``backbone_id`` over all but the head: sha256 over the lines
        ``name dtype [shape] sha256``, by ascending name.
    """
    names = sorted(tensors)
    lines = {name: f"{name} {dtype} {list(shape)} {digest}\n" for name, (dtype, shape, digest) in tensors.items()}

    def combined(chosen: Iterable[str]) -> str:
        return hashlib.sha256("".join(lines[name] for name in chosen).encode()).hexdigest()

    return combined(names), combined(name for name in names if not is_head(name))
