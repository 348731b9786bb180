"""JSON files: read strictly into dataclasses, and written whole or not at all.

What the zoo's own files say is `vitzoo.records`'; nothing here knows them.
"""

import dataclasses
import functools
import hashlib
import json
import os
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from vitzoo.errors import FormatVersionError, RecordError, did_you_mean, printable, shown

_MAX_BYTES = 64 * 2**20  # the paper's largest record is under 1 MB

T = TypeVar("T")


def as_json(record: object) -> dict[str, Any]:
    """A record, or a recipe, as plain JSON values: tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(record), allow_nan=False))  # type: ignore[arg-type]


def json_line(value: object) -> str:
    """A record or a JSON value on one line, always the same text for the same value."""
    plain = as_json(value) if dataclasses.is_dataclass(value) else value
    return json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(", ", ": "))


def json_sha256(value: object) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sorted_json(record: object) -> bytes:
    """A record as indented JSON with sorted keys: the same bytes for the same record."""
    return (json.dumps(as_json(record), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_json(path: Path, record: object) -> None:
    """Write a record as indented JSON, atomically."""
    write_atomically(path, (json.dumps(as_json(record), indent=1, allow_nan=False) + "\n").encode())


def write_lines(path: Path, records: Iterable[object]) -> None:
    """Write records as JSON lines, atomically."""
    write_atomically(path, "".join(json_line(record) + "\n" for record in records).encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it holds, whatever happens, either all of the old bytes or all of the new."""
    partial = partial_path(path)
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """What a file is called while it is written; left behind where the process ended meanwhile."""
    return path.with_name(f".{path.name}.partial")


def parse_record(cls: type[T], value: object, where: str, path: Path) -> T:
    """A dataclass from plain JSON, strictly typed: the inverse of `as_json`.

    Args:
        cls: A dataclass whose fields are JSON types, Literals, tuples, dicts or further dataclasses.
        value: Parsed JSON.
        where: What to call it in an error.
        path: The file that it was read from.

    Raises:
        RecordError: A key is unknown or missing, a value has another type, or the dataclass refuses it.
    """
    if not isinstance(value, dict):
        raise RecordError(f"{where}: expected an object, found {type(value).__name__}.", path=path)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            raise RecordError(f"{where}: unknown key {shown(key)}.{did_you_mean(key, fields)}", path=path)
    hints = _hints(cls)
    parsed = {}
    for name, field in fields.items():
        if name in value:
            parsed[name] = _convert(hints[name], value[name], f"{where}: {name}", path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecordError(f'{where}: "{name}" is missing.', path=path)
    try:
        return cls(**parsed)
    except ValueError as error:  # of its __post_init__
        raise RecordError(f"{where}: {printable(str(error)).rstrip('.')}. Get the file again.", path=path) from error


def parse_versioned_record(cls: type[T], text: str, path: Path, *, newest: int) -> T:
    """A dataclass from a file's JSON text, whose ``format`` says which version of the layout it has.

    Args:
        cls: As `parse_record`.
        text: The file's text.
        path: The file, for errors.
        newest: The newest version that is read.

    Raises:
        FormatVersionError: It is of a newer one.
        RecordError: It is no such record.
    """
    value = parse_json(text, str(path), path)
    found = value.get("format") if isinstance(value, dict) else None
    if type(found) is int and found > newest:
        raise FormatVersionError(
            f"{path} has format {found}; this vitzoo reads formats up to {newest}. Upgrade vitzoo.",
            path=path,
            found=found,
            supported=newest,
        )
    if isinstance(value, dict) and (type(found) is not int or found < 1):
        raise RecordError(f"{path}: format is {shown(found)}; expected {newest}.", path=path)
    return parse_record(cls, value, str(path), path)


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        RecordError: It is missing, no file, too large, or no UTF-8.
    """
    if not path.is_file():
        raise RecordError(f"{path} is missing, or no file. Get the folder again.", path=path)
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise RecordError(f"{path} has {size} bytes; a record has at most {_MAX_BYTES}.", path=path)
    try:
        return path.read_bytes().decode("utf-8")  # as it stands: a digest is of the bytes
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is no UTF-8 text: {error}. The file is damaged.", path=path) from None


def parse_json(text: str, where: str, path: Path) -> Any:
    """A JSON value that can be written again.

    Args:
        text: The JSON.
        where: What to call it in an error.
        path: The file that it was read from.

    Raises:
        RecordError: It is no JSON, or holds what JSON has no word for.
    """

    def refuse(constant: str):
        raise RecordError(
            f"{where}: {constant} is no JSON number; null stands for a value that is not there.", path=path
        )

    try:
        value = json.loads(text, parse_constant=refuse)
        # 1e999, half a surrogate pair, nesting at the limit: what could not be written again.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{where} is no JSON: {error}. The file is damaged.", path=path) from None
    return value


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields: to resolve them costs more than to read a record."""
    return typing.get_type_hints(cls)


def _convert(hint: Any, value: Any, where: str, path: Path) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return parse_record(hint, value, where, path)
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        (hint,) = [argument for argument in arguments if argument is not types.NoneType]
        return _convert(hint, value, where, path)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(arguments[0], item, f"{where}[{i}]", path) for i, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {key: _convert(arguments[1], item, f"{where}.{shown(key)}", path) for key, item in value.items()}
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if hint is int and type(value) is int and -(2**63) <= value < 2**63:  # as a table's column
        return value
    if isinstance(hint, type) and hint is not int and isinstance(value, hint):
        return value
    expected = " or ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise RecordError(f"{where} is {shown(value)}; expected {expected}.", path=path)
