"""Check that checkpoints fit one array: the names and shapes of tensors, and their dtype.

Each difference is an error that names two checkpoints. See `vitzoo.weights.population` for the arrays. numpy only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitzoo.architectures import disk_name
from vitzoo.errors import WeightsError
from vitzoo.ids import MemberRef
from vitzoo.tensors.dtypes import NUMPY, parse_dtype
from vitzoo.tensors.header import TensorEntry
from vitzoo.weights.index import WeightsIndex, is_in_part

Header = Mapping[str, TensorEntry]
_EXACT = {"F32", "BF16"}  # float32 has each value of both


def distinct_headers(refs: Sequence[MemberRef], headers: Sequence[Header]) -> list[tuple[MemberRef, Header]]:
    """Return each different header with its first checkpoint; equal parsed headers are one object."""
    found: dict[int, tuple[MemberRef, Header]] = {}
    for ref, header in zip(refs, headers, strict=True):
        found.setdefault(id(header), (ref, header))
    return list(found.values())


def shared_index(distinct: Sequence[tuple[MemberRef, Header]], part: str) -> WeightsIndex:
    """Index the tensors of a part that all checkpoints share.

    Raises:
        WeightsError: Two checkpoints have different tensors; there are none of that part; or a name is not one on disk.
    """
    for ref, header in distinct:
        for name in header:
            if disk_name(name) != name:
                raise WeightsError(
                    f"{ref} has {name}, a tensor's name in memory",
                    expected=f"{disk_name(name)}, its name on disk",
                    fix="Write the file again by save_pretrained.",
                )
    first_ref, first_header = distinct[0]
    first = _shapes(first_header, part)
    if not first:
        raise WeightsError(f'{first_ref} has no tensors of part "{part}"')
    for ref, header in distinct[1:]:
        if (found := _shapes(header, part)) != first:
            raise differ(first_ref, ref, first, found)
    return WeightsIndex(first)


def shared_dtype(distinct: Sequence[tuple[MemberRef, Header]], part: str, dtype: Any, framework: str) -> np.dtype:
    """Return the type of the array for a part's tensors: float32 for float32 beside bfloat16. See `array_dtype`.

    Raises:
        WeightsError: The files are of other dtypes and no conversion was asked for; or as `array_dtype`.
    """
    first_ref, first_header = distinct[0]
    first = next(entry for name, entry in first_header.items() if is_in_part(name, part))
    if dtype is None:
        kinds = {entry.dtype for _, header in distinct for name, entry in header.items() if is_in_part(name, part)}
        if kinds == _EXACT:
            return np.dtype(NUMPY["F32"])
        for ref, header in distinct:
            for name, entry in header.items():
                if is_in_part(name, part) and entry.dtype != first.dtype:
                    raise mixed(first_ref, first, ref, name, entry)
    return array_dtype(first, dtype, framework)


def array_dtype(entry: TensorEntry, dtype: Any, framework: str) -> np.dtype:
    """Return the type of the array for one tensor.

    bfloat16 becomes float32, which has each of its values. For torch it is read as the integers of its bits.

    Args:
        entry: The tensor.
        dtype: The type to convert to; None for the file's own.
        framework: ``np`` or ``pt``.

    Raises:
        WeightsError: The dtype or framework is unknown.
    """
    if framework not in ("np", "pt"):
        raise WeightsError(f'return_tensors is "{framework}"', expected='"np" or "pt"')
    if dtype is None and entry.dtype == "BF16" and framework == "np":
        return np.dtype(NUMPY["F32"])
    return np.dtype(NUMPY[entry.dtype if dtype is None else parse_dtype(dtype)])


def fits(entry: TensorEntry, dtype: np.dtype) -> bool:
    """Return whether an array has the file's type, or is float32 for bfloat16."""
    return NUMPY[entry.dtype] == dtype or (entry.dtype == "BF16" and dtype == np.float32)


def mixed(first_ref: MemberRef, first: TensorEntry, ref: MemberRef, name: str, entry: TensorEntry) -> WeightsError:
    """Return the error for two different dtypes."""
    return WeightsError(
        f"{name} of {ref} is {entry.dtype}, but {first_ref} is {first.dtype}",
        expected="one dtype",
        fix='Say dtype="float32" to convert them.',
    )


def differ(
    first: MemberRef, other: MemberRef, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> WeightsError:
    """Return the error for different tensors of two checkpoints."""

    def shown(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
        return str(list(shapes[name])) if name in shapes else "none"

    names = [name for name in dict.fromkeys([*expected, *found]) if found.get(name) != expected.get(name)]
    how = [f"{name} ({shown(expected, name)} and {shown(found, name)})" for name in names]
    return WeightsError(
        f"{first} and {other} have different tensors: {', '.join(how[:8])}{', ...' if len(how) > 8 else ''}",
        fix='Choose part="backbone", which members of one architecture share, or select(head_type=..., dataset=...).',
    )


def _shapes(header: Header, part: str) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in header.items() if is_in_part(name, part)}
