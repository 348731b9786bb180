"""What checkpoints must share to become one array: the tensors' names and shapes, their dtype, the role of their heads.

Each difference is an error that says which checkpoints differ in what. Pure: headers in, an index or a dtype out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vitzoo.architectures import disk_name
from vitzoo.errors import WeightsError
from vitzoo.ids import MemberRef
from vitzoo.tensors.dtypes import NUMPY, parse_dtype
from vitzoo.tensors.header import TensorEntry
from vitzoo.weights.index import WeightsIndex, is_in_part

Header = Mapping[str, TensorEntry]


def distinct_headers(refs: Sequence[MemberRef], headers: Sequence[Header]) -> list[tuple[MemberRef, Header]]:
    """Each different header with the first checkpoint that has it; equal ones are one object when they were parsed."""
    found: dict[int, tuple[MemberRef, Header]] = {}
    for ref, header in zip(refs, headers, strict=True):
        found.setdefault(id(header), (ref, header))
    return list(found.values())


def shared_index(distinct: Sequence[tuple[MemberRef, Header]], part: str) -> WeightsIndex:
    """The index of the tensors of a part, which all have.

    Args:
        distinct: From `distinct_headers`.
        part: ``backbone``, ``head`` or ``all``.

    Raises:
        WeightsError: Two have different tensors; or there are none of that part, or under names of another spelling.
    """
    for ref, header in distinct:
        for name in header:
            if disk_name(name) != name:
                raise WeightsError(
                    f"{ref} holds {name}, the tensor's name in memory; on disk it is {disk_name(name)}",
                    fix="Write the file again by save_pretrained.",
                )
    first_ref, first_header = distinct[0]
    first = _shapes(first_header, part)
    if not first:
        raise WeightsError(f'{first_ref} has no tensors of part "{part}".')
    for ref, header in distinct[1:]:
        if (found := _shapes(header, part)) != first:
            raise differ(first_ref, ref, first, found)
    return WeightsIndex(first)


def check_roles(roles: Iterable[tuple[str, str]], heads: Sequence[str]) -> None:
    """Refuse heads of different roles: equal shapes do not make a classifier of an embedding.

    Args:
        roles: Of each member its id and its head's role.
        heads: The names of the heads' tensors.

    Raises:
        WeightsError: Two differ.
    """
    (first, role), *others = roles
    for member, its in others:
        if its != role:
            names = ", ".join(heads)
            raise WeightsError(
                f"The role of {first}'s head is {role}, that of {member}'s {its}: their tensors {names} mean "
                "different things",
                fix='Choose part="backbone", or select(head_role=...).',
            )


def shared_dtype(distinct: Sequence[tuple[MemberRef, Header]], part: str, dtype: Any, framework: str) -> np.dtype:
    """The type of an array that tensors of a part are read into.

    Args:
        distinct: From `distinct_headers`.
        part: ``backbone``, ``head`` or ``all``.
        dtype: What they are converted to; None for their own.
        framework: ``np`` or ``pt``.

    Raises:
        WeightsError: They have several and no conversion was asked for; or as `array_dtype`.
    """
    first_ref, first_header = distinct[0]
    first = next(entry for name, entry in first_header.items() if is_in_part(name, part))
    if dtype is None:
        for ref, header in distinct:
            for name, entry in header.items():
                if is_in_part(name, part) and entry.dtype != first.dtype:
                    raise mixed(first_ref, first, ref, name, entry)
    return array_dtype(first, first_ref, dtype, framework)


def array_dtype(entry: TensorEntry, ref: MemberRef, dtype: Any, framework: str) -> np.dtype:
    """The type of an array that a tensor is read into; for torch, bfloat16 as the integers of its bits.

    Raises:
        WeightsError: It is bfloat16 and numpy's array is asked for; or there is no such dtype or framework.
    """
    if framework not in ("np", "pt"):
        raise WeightsError(f'return_tensors "{framework}" is neither "np" nor "pt".')
    if dtype is None and entry.dtype == "BF16" and framework == "np":
        raise WeightsError(
            f"{ref} is bfloat16, which numpy does not have", fix='Say dtype="float32" or return_tensors="pt".'
        )
    return np.dtype(NUMPY[entry.dtype if dtype is None else parse_dtype(dtype)])


def mixed(first_ref: MemberRef, first: TensorEntry, ref: MemberRef, name: str, entry: TensorEntry) -> WeightsError:
    """The error that two have different dtypes."""
    return WeightsError(
        f"{name} of {ref} is {entry.dtype}, but {first_ref} is {first.dtype}: mixed dtypes are "
        "converted on request only",
        fix='Say dtype="float32".',
    )


def differ(
    first: MemberRef, other: MemberRef, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> WeightsError:
    """The error that two have different tensors."""
    names = [name for name in expected if found.get(name) != expected[name]] + [n for n in found if n not in expected]
    how = [f"{name} ({_shown(expected.get(name))} and {_shown(found.get(name))})" for name in names]
    return WeightsError(
        f"{first} and {other} have different tensors: {', '.join(how[:8])}{(', ...' if len(how) > 8 else '')}",
        fix='Choose part="backbone", which members of one architecture share, or select(head_type=..., dataset=...).',
    )


def _shapes(header: Header, part: str) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in header.items() if is_in_part(name, part)}


def _shown(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))
