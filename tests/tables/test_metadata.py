"""The tables: declared types, rows of the records, and no stale cache."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from msgspec import structs

from vitzoo import Zoo, records
from vitzoo.records import json_files
from vitzoo.tables.cards import escape_markdown
from vitzoo.tables.catalogue import build_tables, write_tables
from vitzoo.tables.columns import EPOCHS, MEMBERS, TABLES

ARROW_TO_HF = {"string": "string", "int64": "int64", "double": "float64", "bool": "bool"}


@pytest.fixture(autouse=True)
def _one_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets-cache"))


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    return load_dataset(str(folder / "metadata"), table)["train"].to_list()


def test_load_dataset_gives_typed_columns(tiny_zoo: Path) -> None:
    for name, columns in TABLES.items():
        found = load_dataset(str(tiny_zoo / "metadata"), name)
        assert list(found) == ["train"]
        features = found["train"].features
        assert list(features) == list(columns)
        for column, spec in columns.items():
            feature = features[column]
            if str(spec.type).startswith("list"):
                assert feature.feature.dtype == "string", column
            else:
                assert feature.dtype == ARROW_TO_HF[str(spec.type)], column


def test_members_are_the_records(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    found = {row["id"]: row for row in rows(tiny_zoo, "members")}
    assert list(found) == [str(member.id) for member in zoo]
    for member in zoo:
        row, record, last = found[str(member.id)], member.record, member.metrics[-1]
        for column in set(MEMBERS) & set(record.__struct_fields__) - {"versions"}:
            value = getattr(record, column)
            assert row[column] == (list(value) if isinstance(value, tuple) else value), column
        assert (row["bytes"], row["sha256"]) == (record.final_weights.size, record.final_weights.sha256)
        assert row["final_test_accuracy"] == last.test_accuracy
        assert row["final_val_knn_accuracy"] == last.val_knn_accuracy
        assert "torch==2." in row["versions"]
        if member.id.is_parent and record.objective == "contrastive":
            assert (row["gap"], row["best_val_epoch"], row["test_accuracy_at_best_val"]) == (None, None, None)
            continue
        assert row["gap"] == (last.train_accuracy or 0) - (last.test_accuracy or 0)
        best = max(member.metrics, key=lambda epoch: (epoch.val_accuracy, -epoch.epoch))
        assert (row["best_val_epoch"], row["test_accuracy_at_best_val"]) == (best.epoch, best.test_accuracy)


def test_epochs_are_the_records(tiny_zoo: Path) -> None:
    found = rows(tiny_zoo, "epochs")
    expected = [(str(member.id), record) for member in Zoo(tiny_zoo) for record in member.metrics]
    assert len(found) == len(expected) == 33
    for row, (member, record) in zip(found, expected, strict=True):
        assert row["id"] == member
        assert row["bytes"] == (tiny_zoo / member / f"model.epoch-0{record.epoch}.safetensors").stat().st_size
        assert row["dtype"] == "float32"
        for column in EPOCHS.keys() - {"id", "bytes", "dtype"}:
            assert row[column] == getattr(record, column), column


def test_earliest_of_equal_epochs_is_best(tiny_copy: Path) -> None:
    file = tiny_copy / "pt-0/ft-0/metrics.jsonl"
    epochs = [structs.replace(epoch, val_accuracy=0.5) for epoch in records.load_epoch_records(file)]
    json_files.write_lines(file, epochs)
    row = build_tables(Zoo(tiny_copy).source)["members"].to_pylist()[1]
    assert (row["id"], row["best_val_epoch"], row["test_accuracy_at_best_val"]) == (
        "pt-0/ft-0",
        0,
        epochs[0].test_accuracy,
    )


def test_changed_folder_gives_its_new_rows(tiny_zoo: Path, tmp_path: Path) -> None:
    other, here = tmp_path / "other" / "zoo", tmp_path / "here" / "zoo"
    for folder in (other, here):
        shutil.copytree(tiny_zoo, folder)
    for parent in ("pt-1", "pt-2"):
        shutil.rmtree(other / parent)
    write_tables(Zoo(other).source)
    assert (len(rows(here, "members")), len(rows(other, "members"))) == (11, 5)
    shutil.rmtree(here / "pt-2")
    write_tables(Zoo(here).source)  # the same folder, other rows
    assert len(rows(here, "members")) == 8
    assert len(rows(here, "epochs")) == 24
    shutil.rmtree(here)
    shutil.copytree(other, here)  # the same folder, another zoo
    assert len(rows(here, "members")) == 5
    assert len(rows(tiny_zoo, "members")) == 11


def test_rebuilding_changes_no_byte(tiny_copy: Path) -> None:
    before = {file.name: file.read_bytes() for file in (tiny_copy / "metadata").iterdir()}
    write_tables(Zoo(tiny_copy).source)
    assert {file.name: file.read_bytes() for file in (tiny_copy / "metadata").iterdir()} == before
    assert set(before) == {"README.md", "members.parquet", "epochs.parquet", "splits.parquet"}


def test_card_explains_every_column(tiny_zoo: Path) -> None:
    card = (tiny_zoo / "metadata/README.md").read_text()
    for name, columns in TABLES.items():
        assert f"## {name} ({pq.read_metadata(tiny_zoo / f'metadata/{name}.parquet').num_rows} rows)" in card
        for column, spec in columns.items():
            assert f"| {column} | " in card
            assert escape_markdown(spec.meaning) in card
