"""Read the tables of a published zoo: bounded in size, with the declared columns, and back as records.

See `vitzoo.tables.columns` for the columns, and `vitzoo.tables.build` for how tables are made.
"""

import hashlib
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vitzoo import records
from vitzoo.errors import AuthenticityError, RecordError, VitZooError, advise, printable, shown
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.files import describe_difference
from vitzoo.records.json_files import Record, parse_record, read_bytes
from vitzoo.records.manifest import Manifest
from vitzoo.sources.source import ZooSource
from vitzoo.tables.columns import EXTRA_TYPES, TABLES
from vitzoo.tables.parquet import measure_parquet

_MAX_FILE_BYTES = 2**25  # the paper's epochs table has 13,150 rows and 3 MB
_MAX_BYTES = 2**27  # decompressed, and of all texts where they repeat
_MAX_VALUES = 2**22  # of all columns and lists; as Python objects, some 60 bytes each
_MAX_TEXT = 2**14  # bytes of one value
_LONGEST = 200  # characters of pyarrow's words in a message
KEYS = {"members": ("id",), "epochs": ("id", "epoch"), "splits": ("scheme", "fold", "id")}  # unique in each table
REBUILD = advise(
    repository="Write the tables again: python -m training run.",
    wheel="Get the zoo again, or run the command that made it again.",
)
_EXTRA_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)


def load_table(source: ZooSource, name: str) -> pa.Table:
    """Read a table of a zoo.

    Args:
        source: The zoo.
        name: One of `vitzoo.tables.columns.TABLES`.

    Raises:
        AuthenticityError: The file differs from the zoo's manifest.
        RecordError: The file is missing, damaged, too large, or does not have the declared columns.
    """
    relative = layout.table_file(name)
    path = source.path(relative)
    if not path.is_file():
        raise RecordError(f"{path} is missing", fix=REBUILD, path=path)
    content = read_bytes(path, most=_MAX_FILE_BYTES)
    expected = source.manifest.files.get(str(relative)) if source.manifest is not None else None
    if expected is not None:  # before anything parses the bytes
        sha256 = hashlib.sha256(content).hexdigest()
        difference = describe_difference(expected, size=len(content), sha256=sha256, by=f"manifest of {source.name}")
        if difference is not None:
            raise AuthenticityError(f"{path} {difference}", fix="Get the file again.", path=path)
    try:
        size = measure_parquet(content)
        if size.bytes > _MAX_BYTES or max(size.values, size.rows) > _MAX_VALUES:
            raise _damaged(path, f"it would have {size.rows} rows, {size.values} values and {size.bytes} bytes")
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            schema = file.schema_arrow
        _check_columns(schema, name, path)
        return _read_bounded(content, path, schema.remove_metadata())
    except VitZooError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise _damaged(path, printable(str(error))[:_LONGEST]) from None


def _check_columns(schema: pa.Schema, name: str, path: Path) -> None:
    """Refuse a table without the declared columns in their order, or with others than ``extra`` may add."""
    declared = pa.schema([(column, spec.type) for column, spec in TABLES[name].items()])
    extra = [schema.field(i) for i in range(len(declared), len(schema.names))]
    are_declared = len(schema.names) >= len(declared) and all(
        schema.field(i).equals(field) for i, field in enumerate(declared)
    )
    are_extra = name != "splits" and all(
        _EXTRA_NAME.fullmatch(field.name) and field.type in EXTRA_TYPES.values() for field in extra
    )
    if not are_declared or (extra and not are_extra) or len(set(schema.names)) != len(schema.names):
        raise _damaged(path, "it does not have the columns of the format")


def _read_bounded(content: bytes, path: Path, expected: pa.Schema) -> pa.Table:
    """Read a table; check the length of each distinct text first, because a small file may repeat a long one."""
    texts = [field.name for field in expected if pa.types.is_string(field.type)]
    lists = [f"{field.name}.list.element" for field in expected if pa.types.is_list(field.type)]
    with pq.ParquetFile(pa.BufferReader(content), read_dictionary=[*texts, *lists]) as file:
        table = file.read()
    table.validate(full=True)
    size = 0
    for column in table.columns:
        for chunk in column.chunks:
            values = chunk.values if pa.types.is_list(chunk.type) else chunk
            if isinstance(values, pa.DictionaryArray):
                lengths = pc.call_function("binary_length", [values.dictionary])
                if (pc.call_function("max", [lengths]).as_py() or 0) > _MAX_TEXT:
                    raise _damaged(path, f"it holds a text of over {_MAX_TEXT} bytes")
                size += pc.call_function("sum", [lengths.take(values.indices)]).as_py() or 0
    if size > _MAX_BYTES:
        raise _damaged(path, f"it holds {size} bytes of text", expected=f"at most {_MAX_BYTES}")
    table = table.cast(expected)
    table.validate(full=True)
    return table


def load_published_table(source: ZooSource, name: str, manifest: Manifest) -> pa.Table:
    """Read a table of a published zoo, with rows of exactly the members in its manifest.

    Raises:
        AuthenticityError: As `load_table`.
        RecordError: As `load_table`; or it has rows of other members, duplicate rows, or no row of a member.
    """
    table, path = load_table(source, name), source.path(layout.table_file(name))
    ids, existing = table.column("id").unique().to_pylist(), set(map(str, manifest.member_ids))
    for text in ids:
        if text not in existing:
            raise RecordError(
                f"{path} has {shown(text)}, which the manifest does not name",
                fix="Do not trust it, or publish again.",
                path=path,
            )
    keys = list(zip(*(table.column(column).to_pylist() for column in KEYS[name]), strict=True))
    if len(set(keys)) != len(keys) or any(None in key for key in keys):
        raise _damaged(path, "it has duplicate rows, or rows without a key")
    missing = [] if name == "splits" else [member for member in manifest.member_ids if str(member) not in ids]
    if missing:
        raise RecordError(
            f"{path} has no row of {missing[0]}, which the manifest names", fix="Publish the zoo again.", path=path
        )
    return table


def parse_member_records(table: pa.Table, manifest: Manifest, path: Path) -> dict[MemberId, records.MemberRecord]:
    """Convert the members table to records. The manifest says which weights files exist.

    Raises:
        RecordError: A row is not a valid record.
    """
    parsed = {}
    for row in table.to_pylist():
        where, member = f"{path}, {shown(row['id'])}", MemberId.parse(row["id"])
        values = _own_values(records.MemberRecord, "members", row, path)
        values["versions"] = dict(_pair(requirement, where, path) for requirement in (row["versions"] or "").split())
        values["weights"] = [
            {"epoch": epoch, "size": size, "sha256": manifest.files[str(layout.weights_file(member, epoch))].sha256}
            for epoch, size in manifest.weights_sizes(member).items()
        ]
        parsed[member] = parse_record(records.MemberRecord, values, where, path)
    return parsed


def parse_epoch_records(table: pa.Table, path: Path) -> dict[MemberId, list[records.EpochRecord]]:
    """Convert the epochs table to every member's metrics, epochs ascending.

    Raises:
        RecordError: A row is not a valid record.
    """
    parsed: dict[MemberId, list[records.EpochRecord]] = defaultdict(list)
    for row in table.to_pylist():
        where = f"{path}, {shown(row['id'])} epoch {shown(row['epoch'])}"
        values = _own_values(records.EpochRecord, "epochs", row, path)
        parsed[MemberId.parse(row["id"])].append(parse_record(records.EpochRecord, values, where, path))
    for metrics in parsed.values():
        metrics.sort(key=lambda record: record.epoch)
    return dict(parsed)


def _own_values(record: type[Record], table: str, row: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the values of a row that are fields of a record, undeclared columns as its ``extra``."""
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):  # no record can say so, and ranges let NaN pass
            raise _damaged(path, f"{shown(row['id'])} has {name} {value}", expected="a finite number")
    extra = {name: value for name, value in row.items() if name not in TABLES[table] and value is not None}
    return {name: row[name] for name in record.__struct_fields__ if name in row} | {"extra": extra}


def _pair(requirement: str, where: str, path: Path) -> tuple[str, str]:
    name, separator, version = requirement.partition("==")
    if not separator:
        raise RecordError(f"{where}: versions has {shown(requirement)}", expected="name==version", path=path)
    return name, version


def _damaged(path: Path, problem: str, *, expected: str | None = None) -> RecordError:
    return RecordError(
        f"{path} is not a table of a zoo: {problem}",
        expected=expected,
        fix="Get the file again, or write the tables again.",
        path=path,
    )
