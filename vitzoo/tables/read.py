"""Read the tables of a published zoo: bounded in size, with the declared columns, and back as records.

See `vitzoo.tables.columns` for the columns, and `vitzoo.tables.build` for how tables are made.
"""

import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vitzoo import records
from vitzoo.errors import RecordError, shown
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.json_files import Record, parse_record
from vitzoo.records.manifest import Manifest
from vitzoo.sources.source import ZooSource
from vitzoo.tables.columns import EXTRA_TYPES, TABLES

_MAX_FILE_BYTES = 2**25  # the paper's epochs table has 13,150 rows and 3 MB
_MAX_BYTES = 2**28  # decompressed, according to the footer
_MAX_VALUES = 2**25  # of all columns
_MAX_TEXT = 2**14  # characters of one value
_KEYS = {"members": ("id",), "epochs": ("id", "epoch"), "splits": ("scheme", "fold", "id")}  # unique in each table
_EXTRA_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_CODECS = ("SNAPPY", "UNCOMPRESSED")  # at most some 20 bytes from one


def load_table(source: ZooSource, name: str) -> pa.Table:
    """Read a table of a zoo.

    Args:
        source: The zoo.
        name: One of `vitzoo.tables.columns.TABLES`.

    Raises:
        RecordError: The file is missing, damaged, too large, or does not have the declared columns.
    """
    path = source.path(layout.table_file(name))
    if not path.is_file():
        raise RecordError(f"{path} is missing", fix="Write the tables again: python -m training run.", path=path)
    size = path.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise _damaged(path, f"it has {size} bytes", expected=f"at most {_MAX_FILE_BYTES}")
    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
            size, values = sum(group.total_byte_size for group in groups), sum(chunk.num_values for chunk in chunks)
            if size > _MAX_BYTES or values > _MAX_VALUES or file.metadata.num_rows > _MAX_VALUES:
                raise _damaged(path, f"it would have {values} values and {size} bytes")
            if any(chunk.compression not in _CODECS for chunk in chunks):
                raise _damaged(path, "its compression is not the one that vitzoo uses")
            schema = file.schema_arrow
            _check_columns(schema, name, path)
        return _read_bounded(path, schema.remove_metadata())
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, shown(str(error))) from None


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


def _read_bounded(path: Path, expected: pa.Schema) -> pa.Table:
    """Read a table; check the length of each distinct text first, because a small file may repeat a long one."""
    texts = [field.name for field in expected if pa.types.is_string(field.type)]
    lists = [f"{field.name}.list.element" for field in expected if pa.types.is_list(field.type)]
    with pq.ParquetFile(path, read_dictionary=[*texts, *lists]) as file:
        table = file.read()
    for column in table.columns:
        for chunk in column.chunks:
            values = chunk.values if pa.types.is_list(chunk.type) else chunk
            if isinstance(values, pa.DictionaryArray):
                values = values.dictionary
            if pa.types.is_string(values.type) and any(len(text.as_py() or "") > _MAX_TEXT for text in values):
                raise _damaged(path, f"it holds a text of over {_MAX_TEXT} characters")
    return table.cast(expected)


def load_published_table(source: ZooSource, name: str, manifest: Manifest) -> pa.Table:
    """Read a table of a published zoo, with rows of exactly the members in its manifest.

    Raises:
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
    keys = list(zip(*(table.column(column).to_pylist() for column in _KEYS[name]), strict=True))
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
