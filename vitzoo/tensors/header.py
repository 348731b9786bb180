"""The header of a safetensors file, read and checked before a byte of weights is touched.

A file is 8 bytes (little-endian length of the header), the header (JSON: name -> dtype, shape, data_offsets; and
``__metadata__``), then the tensors' bytes. The format: https://github.com/huggingface/safetensors#format.
Reading the tensors is safetensors' own work; here is what it leaves open: whether the file is whole and
whether it holds what a config says.
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

DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_MAX_HEADER_BYTES = 10**7  # room for 80,000 tensors; safetensors' own limit is ten times this
_MAX_DIMENSIONS = 8
_USUAL_BYTES = 2**16  # a ViT-S/16's header has 20 kB
_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)  # so that a name may stand in a message as it is


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies in its file.

    Args:
        dtype: safetensors' name of the type: F64, F32, F16 or BF16.
        shape: Its shape.
        start: First byte, from the start of the file.
        end: One past the last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def load_header(path: Path) -> Mapping[str, TensorEntry]:
    """Read the header of a safetensors file and check that the file is whole.

    Args:
        path: The file.

    Returns:
        Names to entries, by their place in the file.

    Raises:
        WeightsError: The file is truncated, too long, or its header is damaged.
    """
    with open(path, "rb") as file:

        def read(start: int, stop: int) -> tuple[bytes, int]:
            file.seek(start)
            return file.read(stop - start), os.fstat(file.fileno()).st_size

        return read_header(read, path=path)


def read_header(read: Callable[[int, int], tuple[bytes, int]], *, path: Path) -> Mapping[str, TensorEntry]:
    """Read a header through whatever reads ranges of bytes, once where it is not longer than usual.

    Args:
        read: Gives bytes ``start`` to ``stop`` of the file, fewer where it ends earlier, and its whole size.
        path: The file, for errors.

    Returns:
        As `load_header`.

    Raises:
        WeightsError: The file is truncated, too long, or its header is damaged.
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
    """The tensors that a header lists, checked; equal headers, as siblings have them, are parsed once.

    Args:
        text: The header's JSON.
        data_start: Where the tensors' bytes begin in the file.
        path: The file, for errors.

    Returns:
        Names to entries, by their place in the file; read-only, for it is shared.

    Raises:
        WeightsError: It is no header, or its offsets overlap, leave gaps or disagree with the shapes.
    """
    try:
        parse = _parse_once if len(text) <= _USUAL_BYTES else _parse
        return parse(text, data_start)
    except _DamageError as damage:
        raise _damaged(path, str(damage)) from None


class _DamageError(Exception):
    """What is wrong with a header."""


def _parse(text: bytes, data_start: int) -> Mapping[str, TensorEntry]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise _DamageError("its header names a tensor twice")
        return dict(pairs)

    def natural(digits: str) -> int:
        return -1 if digits.startswith("-") else int(digits)  # -0 too, which safetensors does not take

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_int=natural)
        metadata = header.pop("__metadata__", {})
        entries = {name: _parse_entry(name, entry, data_start) for name, entry in header.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise _DamageError("its header is no JSON object") from None
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise _DamageError("its __metadata__ is no object of texts")
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    position = data_start
    for name, entry in entries.items():
        if entry.start != position:
            raise _DamageError(f"{name} begins at byte {entry.start} where {position} was expected")
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
        raise _DamageError(f"{name} has a shape that is no list of at most {_MAX_DIMENSIONS} numbers from 1")
    if not (_are_naturals(offsets) and len(offsets) == 2):
        raise _DamageError(f"{name} has data_offsets that are no two numbers from 0")
    start, end = offsets
    if end - start != prod(shape) * DTYPE_BYTES[dtype]:
        raise _DamageError(f"{name} of shape {shape} and dtype {dtype} takes {end - start} bytes")
    return TensorEntry(dtype, tuple(shape), data_start + start, data_start + end)


def _are_naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)


def _damaged(path: Path, what: str) -> WeightsError:
    return WeightsError(
        f"{path} is a damaged safetensors file: {what}", fix="Get it again, or train the member again.", path=path
    )


def content_ids(
    tensors: Mapping[str, tuple[str, tuple[int, ...], bytes | memoryview]], *, is_head: Callable[[str], bool]
) -> tuple[str, str]:
    """Identify a set of weights, whatever file holds it.

    Args:
        tensors: On-disk names to (safetensors dtype, shape, little-endian bytes).
        is_head: Tells by a tensor's name whether it belongs to the head.

    Returns:
        ``weights_id`` and ``backbone_id``: as `combine_digests`.
    """
    return combine_digests(
        {name: (dtype, shape, hashlib.sha256(data).hexdigest()) for name, (dtype, shape, data) in tensors.items()},
        is_head=is_head,
    )


def combine_digests(
    tensors: Mapping[str, tuple[str, tuple[int, ...], str]], *, is_head: Callable[[str], bool]
) -> tuple[str, str]:
    """Return the `content_ids` of tensors whose bytes were hashed one by one: every byte once, for both ids.

    Args:
        tensors: On-disk names to (safetensors dtype, shape, sha256 of the little-endian bytes).
        is_head: As `content_ids`.

    Returns:
        ``weights_id`` over all tensors and ``backbone_id`` over all but the head: sha256 over the lines
        ``name dtype [shape] sha256``, by ascending name.
    """
    lines = {name: f"{name} {dtype} {list(shape)} {digest}\n" for name, (dtype, shape, digest) in tensors.items()}
    names = sorted(lines)
    return _sha256(lines[name] for name in names), _sha256(lines[name] for name in names if not is_head(name))


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(lines).encode()).hexdigest()
