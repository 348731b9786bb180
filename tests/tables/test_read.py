"""Tables that are read from hostile files: bounded, and refused with a typed error."""

import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.published import manifest_of, zoo_files
from tests.test_cli import Here
from vitzoo import Zoo
from vitzoo.errors import AuthenticityError, RecordError
from vitzoo.records import layout
from vitzoo.tables.columns import MEMBERS
from vitzoo.tables.parquet import ParquetError, measure_parquet
from vitzoo.tables.read import load_table


def encode(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def test_a_table_is_measured(tiny_zoo: Path) -> None:
    for name in ("members", "epochs", "splits"):
        content = (tiny_zoo / layout.table_file(name)).read_bytes()
        table = pq.read_table(io.BytesIO(content))
        size = measure_parquet(content)
        assert size.rows == len(table)
        metadata = pq.read_metadata(io.BytesIO(content))
        chunks = [metadata.row_group(0).column(column) for column in range(metadata.num_columns)]
        dictionaries = sum(chunk.has_dictionary_page for chunk in chunks)
        assert size.values >= sum(chunk.num_values for chunk in chunks) + dictionaries
        # Headers of pages are not counted: a few dozen bytes each.
        assert 0 < sum(chunk.total_uncompressed_size for chunk in chunks) - size.bytes < 64 * 2 * len(chunks)


def test_no_damaged_byte_ends_the_process(tiny_copy: Path) -> None:
    """Byte 515 was 37 and became 36 in one zoo: its footer then named an encoding that pyarrow does not know."""
    file = tiny_copy / layout.table_file("splits")
    content = file.read_bytes()
    source = Zoo(tiny_copy).source
    refused = 0
    numbers = [place for place in range(len(content) // 2, len(content)) if content[place] in (2, 37)]
    for place in numbers:  # small numbers and lists of numbers
        file.write_bytes(content[:place] + bytes([(content[place] - 1) % 256]) + content[place + 1 :])
        with suppress(RecordError):
            load_table(source, "splits")
            refused -= 1
        refused += 1
    assert 0 < refused < len(numbers)


def test_a_row_of_many_texts_is_refused(tiny_copy: Path) -> None:
    file = tiny_copy / layout.table_file("members")
    table = pq.read_table(file)
    for column in ("classes", "deviations"):
        place = table.schema.get_field_index(column)
        texts = pa.DictionaryArray.from_arrays(_zeros(2**22), [""])
        lists = pa.ListArray.from_arrays(pa.array([0] + [2**22] * len(table), pa.int32()), texts)
        file.write_bytes(encode(table.set_column(place, column, lists), store_schema=False))
        assert file.stat().st_size < 2**16
        with pytest.raises(RecordError, match="values") as raised:
            load_table(Zoo(tiny_copy).source, "members")
        assert raised.value.path == file


def _zeros(count: int) -> pa.Array:
    return pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(bytes(4 * count))])


def test_a_text_that_repeats_is_counted_in_every_row(tiny_copy: Path) -> None:
    file = tiny_copy / layout.table_file("splits")
    table = pq.read_table(file).slice(0, 1)
    for rows, refused in ((1000, False), (10_000, True)):
        texts = pa.DictionaryArray.from_arrays(_zeros(rows), ["x" * 2**14])
        columns = {name: table.column(name).take(_zeros(rows)) for name in table.column_names} | {"fold": texts}
        file.write_bytes(encode(pa.table(columns), store_schema=False))
        if not refused:
            assert load_table(Zoo(tiny_copy).source, "splits").num_rows == rows
            continue
        with pytest.raises(RecordError, match="bytes of text") as raised:
            load_table(Zoo(tiny_copy).source, "splits")
        assert raised.value.expected == f"at most {2**27}"


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"PAR1" + b"\xff" * 8 + b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"PAR1\x1c" + b"\x1c" * 99],
)
def test_other_bytes_are_not_parquet(content: bytes) -> None:
    with pytest.raises(ParquetError):
        measure_parquet(content)
    deep = b"\x1c" * 2000  # structs in structs
    with pytest.raises(ParquetError):
        measure_parquet(b"PAR1" + deep + len(deep).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"garbage" * 1000,
        lambda content: content[:4] + content[-5:3:-1] + content[-4:],
    ],
    ids=["empty", "half", "a byte short", "text", "reversed"],
)
def test_damaged_table_is_an_error_and_a_problem(
    damage: Callable[[bytes], bytes],
    tiny_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tiny_copy / layout.table_file("members")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(RecordError) as raised:
        load_table(Zoo(tiny_copy).source, "members")
    assert raised.value.path == file
    done = Here(monkeypatch, capsys)("verify", str(tiny_copy))
    assert (done.returncode, done.stderr) == (1, "")
    assert raised.value.problem in done.stdout
    assert "1 problem, in 0 members" in done.stdout


def test_text_that_is_not_utf_8_is_refused(tiny_copy: Path) -> None:
    file = tiny_copy / layout.table_file("splits")
    table = pq.read_table(file)
    bad = pa.array([b"\xff"] * len(table), pa.binary()).view(pa.string())
    file.write_bytes(encode(table.set_column(1, "fold", bad)))
    with pytest.raises(RecordError):
        load_table(Zoo(tiny_copy).source, "splits")


def test_a_table_is_hashed_before_it_is_parsed(tiny_copy: Path) -> None:
    manifest = manifest_of(tiny_copy, zoo_files(tiny_copy))
    (tiny_copy / layout.MANIFEST).write_bytes(manifest.to_bytes())
    source = Zoo(tiny_copy).source
    assert load_table(source, "splits").num_rows > 0
    file = tiny_copy / layout.table_file("splits")
    file.write_bytes(b"PAR1")
    with pytest.raises(AuthenticityError, match="truncated") as raised:
        load_table(source, "splits")
    assert raised.value.path == file


def test_an_empty_table_is_read(tiny_copy: Path) -> None:
    file = tiny_copy / layout.table_file("epochs")
    file.write_bytes(encode(pq.read_table(file).slice(0, 0)))
    assert load_table(Zoo(tiny_copy).source, "epochs").num_rows == 0


def test_columns_without_values_keep_their_type(tiny_zoo: Path) -> None:
    """A zoo without a diverged member has the columns of one with it."""
    table = load_table(Zoo(tiny_zoo).source, "members")
    empty = {name for name in table.column_names if table.column(name).null_count == len(table)}
    assert empty >= {"diverged_step", "last_good_epoch"}
    assert all(table.schema.field(name).type == MEMBERS[name].type for name in empty)


def test_a_manifest_that_is_not_a_file_is_not_absent(tiny_copy: Path) -> None:
    os.mkfifo(tiny_copy / layout.MANIFEST)
    with pytest.raises(RecordError):
        load_table(Zoo(tiny_copy).source, "epochs")
