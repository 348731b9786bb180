"""Damage a zoo: change files, records and tables, with or without the records of them."""

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from tests.published import manifest_of, zoo_files
from vitzoo import Zoo
from vitzoo.architectures import is_head
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs
from vitzoo.records.files import file_sha256
from vitzoo.records.manifest import Manifest
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.build import describe_table, encode_table
from vitzoo.tables.cards import dataset_card
from vitzoo.tables.catalogue import build_tables, write_tables
from vitzoo.tensors.content import load_content

Fault = Callable[[Path], object]
PARENT, CHILD, MLP, LAST = "pt-0", "pt-0/ft-0", "pt-0/ft-1", "pt-0/ft-2"


def weights(zoo: Path, member: str, epoch: int | None) -> Path:
    return zoo / layout.weights_file(MemberId.parse(member), epoch)


def change(zoo: Path, member: str, epoch: int | None, edit: Callable[[bytearray], Any]) -> None:
    """Change a weights file, and no other name of the same bytes."""
    file = weights(zoo, member, epoch)
    content = bytearray(file.read_bytes())
    edit(content)
    file.unlink()
    file.write_bytes(content)


def flip(zoo: Path, member: str = CHILD, epoch: int | None = 1) -> None:
    """Change a bit in the last tensor."""
    change(zoo, member, epoch, lambda content: content.__setitem__(-4, content[-4] ^ 1))


def edit_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_lines(file: Path, edit: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the records of a metrics.jsonl."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    edit(lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def record_again(zoo: Path, member: str = CHILD, epoch: int | None = 1, *, also: str = "") -> None:
    """Write the size and hash of a changed weights file into member.json, or its measures into metrics.jsonl too."""
    file, record_file = weights(zoo, member, epoch), zoo / member / "member.json"
    record = json.loads(record_file.read_text())
    (entry,) = [weights for weights in record["weights"] if weights["epoch"] == epoch]
    entry |= {"size": file.stat().st_size, "sha256": file_sha256(file)}
    record_file.write_text(json.dumps(record))
    if also == "metrics":
        content = load_content(file, is_head=is_head, start=weights(zoo, member, 0))
        ids: dict[str, Any] = {"weights_id": content.weights_id, "backbone_id": content.backbone_id}
        if not content.not_finite:
            ids |= {"weight_norm": content.weight_norm, "distance_from_start": content.distance_from_start}
        edit_lines(zoo / member / "metrics.jsonl", lambda lines: lines[-1 if epoch is None else epoch].update(ids))
    write_tables(FolderSource(zoo))


def edit_record(zoo: Path, member: str = CHILD, **changes: object) -> None:
    """Change a member.json, and the tables with it."""
    edit_json(zoo / member / "member.json", **changes)
    write_tables(FolderSource(zoo))


def edit_metrics(zoo: Path, epoch: int, **changes: object) -> None:
    """Change a line of a metrics.jsonl, and the tables with it."""
    edit_lines(zoo / CHILD / "metrics.jsonl", lambda lines: lines[epoch].update(changes))
    write_tables(FolderSource(zoo))


def edit_table(zoo: Path, name: str, edit: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the rows of a table, and its card with it."""
    tables = build_tables(FolderSource(zoo))
    rows = tables[name].to_pylist()
    edit(rows)
    tables[name] = pa.Table.from_pylist(rows, schema=tables[name].schema)
    write_card(zoo, tables)


def write_card(zoo: Path, tables: dict[str, pa.Table]) -> None:
    """Write tables with a card that names their digests."""
    contents = {name: encode_table(table) for name, table in tables.items()}
    for name, content in contents.items():
        (zoo / layout.table_file(name)).write_bytes(content)
    described = [describe_table(name, table, contents[name]) for name, table in tables.items()]
    recipe = str(FolderSource(zoo).record.recipe["name"])
    (zoo / layout.METADATA_README).write_text(dataset_card(described, recipe=recipe))


def publish(zoo: Path, *, epochs: str = "all") -> str:
    """Write a card, the published tables and the manifest, as publishing does, and return the digest."""
    (zoo / "README.md").write_text("# tiny\n")
    write_card(zoo, build_tables(FolderSource(zoo), epochs=Epochs(epochs)))
    files = zoo_files(zoo)
    for name in list(files):
        file = PurePosixPath(name).name
        if layout.is_weights_name(file) and not Epochs(epochs).of([layout.parse_weights_name(file)]):
            del files[name]
    return write_manifest(zoo, manifest_of(zoo, files, epochs=epochs))


def write_manifest(zoo: Path, manifest: Manifest) -> str:
    (zoo / layout.MANIFEST).write_bytes(manifest.to_bytes())
    return manifest.digest


def edit_manifest(zoo: Path, *, without: str = "", **changes: Any) -> None:
    """Publish, and change the manifest."""
    publish(zoo)
    manifest = Zoo(zoo).source.manifest
    assert manifest is not None
    files = {name: file for name, file in manifest.files.items() if name != without}
    values: dict[str, Any] = {"recipe_sha256": manifest.recipe_sha256, "epochs": manifest.epochs, "files": files}
    write_manifest(zoo, Manifest(**values | changes))


def link_out(name: str) -> Fault:
    def link(zoo: Path) -> None:
        outside = zoo.parent / "outside"
        (zoo / name).rename(outside)
        (zoo / name).symlink_to(outside)

    link.__name__ = f"link_out_{name}"
    return link


def not_json(name: str) -> Fault:
    def break_it(zoo: Path) -> None:
        (zoo / name).write_text("{")

    break_it.__name__ = f"not_json_{name}"
    return break_it
