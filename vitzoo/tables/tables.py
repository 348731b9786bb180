"""The zoo's tables, read back: bounded, of the declared schema, and as the records that they were built from.

What the columns mean, and how the tables are built, is `vitzoo.tables.metadata`'s business.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vitzoo import records
from vitzoo.errors import RecordError, shown
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.json_files import parse_record
from vitzoo.records.manifest import Manifest
from vitzoo.sources.source import ZooSource
from vitzoo.tables.metadata import TABLES

_MAX_FILE_BYTES = 2**25  # the paper's epochs table has 13,150 rows and 3 MB
_MAX_BYTES = 2**28  # decompressed, as the footer claims
_MAX_VALUES = 2**25  # of all columns
_MAX_TEXT = 2**14  # characters of one value
_KEYS = {"members": ("id",), "epochs": ("id", "epoch"), "splits": ("scheme", "fold", "id")}  # what tells rows apart
_CODECS = ("SNAPPY", "UNCOMPRESSED")  # at most some 20 bytes from one


def load_table(source: ZooSource, name: str) -> pa.Table:
    """A table of a zoo.

    Args:
        source: The zoo.
        name: One of `vitzoo.tables.metadata.TABLES`.

    Raises:
        RecordError: The file is missing, damaged, too large, or has other columns than `vitzoo.tables.metadata`
            declares.
    """
    path = source.path(layout.table_file(name))
    if not path.is_file():
        raise RecordError(f"{path} is missing. Write the tables again: python -m training run.", path=path)
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise _damaged(path, f"it has {path.stat().st_size} bytes; {_MAX_FILE_BYTES} are the most that a table has")
    expected = pa.schema([(column, spec.type) for column, spec in TABLES[name].items()])
    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
            size, values = sum(group.total_byte_size for group in groups), sum(chunk.num_values for chunk in chunks)
            if size > _MAX_BYTES or values > _MAX_VALUES or file.metadata.num_rows > _MAX_VALUES:
                raise _damaged(path, f"it would have {values} values and {size} bytes")
            if any(chunk.compression not in _CODECS for chunk in chunks):
                raise _damaged(path, "it is compressed otherwise than vitzoo writes it")
            if not file.schema_arrow.equals(expected):
                raise _damaged(path, "its columns are not those of the format")
        return _read_bounded(path, expected)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, shown(str(error))) from None


def _read_bounded(path: Path, expected: pa.Schema) -> pa.Table:
    """The table, each different text once until it is known that none is long: a small file may repeat a long one."""
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
    """A table of a published zoo whose rows are of the members that its manifest names.

    Raises:
        RecordError: As `load_table`; or it has rows of other members, two of the same, or a member has none.
    """
    table, path = load_table(source, name), source.path(layout.table_file(name))
    members = {
        _named(text, manifest, f"{path}, {shown(text)}", path) for text in table.column("id").unique().to_pylist()
    }
    keys = list(zip(*(table.column(column).to_pylist() for column in _KEYS[name]), strict=True))
    if len(set(keys)) != len(keys) or any(None in key for key in keys):
        raise _damaged(path, "it has two rows of the same, or one of nothing")
    missing = [] if name == "splits" else [member for member in manifest.member_ids if member not in members]
    if missing:
        raise _no_row(path, missing[0])
    return table


def load_member_records(source: ZooSource, manifest: Manifest) -> dict[MemberId, records.MemberRecord]:
    """Every member's record, from the members table; which weights there are says the manifest.

    Raises:
        RecordError: A row is no record, or table and manifest name different members.
    """
    path = source.path(layout.table_file("members"))
    found = {}
    for row in load_table(source, "members").to_pylist():
        where = f"{path}, {shown(row['id'])}"
        member = _named(row["id"], manifest, where, path)
        values: dict[str, Any] = {name: row[name] for name in records.MemberRecord.__dataclass_fields__ if name in row}
        values["versions"] = dict(_pair(requirement, where, path) for requirement in (row["versions"] or "").split())
        files = {
            epoch: manifest.files[str(layout.weights_file(member, epoch))] for epoch in manifest.kept_epochs(member)
        }
        values["dataset_spec"] = None
        values["weights"] = [{"epoch": e, "size": file.size, "sha256": file.sha256} for e, file in files.items()]
        found[member] = parse_record(records.MemberRecord, values, where, path)
    missing = [member for member in manifest.member_ids if member not in found]
    if missing:
        raise _no_row(path, missing[0])
    return found


def load_epoch_records(source: ZooSource, manifest: Manifest) -> dict[MemberId, list[records.EpochRecord]]:
    """Every member's figures by epoch, from the epochs table.

    Raises:
        RecordError: A row is no record, or of a member that the manifest does not name.
    """
    path = source.path(layout.table_file("epochs"))
    found: dict[MemberId, list[records.EpochRecord]] = defaultdict(list)
    for row in load_table(source, "epochs").to_pylist():
        where = f"{path}, {shown(row['id'])} epoch {shown(row['epoch'])}"
        member = _named(row["id"], manifest, where, path)
        values = {name: row[name] for name in records.EpochRecord.__dataclass_fields__}
        found[member].append(parse_record(records.EpochRecord, values, where, path))
    for figures in found.values():
        figures.sort(key=lambda record: record.epoch)
    return dict(found)


def _named(text: Any, manifest: Manifest, where: str, path: Path) -> MemberId:
    named = isinstance(text, str) and MemberId.match(text)
    if not named or layout.member_file(named) not in manifest:
        raise RecordError(f"{where}: the manifest names no such member. Do not trust it, or publish again.", path=path)
    return named


def _no_row(path: Path, member: MemberId) -> RecordError:
    return RecordError(f"{path} has no row of {member}, which the manifest names. Publish the zoo again.", path=path)


def _pair(requirement: str, where: str, path: Path) -> tuple[str, str]:
    name, separator, version = requirement.partition("==")
    if not separator:
        raise RecordError(f"{where}: versions holds {shown(requirement)}; expected name==version.", path=path)
    return name, version


def _damaged(path: Path, what: str) -> RecordError:
    return RecordError(
        f"{path} is no table of a zoo: {what}. Get the file again, or write the tables again.", path=path
    )
