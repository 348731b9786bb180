"""JSON files: read strictly into msgspec structs, and written the same way for the same value.

See `vitzoo.records.members` for the zoo's records, and `vitzoo.records.files` for atomic writes.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vitzoo.errors import FormatVersionError, RecordError, printable
from vitzoo.notebook import as_html, one_line
from vitzoo.records.files import open_regular, reading, write_atomically

_MAX_BYTES = 4 * 2**20  # the paper's largest record is under 1 MB; parsed, a record may take fifty times its bytes
_LONGEST = 300  # characters of msgspec's words in a message
_FIX = "Get the file again."

T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every record. A field that is added later has a default, so that older files stay readable.

    Subclasses repeat ``frozen=True, kw_only=True`` for type checkers.
    """


class ShownRecord(Record, frozen=True, kw_only=True):
    """Base of large records that users hold: a short repr, and a table in a notebook."""

    def __repr__(self) -> str:
        return one_line(
            type(self).__name__, {name: value for name, value in self._facts().items() if value is not None}
        )

    def _facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def _repr_html_(self) -> str:
        return as_html(type(self).__name__, self._facts())


class _Versioned(msgspec.Struct):
    format: int


def as_json(value: object) -> dict[str, Any]:
    """Return a record or a recipe as plain JSON values; tuples become lists."""
    return json.loads(json.dumps(msgspec.to_builtins(value), allow_nan=False))


def json_line(value: object) -> str:
    """Return a record or a JSON value as one line, always the same text for the same value."""
    return json.dumps(msgspec.to_builtins(value), allow_nan=False, ensure_ascii=False, separators=(", ", ": "))


def json_sha256(value: object) -> str:
    """Hash a JSON value regardless of the order of its keys; 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sorted_json(record: object) -> bytes:
    """Return a record as indented JSON with sorted keys: the same bytes for the same record."""
    return (json.dumps(as_json(record), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_json(path: Path, record: object) -> None:
    """Write a record as indented JSON, atomically."""
    write_atomically(path, (json.dumps(as_json(record), indent=1, allow_nan=False) + "\n").encode())


def write_lines(path: Path, records: Iterable[object]) -> None:
    """Write records as JSON lines, atomically."""
    write_atomically(path, "".join(json_line(record) + "\n" for record in records).encode())


def load_record(cls: type[T], path: Path, *, newest: int) -> T:
    """Read a JSON file whose ``format`` names the version of its layout.

    Args:
        cls: A `Record`.
        path: The file.
        newest: The newest version that this library reads.

    Raises:
        FormatVersionError: The file has a newer version.
        RecordError: The file is missing, too large, not JSON, or not such a record.
    """
    return parse_versioned(cls, read_bytes(path), path, newest=newest)


def parse_versioned(cls: type[T], content: bytes, path: Path, *, newest: int) -> T:
    """Parse a file's content, as `load_record` does."""
    try:
        version = msgspec.json.decode(content, type=_Versioned).format
        if version > newest:
            raise FormatVersionError(
                f"{path} has format {version}; this vitzoo reads formats up to {newest}",
                fix="Upgrade vitzoo.",
                path=path,
                found=version,
                supported=newest,
            )
        if version < 1:
            raise RecordError(f"{path}: format is {version}", expected=str(newest), fix=_FIX, path=path)
        if issubclass(cls, msgspec.Struct):
            return msgspec.json.decode(content, type=cls)
        return parse_record(cls, msgspec.json.decode(content), str(path), path)
    except (msgspec.DecodeError, RecursionError) as error:
        raise damaged(str(path), error, path) from None


def parse_record(
    cls: type[T], value: object, where: str, path: Path, *, hook: Callable[[type, Any], Any] | None = None
) -> T:
    """Convert plain JSON values to a record.

    Args:
        cls: A `Record`, or a dataclass.
        value: Parsed JSON.
        where: The name of the value in an error.
        path: The file that it was read from.
        hook: Converts values to fields of other types (``dec_hook`` of msgspec).

    Raises:
        RecordError: A key is unknown or missing, or a value has another type or is out of range.
    """
    try:
        record = msgspec.convert(value, cls, dec_hook=hook)
    except (msgspec.ValidationError, ValueError) as error:
        raise damaged(where, error, path) from None
    unknown = _unknown_field(value, msgspec.to_builtins(record))  # msgspec ignores unknown fields of a dataclass
    if unknown is not None:
        raise damaged(where, ValueError(f"unknown field {unknown}"), path)
    return record


def _unknown_field(value: object, known: object) -> str | None:
    """Return the first key of nested JSON objects that a record does not have."""
    if isinstance(value, dict) and isinstance(known, dict):
        for key, item in value.items():
            field = f"`{key}`" if key not in known else _unknown_field(item, known[key])
            if field is not None:
                return field
    if isinstance(value, list) and isinstance(known, list | tuple):
        return next((field for pair in zip(value, known, strict=False) if (field := _unknown_field(*pair))), None)
    return None


def load_lines(cls: type[T], path: Path) -> list[T]:
    """Read a file of JSON lines.

    Raises:
        RecordError: The file is missing, too large, or a line is not such a record.
    """
    content = read_bytes(path)
    try:
        return msgspec.json.Decoder(cls).decode_lines(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise damaged(str(path), error, path) from None


def read_bytes(path: Path, *, most: int = _MAX_BYTES) -> bytes:
    """Read a small file.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        RecordError: The file is missing, not a regular file, or larger.
        UnreadableError: The system refuses to read it.
    """
    if not path.is_file():
        raise RecordError(f"{path} is missing, or is not a file", fix="Get the folder again.", path=path)
    with reading(path), open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise RecordError(f"{path} has {path.stat().st_size} bytes", expected=f"at most {most}", fix=_FIX, path=path)
    return content


def damaged(where: str, error: Exception, path: Path) -> RecordError:
    """Make a RecordError of an error of msgspec. Text from the file is escaped and cut short."""
    what = printable(str(error))[:_LONGEST].rstrip(".")
    return RecordError(f"{where} is not a valid record: {what}", fix=_FIX, path=path)
