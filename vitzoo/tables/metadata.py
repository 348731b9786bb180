"""The zoo's tables: what their columns are, built from the members' own records and written.

    metadata/members.parquet   a row a member
    metadata/epochs.parquet    a row a member and epoch
    metadata/splits.parquet    a row a scheme, fold and member in it
    metadata/README.md         the card that makes ``datasets.load_dataset("./zoo/metadata", "members")`` work

The card carries a digest of the tables: `datasets` caches a local folder by its name and its card, not by what the
parquet files hold, so a rebuilt zoo would otherwise be answered with old rows.
"""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vitzoo import records
from vitzoo.records import json_files, layout
from vitzoo.sources.source import ZooSource
from vitzoo.splits.plan import plan_stored_folds
from vitzoo.splits.schemes import SCHEMES
from vitzoo.tables import cards
from vitzoo.zoo.conditions import Epochs


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        type: Its Arrow type.
        meaning: What it says, with its unit or range.
    """

    type: pa.DataType
    meaning: str


_STRING, _INT, _FLOAT, _STRINGS = pa.string(), pa.int64(), pa.float64(), pa.list_(pa.string())

MEMBERS: dict[str, Column] = {
    "id": Column(_STRING, "member inside its zoo: pt-<parent> or pt-<parent>/ft-<child>"),
    "parent": Column(_STRING, "id of the member that it was fine-tuned from; null for a parent"),
    "parent_epoch": Column(_INT, "finished epochs of the parent's weights that it started from"),
    "parent_sha256": Column(_STRING, "sha256 of the parent's weights file that it started from"),
    "init_group": Column(_STRING, "equal for members that share a random initialisation, children included"),
    "stage": Column(_STRING, "pretraining or finetuning"),
    "status": Column(_STRING, "completed, diverged, failed or skipped"),
    "diverged_step": Column(_INT, "of a diverged member: finished steps when its loss was not finite any more"),
    "last_good_epoch": Column(_INT, "of a diverged member: its last epoch with figures and weights"),
    "objective": Column(_STRING, "supervised or contrastive"),
    "pretraining_objective": Column(_STRING, "objective of the line's pre-training: a child's is its parent's"),
    "dataset": Column(_STRING, "name of the image data set"),
    "dataset_revision": Column(_STRING, "where exactly the images come from; null of an imported member"),
    "dataset_fingerprint": Column(_STRING, "digest of all images, labels and indices; null of an imported member"),
    "classes": Column(_STRINGS, "names of the data set's classes, in the order of the labels"),
    "n_train": Column(_INT, "training images"),
    "n_train_evaluated": Column(
        _INT,
        "of them, evenly spaced: those that train figures and k-NN votes are measured on; null of an imported member",
    ),
    "n_val": Column(_INT, "validation images; 0 where there are none, null where their number is not known"),
    "n_test": Column(_INT, "test images that figures are of, the first ones; all but of an imported member"),
    "head_type": Column(_STRING, "linear or mlp"),
    "head_width": Column(_INT, "hidden width of an MLP head; null for a linear head"),
    "head_role": Column(_STRING, "classifier or embedding"),
    "optimizer": Column(_STRING, "adamw or sgd"),
    "learning_rate": Column(_FLOAT, "peak learning rate"),
    "weight_decay": Column(_FLOAT, "decoupled for adamw, L2 for sgd"),
    "momentum": Column(_FLOAT, "of sgd; null for adamw"),
    "schedule": Column(_STRING, "constant or cosine"),
    "batch_size": Column(_INT, "images a step, over all ranks"),
    "epochs": Column(_INT, "epochs trained"),
    "steps": Column(_INT, "optimizer steps trained"),
    "mixup": Column(_FLOAT, "alpha; 0 for none"),
    "cutmix": Column(_FLOAT, "alpha; 0 for none"),
    "label_smoothing": Column(_FLOAT, "0 to 1"),
    "random_erasing": Column(_FLOAT, "probability, 0 to 1"),
    "init_seed": Column(_INT, "of the backbone's initialisation; a child has its parent's"),
    "head_seed": Column(_INT, "of the head's initialisation"),
    "order_seed": Column(_INT, "of the order of the training images"),
    "augmentation_seed": Column(_INT, "of augmentation and mixing"),
    "replicate": Column(_INT, "which repetition of its cell of the grid, from 0"),
    "precision": Column(_STRING, "fp32 or bf16"),
    "compile": Column(_STRING, "mode of torch.compile; none where it was off"),
    "ranks": Column(_INT, "processes that trained it together"),
    "versions": Column(_STRING, "versions that decide its bits, as pip requirements"),
    "commit": Column(_STRING, "git commit of the code, with +dirty and a digest of what was edited; null outside git"),
    "deviations": Column(_STRINGS, "departures from the source that the recipe follows"),
    "num_parameters": Column(_INT, "parameters, head included"),
    "bytes": Column(_INT, "size of the final weights file"),
    "sha256": Column(_STRING, "of the final weights file"),
    "final_train_loss": Column(_FLOAT, "nats; see train_loss of epochs"),
    "final_train_accuracy": Column(_FLOAT, "0 to 1"),
    "final_val_loss": Column(_FLOAT, "nats"),
    "final_val_accuracy": Column(_FLOAT, "0 to 1"),
    "final_val_knn_accuracy": Column(_FLOAT, "0 to 1; of contrastive members"),
    "final_test_loss": Column(_FLOAT, "nats"),
    "final_test_accuracy": Column(_FLOAT, "0 to 1"),
    "final_test_knn_accuracy": Column(_FLOAT, "0 to 1; of contrastive members"),
    "best_val_epoch": Column(_INT, "epoch of the highest validation accuracy, the earliest of equals"),
    "test_accuracy_at_best_val": Column(_FLOAT, "0 to 1; null without validation"),
    "gap": Column(_FLOAT, "final train accuracy - final test accuracy, both on unmixed images"),
}

EPOCHS: dict[str, Column] = {
    "id": Column(_STRING, "member inside its zoo"),
    "epoch": Column(_INT, "finished epochs; 0 is before the first step"),
    "step": Column(_INT, "finished optimizer steps"),
    "samples_seen": Column(_INT, "images trained on so far, with repetition"),
    "learning_rate": Column(_FLOAT, "of the last step; of the first at epoch 0"),
    "train_loss_running": Column(_FLOAT, "mean training objective of the epoch, on augmented and mixed images"),
    "train_loss": Column(
        _FLOAT,
        "nats, in evaluation mode, on the recipe's fixed subset of the training images; null of an imported member",
    ),
    "train_accuracy": Column(_FLOAT, "0 to 1, on the same; null of an embedding"),
    "val_loss": Column(
        _FLOAT,
        "nats; cross-entropy, or of contrastive members InfoNCE of fixed views in whole training batches",
    ),
    "val_accuracy": Column(_FLOAT, "0 to 1; null of an embedding"),
    "val_knn_accuracy": Column(
        _FLOAT, "0 to 1; a vote of the 5 nearest evaluated training images; of contrastive members"
    ),
    "test_loss": Column(_FLOAT, "as val_loss"),
    "test_accuracy": Column(_FLOAT, "0 to 1; null of an embedding"),
    "test_knn_accuracy": Column(_FLOAT, "as val_knn_accuracy"),
    "weight_norm": Column(_FLOAT, "L2 norm of all weights; null, as the next three, where an epoch has no weights"),
    "distance_from_start": Column(_FLOAT, "L2 distance of all weights from epoch 0; null also where that has none"),
    "weights_id": Column(_STRING, "digest of all weights: equal if and only if the weights are"),
    "backbone_id": Column(_STRING, "digest of all weights but the head's"),
    "bytes": Column(_INT, "size of the weights file; null where it was not kept"),
}

SPLITS: dict[str, Column] = {
    "scheme": Column(
        _STRING,
        ", ".join(scheme.name for scheme in SCHEMES.values() if scheme.sound)
        + " (sound: no family is on two sides); "
        + ", ".join(scheme.name for scheme in SCHEMES.values() if not scheme.sound)
        + " (diagnostic: near-twins are)",
    ),
    "fold": Column(_STRING, "which fold of the scheme: its number, or the family, value or replicate that is test"),
    "id": Column(_STRING, "member inside its zoo; one that is in no part of the fold has no row"),
    "part": Column(_STRING, "train, val or test"),
    "sound": Column(pa.bool_(), "false: a diagnostic scheme, never a result; near-twins stand on both sides"),
}

TABLES = {"members": MEMBERS, "epochs": EPOCHS, "splits": SPLITS}
_ALL = Epochs("all")


def build_tables(source: ZooSource, *, epochs: Epochs = _ALL) -> dict[str, pa.Table]:
    """The tables of a zoo, from its members' own records.

    Args:
        source: The zoo.
        epochs: Those whose weights are there: ``bytes`` of the others is null.

    Returns:
        ``members`` and ``epochs``, ordered by id and epoch; ``splits``, ordered by scheme, fold and id.
    """
    return tabulate(
        ((source.member_record(member), source.epoch_records(member)) for member in source.member_ids()), epochs=epochs
    )


def tabulate(
    read: Iterable[tuple[records.MemberRecord, list[records.EpochRecord]]], *, epochs: Epochs = _ALL
) -> dict[str, pa.Table]:
    """The tables of members of which member.json and metrics.jsonl were read, in their order.

    Args:
        read: What they say; of a child without its parent ``pretraining_objective`` is null.
        epochs: As `build_tables`.
    """
    members, rows, objectives = [], [], {}
    for record, metrics in read:
        objectives[record.id] = record.objective
        members.append(_member_row(record, metrics))
        rows += _epoch_rows(record, metrics, epochs)
    for row in members:
        row["pretraining_objective"] = objectives.get(row["parent"] or row["id"])
    parts = [
        {"scheme": fold.scheme, "fold": fold.name, "id": member, "part": part, "sound": SCHEMES[fold.scheme].sound}
        for fold in plan_stored_folds(members, rows)
        for member, part in fold.parts.items()
    ]
    return {"members": _table(MEMBERS, members), "epochs": _table(EPOCHS, rows), "splits": _table(SPLITS, parts)}


def write_tables(source: ZooSource) -> None:
    """Build a zoo's tables and write them with their card."""
    tables = build_tables(source)
    folder = source.root / layout.METADATA
    folder.mkdir(exist_ok=True)
    contents = encode_tables(tables)
    for name, content in contents.items():
        json_files.write_atomically(source.path(layout.table_file(name)), content)
    card = cards.dataset_card(describe_tables(tables, contents), recipe=str(source.record.recipe.get("name", "custom")))
    json_files.write_atomically(source.path(layout.METADATA_README), card.encode())


def encode_tables(tables: dict[str, pa.Table]) -> dict[str, bytes]:
    """The tables as parquet, the same bytes for the same rows and version of pyarrow."""
    return {name: _parquet(table) for name, table in tables.items()}


def describe_tables(tables: dict[str, pa.Table], contents: dict[str, bytes]) -> list[cards.TableDescription]:
    """What a card says of the tables.

    Args:
        tables: From `build_tables`.
        contents: The same, from `encode_tables`.
    """
    return [
        cards.TableDescription(
            name=name,
            file=layout.table_file(name).name,
            rows=len(table),
            sha256=hashlib.sha256(contents[name]).hexdigest(),
            columns=tuple((column, str(spec.type), spec.meaning) for column, spec in TABLES[name].items()),
        )
        for name, table in tables.items()
    ]


def _member_row(record: records.MemberRecord, metrics: list[records.EpochRecord]) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(record, name, None) for name in MEMBERS}
    row["versions"] = " ".join(f"{name}=={version}" for name, version in sorted(record.versions.items()))
    if any(weights.epoch is None for weights in record.weights):
        row |= {"bytes": record.final_weights.size, "sha256": record.final_weights.sha256}
    if not metrics:
        return row
    final = metrics[-1]
    row |= {name: getattr(final, name.removeprefix("final_")) for name in MEMBERS if name.startswith("final_")}
    if final.train_accuracy is not None and final.test_accuracy is not None:
        row["gap"] = final.train_accuracy - final.test_accuracy
    validated = [epoch for epoch in metrics if epoch.val_accuracy is not None]
    if validated:
        best = max(validated, key=lambda epoch: (epoch.val_accuracy, -epoch.epoch))
        row |= {"best_val_epoch": best.epoch, "test_accuracy_at_best_val": best.test_accuracy}
    return row


def _epoch_rows(
    record: records.MemberRecord, metrics: list[records.EpochRecord], epochs: Epochs
) -> list[dict[str, Any]]:
    chosen = set(epochs.of(record.kept_epochs))
    sizes = {weights.epoch: weights.size for weights in record.weights if weights.epoch in chosen}
    own = [name for name in EPOCHS if name not in ("id", "bytes")]
    return [
        {"id": record.id, **{name: getattr(epoch, name) for name in own}, "bytes": sizes.get(epoch.epoch)}
        for epoch in metrics
    ]


def _table(columns: dict[str, Column], rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, column.type) for name, column in columns.items()]))


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
