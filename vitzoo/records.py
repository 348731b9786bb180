"""The records of a zoo: what stands in zoo.json, member.json and metrics.jsonl, read strictly and written whole.

Format 1. Unknown keys, missing keys and values of another type are errors that name the file and the key.
Where the files lie is `vitzoo.layout`'s business; the tables built from them are `vitzoo.metadata`'s.

    zoo.json       {"format": 1, "recipe": {"name": "digits", ...}, "recipe_sha256": "...", "metadata_repo": null}
    member.json    {"format": 1, "id": "pt-12/ft-3", "parent": "pt-12", ..., "weights": [
                      {"epoch": 0, "size": 171368, "sha256": "..."}, ..., {"epoch": null, ...}]}
    metrics.jsonl  {"epoch": 0, "step": 0, "samples_seen": 0, ..., "weights_id": "..."}, a line an epoch
"""

import dataclasses
import hashlib
import json
import os
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from vitzoo.errors import FormatVersionError, RecordError, did_you_mean, shown
from vitzoo.ids import MemberId

FORMAT = 1
_MAX_RECORD_BYTES = 64 * 2**20  # the paper's largest is under 1 MB

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
    """One weights file of a member; `vitzoo.layout.weights_name` says what it is called.

    Args:
        epoch: Finished epochs; None for the final weights.
        size: Bytes.
        sha256: Of the whole file.
    """

    epoch: int | None
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberRecord:
    """member.json: who a member is, where it comes from and how it was made.

    The fields are the columns of the ``members`` table (`vitzoo.metadata.MEMBERS` says what each means)
    but for those computed from metrics.jsonl, and ``weights``.
    """

    format: int = FORMAT
    id: str
    parent: str | None
    parent_epoch: int | None
    parent_sha256: str | None
    init_group: str
    stage: Stage
    status: Status
    objective: str
    dataset: str
    dataset_revision: str
    dataset_fingerprint: str
    classes: tuple[str, ...]
    n_train: int
    n_train_evaluated: int
    n_val: int
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

    The fields are the columns of the ``epochs`` table (`vitzoo.metadata.EPOCHS` says what each means)
    but for ``id`` and ``bytes``. No clock times: those are timing.jsonl's.
    """

    epoch: int
    step: int
    samples_seen: int
    learning_rate: float
    train_loss_running: float | None
    train_loss: float
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    val_knn_accuracy: float | None
    test_loss: float
    test_accuracy: float | None
    test_knn_accuracy: float | None
    weight_norm: float
    distance_from_start: float
    weights_id: str
    backbone_id: str


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
        RecordError: It is no such record.
        FormatVersionError: A newer format than this library reads.
    """
    return _load(path, MemberRecord)


def load_epoch_records(path: Path) -> list[EpochRecord]:
    """Read a metrics.jsonl.

    Raises:
        RecordError: A line is no such record.
    """
    lines = _read_text(path).split("\n")  # splitlines would also split at U+2028
    if not lines[-1]:
        lines.pop()
    return [_parse(EpochRecord, _parse_json(line, f"{path}, line {i}", path), f"{path}, line {i}", path)
            for i, line in enumerate(lines, start=1)]  # fmt: skip


def as_json(record: object) -> dict[str, Any]:
    """A record, or a recipe, as plain JSON values: tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(record), allow_nan=False))  # type: ignore[arg-type]


def json_line(value: object) -> str:
    """A record or a JSON value on one line, always the same text for the same value."""
    plain = as_json(value) if dataclasses.is_dataclass(value) else value
    return json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(", ", ": "))


def json_sha256(value: object) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, record: object) -> None:
    """Write a record as indented JSON, atomically."""
    write_atomically(path, (json.dumps(as_json(record), indent=1, allow_nan=False) + "\n").encode())


def write_lines(path: Path, records: Iterable[object]) -> None:
    """Write records as JSON lines, atomically."""
    write_atomically(path, "".join(json_line(record) + "\n" for record in records).encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it holds, whatever happens, either all of the old bytes or all of the new."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def parse_record(cls: type[T], value: object, where: str) -> T:
    """A dataclass from plain JSON, strictly typed: the inverse of `as_json`.

    Args:
        cls: A dataclass whose fields are JSON types, Literals, tuples, dicts or further dataclasses.
        value: Parsed JSON.
        where: What to call it in an error.

    Raises:
        RecordError: A key is unknown or missing, or a value has another type.
    """
    return _parse(cls, value, where, Path(where))


def _load(path: Path, cls: type[T]) -> T:
    value = _parse_json(_read_text(path), str(path), path)
    found = value.get("format") if isinstance(value, dict) else None
    if type(found) is int and found > FORMAT:
        raise FormatVersionError(
            f"{path} has format {found}; this vitzoo reads formats up to {FORMAT}. Upgrade it: "
            "pip install --upgrade vitzoo-hub.",
            path=path,
            found=found,
            supported=FORMAT,
        )
    if isinstance(value, dict) and (type(found) is not int or found < 1):
        raise RecordError(f"{path}: format is {shown(found)}; expected {FORMAT}.", path=path)
    return _parse(cls, value, str(path), path)


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise RecordError(f"{path} is missing, or no file. Get the folder again.", path=path)
    size = path.stat().st_size
    if size > _MAX_RECORD_BYTES:
        raise RecordError(f"{path} has {size} bytes; a record has at most {_MAX_RECORD_BYTES}.", path=path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is no UTF-8 text: {error}. The file is damaged.", path=path) from None


def _parse_json(text: str, where: str, path: Path) -> Any:
    def refuse(constant: str):
        raise RecordError(
            f"{where}: {constant} is no JSON number; null stands for a value that is not there.", path=path
        )

    try:
        value = json.loads(text, parse_constant=refuse)
        # 1e999, half a surrogate pair, nesting at the limit: what could not be written again.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{where} is no JSON: {error}. The file is damaged.", path=path) from None
    return value


def _parse(cls: type[T], value: object, where: str, path: Path) -> T:
    if not isinstance(value, dict):
        raise RecordError(f"{where}: expected an object, found {type(value).__name__}.", path=path)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            raise RecordError(f"{where}: unknown key {shown(key)}.{did_you_mean(key, fields)}", path=path)
    hints = typing.get_type_hints(cls)
    parsed = {}
    for name, field in fields.items():
        if name in value:
            parsed[name] = _convert(hints[name], value[name], f"{where}: {name}", path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecordError(f'{where}: "{name}" is missing.', path=path)
    return cls(**parsed)


def _convert(hint: Any, value: Any, where: str, path: Path) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _parse(hint, value, where, path)
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        (hint,) = [argument for argument in arguments if argument is not types.NoneType]
        return _convert(hint, value, where, path)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(arguments[0], item, f"{where}[{i}]", path) for i, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {key: _convert(arguments[1], item, f"{where}.{shown(key)}", path) for key, item in value.items()}
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if hint is int and type(value) is int and -(2**63) <= value < 2**63:  # as a table's column
        return value
    if isinstance(hint, type) and hint is not int and isinstance(value, hint):
        return value
    expected = " or ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise RecordError(f"{where} is {shown(value)}; expected {expected}.", path=path)
