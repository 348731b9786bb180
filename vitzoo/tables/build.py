"""Build a zoo's tables from the records of its members, and encode them as parquet.

See `vitzoo.tables.columns` for the columns, and `vitzoo.tables.catalogue` for the tables of a zoo.
"""

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.json as pa_json

from vitzoo.records import EpochRecord, MemberRecord
from vitzoo.records.epochs import Epochs
from vitzoo.splits.plan import plan_stored_folds
from vitzoo.splits.schemes import SCHEMES
from vitzoo.tables.cards import TableDescription
from vitzoo.tables.columns import EPOCHS, FINAL, MEMBERS, SPLITS, Column, column_meaning, extra_types

Members = Sequence[tuple[MemberRecord, list[EpochRecord]]]
_ALL = Epochs("all")


def build_table(name: str, members: Members, *, epochs: Epochs = _ALL) -> pa.Table:
    """Build one table.

    Args:
        name: One of `vitzoo.tables.columns.TABLES`.
        members: Each member's record and metrics, ordered by id. A child without its parent has no
            ``pretraining_objective``.
        epochs: The epochs whose weights exist; ``bytes`` of the others is null.

    Raises:
        RecordError: The ``extra`` of two records contradict each other.
    """
    if name == "members":
        return _build_members(members)
    if name == "epochs":
        return _build_epochs(members, epochs)
    return build_splits(_build_members(members), _build_epochs(members, epochs))


def build_splits(members: pa.Table, epochs: pa.Table) -> pa.Table:
    """Build the table ``splits`` from the two others: a row a scheme, fold and member in it."""
    rows = [
        {"scheme": fold.scheme, "fold": fold.name, "id": member, "part": part, "sound": SCHEMES[fold.scheme].sound}
        for fold in plan_stored_folds(members.to_pylist(), epochs.to_pylist())
        for member, part in fold.parts.items()
    ]
    return _table(SPLITS, rows, {})


def _build_members(members: Members) -> pa.Table:
    objectives = {record.id: record.objective for record, _ in members}
    rows = [_member_row(record, metrics) for record, metrics in members]
    for row in rows:
        row["pretraining_objective"] = objectives.get(row["parent"] or row["id"])
    return _table(MEMBERS, rows, extra_types("members", (record.extra for record, _ in members)))


def _build_epochs(members: Members, epochs: Epochs) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for record, metrics in members:
        chosen = set(epochs.of(record.saved_epochs))
        saved = {weights.epoch: weights for weights in record.weights if weights.epoch in chosen}
        for epoch in metrics:
            values = msgspec.structs.asdict(epoch) | epoch.extra
            weights = saved.get(epoch.epoch)
            file = {} if weights is None else {"bytes": weights.size, "dtype": weights.dtype}
            rows.append(values | {"id": record.id, "bytes": None, "dtype": None} | file)
    return _table(EPOCHS, rows, extra_types("epochs", (epoch.extra for _, metrics in members for epoch in metrics)))


def encode_table(table: pa.Table) -> bytes:
    """Return a table as parquet, the same bytes for the same rows and version of pyarrow."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def describe_table(name: str, table: pa.Table, content: bytes) -> TableDescription:
    """Describe a table, also given encoded, for the card."""
    return TableDescription(
        name=name,
        rows=len(table),
        sha256=hashlib.sha256(content).hexdigest(),
        columns=tuple((field.name, str(field.type), column_meaning(name, field.name)) for field in table.schema),
    )


def _member_row(record: MemberRecord, metrics: Sequence[EpochRecord]) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(record, name) for name in record.__struct_fields__ if name in MEMBERS}
    row |= record.extra
    row["versions"] = " ".join(f"{name}=={version}" for name, version in sorted(record.versions.items()))
    if any(weights.epoch is None for weights in record.weights):
        row |= {"bytes": record.final_weights.size, "sha256": record.final_weights.sha256}
    if not metrics:
        return row
    final = metrics[-1]
    row |= {f"final_{name}": getattr(final, name) for name in FINAL}
    if final.train_accuracy is not None and final.test_accuracy is not None:
        row["gap"] = final.train_accuracy - final.test_accuracy
    validated = [epoch for epoch in metrics if epoch.val_accuracy is not None]
    if validated:
        best = max(validated, key=lambda epoch: (epoch.val_accuracy, -epoch.epoch))
        row |= {"best_val_epoch": best.epoch, "test_accuracy_at_best_val": best.test_accuracy}
    return row


def _table(columns: dict[str, Column], rows: Sequence[dict[str, Any]], extra: dict[str, pa.DataType]) -> pa.Table:
    schema = pa.schema({name: column.type for name, column in columns.items()} | extra)
    lines = b"\n".join(map(msgspec.json.encode, rows))
    if not lines:
        return schema.empty_table()
    # pa.array of a list would import pandas, which takes longer than all the rest.
    options = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    blocks = pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    return pa_json.read_json(io.BytesIO(lines), read_options=blocks, parse_options=options).select(schema.names)
