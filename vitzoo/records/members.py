"""The records of a zoo: what stands in zoo.json, member.json and metrics.jsonl.

Format 1. Unknown keys, missing keys and values of another type are errors that name the file and the key.
How JSON is read and written is `vitzoo.records.json_files`' business, where the files lie `vitzoo.records.layout`'s,
the tables built
from them `vitzoo.tables.metadata`'s.

    zoo.json       {"format": 1, "recipe": {"name": "digits", ...}, "recipe_sha256": "...", "metadata_repo": null}
    member.json    {"format": 1, "id": "pt-12/ft-3", "parent": "pt-12", ..., "weights": [
                      {"epoch": 0, "size": 171368, "sha256": "..."}, ..., {"epoch": null, ...}]}
    metrics.jsonl  {"epoch": 0, "step": 0, "samples_seen": 0, ..., "weights_id": "..."}, a line an epoch
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from vitzoo.errors import RecordError, shown
from vitzoo.ids import MemberId
from vitzoo.records.dataset_spec import DatasetSpec
from vitzoo.records.json_files import json_sha256, parse_json, parse_record, parse_versioned_record, read_text

FORMAT = 1

T = TypeVar("T")
Stage = Literal["pretraining", "finetuning"]
Status = Literal["completed", "diverged", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooRecord:
    """zoo.json: which zoo this is. Written before anything else.

    Args:
        format: Version of the zoo folder's layout.
        recipe: The whole recipe, as plain JSON.
        recipe_sha256: `json_sha256` of ``recipe``.
        metadata_repo: The Hub dataset repo that holds the tables too; None where there is none.
    """

    format: int = FORMAT
    recipe: dict[str, Any]
    recipe_sha256: str
    metadata_repo: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsRecord:
    """One weights file of a member; `vitzoo.records.layout.weights_name` says what it is called.

    Args:
        epoch: Finished epochs; None for the final weights.
        size: Bytes.
        sha256: Of the whole file.
    """

    epoch: int | None
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where an imported member comes from.

    Args:
        release: What was imported.
        folder: The member's folder in it.
        files: The files that were read, by their place in that folder, to their sha256.
    """

    release: str
    folder: str
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberRecord:
    """member.json: who a member is, where it comes from and how it was made.

    The fields are the columns of the ``members`` table (`vitzoo.tables.metadata.MEMBERS` says what each means)
    but for those computed from metrics.jsonl, ``weights``, ``dataset_spec``, with which `vitzoo.images.load_images`
    finds the images again, and ``origin``; the last two are None where the record is a row of that table.
    """

    format: int = FORMAT
    id: str
    parent: str | None
    parent_epoch: int | None
    parent_sha256: str | None
    init_group: str
    stage: Stage
    status: Status
    diverged_step: int | None
    last_good_epoch: int | None
    objective: str
    dataset: str
    dataset_spec: DatasetSpec | None
    dataset_revision: str | None
    dataset_fingerprint: str | None
    classes: tuple[str, ...]
    n_train: int
    n_train_evaluated: int | None
    n_val: int | None
    n_test: int
    head_type: str
    head_width: int | None
    head_role: str
    optimizer: str
    learning_rate: float
    weight_decay: float
    momentum: float | None
    schedule: str
    batch_size: int
    epochs: int
    steps: int
    mixup: float
    cutmix: float
    label_smoothing: float
    random_erasing: float
    init_seed: int
    head_seed: int
    order_seed: int
    augmentation_seed: int
    replicate: int
    precision: str
    compile: str
    ranks: int
    versions: dict[str, str]
    commit: str | None
    deviations: tuple[str, ...]
    num_parameters: int
    weights: tuple[WeightsRecord, ...]
    origin: Origin | None = None

    @property
    def member(self) -> MemberId:
        """The id, parsed."""
        return MemberId.parse(self.id)

    @property
    def final_weights(self) -> WeightsRecord:
        """The record of ``model.safetensors``."""
        return self.weights_at(None)

    @property
    def kept_epochs(self) -> list[int]:
        """The epochs whose weights were kept, ascending."""
        return sorted(weights.epoch for weights in self.weights if weights.epoch is not None)

    def weights_at(self, epoch: int | None) -> WeightsRecord:
        """The record of an epoch's weights, the final ones for None. Raises LookupError where none were kept."""
        for weights in self.weights:
            if weights.epoch == epoch:
                return weights
        raise LookupError(epoch)


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """A line of metrics.jsonl: a member after ``epoch`` finished epochs.

    The fields are the columns of the ``epochs`` table (`vitzoo.tables.metadata.EPOCHS` says what each means)
    but for ``id`` and ``bytes``. No clock times: those are timing.jsonl's.
    """

    epoch: int
    step: int
    samples_seen: int
    learning_rate: float
    train_loss_running: float | None
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    val_knn_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    test_knn_accuracy: float | None
    weight_norm: float | None
    distance_from_start: float | None
    weights_id: str | None
    backbone_id: str | None


def load_zoo_record(path: Path) -> ZooRecord:
    """Read a zoo.json.

    Raises:
        RecordError: It is no such record.
        FormatVersionError: A newer format than this library reads.
    """
    record = _load(path, ZooRecord)
    if json_sha256(record.recipe) != record.recipe_sha256:
        raise RecordError(
            f"{path}: recipe_sha256 is {record.recipe_sha256[:12]}..., but the recipe beside it hashes to "
            f"{json_sha256(record.recipe)[:12]}...: the file was edited. Restore it or generate the zoo again.",
            path=path,
        )
    return record


def load_member_record(path: Path) -> MemberRecord:
    """Read a member.json.

    Raises:
        RecordError: It is no such record, or names two data sets.
        FormatVersionError: A newer format than this library reads.
    """
    record = _load(path, MemberRecord)
    if record.dataset_spec is not None and record.dataset_spec.name != record.dataset:
        raise RecordError(
            f"{path}: dataset is {shown(record.dataset)}, but dataset_spec: name is {shown(record.dataset_spec.name)}; "
            "expected one data set. Get the file again.",
            path=path,
        )
    return record


def load_epoch_records(path: Path) -> list[EpochRecord]:
    """Read a metrics.jsonl.

    Raises:
        RecordError: A line is no such record.
    """
    lines = read_text(path).split("\n")  # splitlines would also split at U+2028
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise RecordError(f"{path} is empty; a member has figures of epoch 0 at least. Get the file again.", path=path)
    return [parse_record(EpochRecord, parse_json(line, f"{path}, line {i}", path), f"{path}, line {i}", path)
            for i, line in enumerate(lines, start=1)]  # fmt: skip


def _load(path: Path, cls: type[T]) -> T:
    return parse_versioned_record(cls, read_text(path), path, newest=FORMAT)
