"""Read a table of checkpoints: CSV, JSON lines or parquet, a row a checkpoint.

    location      a folder, a file, or org/name[@revision][/subfolder] on the Hub; the one required column
    member        name of the member that the checkpoint is of; without it, each row is a member of its own
    parent        name of the member that this one was fine-tuned from
    epoch, step   number of the checkpoint, a whole number from 0; 0 is before the first step
    parent_epoch  number of the parent's checkpoint that it started from; its last one by default
    config        a config.json for weights that have none beside them

Other columns are settings (`SETTINGS`, fields of member.json) and metrics (`METRICS`, fields of metrics.jsonl) by the
names that vitzoo's own tables have. Every other column becomes ``extra``: of the member if no member has two values of
it, else of the checkpoint. A value that is empty, NaN or infinite is null. One that does not fit its column is kept in
``extra`` under another name. Settings of a member are of the first of its rows that has them.
"""

import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from vitzoo.errors import CheckpointError, did_you_mean, printable, shown
from vitzoo.records import EpochRecord, MemberRecord
from vitzoo.records.members import Scalar, declared_columns

LOCATION = "location"
OWN = (LOCATION, "member", "parent", "epoch", "step", "parent_epoch", "config")
# Fields of member.json that follow from the weights, the config or the table itself.
_DERIVED = (
    *(
        "id",
        "parent",
        "parent_epoch",
        "parent_sha256",
        "stage",
        "status",
        "diverged_step",
        "last_good_epoch",
        "classes",
    ),
    *("head_type", "head_width", "head_role", "epochs", "steps", "versions", "commit", "deviations", "num_parameters"),
    *("tokenizer_sha256", "dataset_revision", "dataset_fingerprint"),
)
_MEASURED = ("epoch", "step", "weight_norm", "distance_from_start", "weights_id", "backbone_id")
SETTINGS: dict[str, Any] = {
    name: hint for name, (hint, _) in declared_columns(MemberRecord).items() if name not in _DERIVED
}
METRICS: dict[str, Any] = {
    name: hint for name, (hint, _) in declared_columns(EpochRecord).items() if name not in _MEASURED
}
# Fields of member.json that are null unless the table says them, and those that are rarely known.
UNKNOWN = tuple(name for name in SETTINGS if name != "init_group")
NEVER_KNOWN = ("n_train_evaluated", "start_sha256")
OF_TEXT = ("masking", "max_length")
OF_IMAGES = ("mixup", "cutmix", "random_erasing")
MAX_ROWS = 10**6
_MAX_BYTES = 2**29
_MAX_TEXT = 2**14  # characters of a value
_MOST = 999_999_999  # of a checkpoint's number
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NANS = ("nan", "inf", "-inf", "infinity", "-infinity")
_CLEAN = re.compile(r"[^a-z0-9]+")

Cells = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A checkpoint of the table.

    Args:
        line: Number of the row, from 1.
        location: Its place.
        member: Name of its member.
        parent: Name of the member's parent; None where the row names none.
        epoch: Finished epochs; None for unknown.
        step: Finished steps; None for unknown.
        parent_epoch: Number of the parent's checkpoint.
        config: Place of a config.json.
        settings: Fields of member.json.
        metrics: Fields of metrics.jsonl.
        extra: Other values of the checkpoint.
        member_extra: Other values of the member.
    """

    line: int
    location: str
    member: str
    parent: str | None = None
    epoch: int | None = None
    step: int | None = None
    parent_epoch: int | None = None
    config: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Scalar] = field(default_factory=dict)
    member_extra: dict[str, Scalar] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Table:
    """Rows of a table.

    Args:
        rows: Rows that can be used, in their order.
        skipped: Names of rows that cannot be used, to the reason.
        notes: Notes on the whole table.
    """

    rows: list[Row]
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def load_table(path: Path) -> Table:
    """Read a table.

    Raises:
        CheckpointError: The file is missing, damaged or too large, is of another type, or has no column location.
    """
    return parse_rows(_load_cells(path), where=printable(path.name))


def parse_rows(cells: Sequence[Cells], *, where: str) -> Table:
    """Read the values of rows. See the module for the columns.

    Raises:
        CheckpointError: There is no row, or no column location.
    """
    columns = dict.fromkeys(name for row in cells for name in row)
    if LOCATION not in columns:
        raise CheckpointError(
            f"{where} has no column {LOCATION}",
            expected=f"{LOCATION}: a folder, a file or org/name[@revision][/subfolder]",
            fix=did_you_mean(LOCATION, columns),
        )
    if not cells:
        raise CheckpointError(f"{where} has no row", expected="a row a checkpoint")
    table = Table(rows=[])
    values = {name: _one_type([row.get(name) for row in cells]) for name in columns if name not in OWN}
    ignored = [name for name in values if name in _DERIVED or (name in _MEASURED and name not in OWN)]
    if ignored:
        table.notes.append(f"columns {', '.join(ignored)} are computed, and not taken from the table")
    table.notes += [
        f"{name} has NaN or infinite values: null" for name in values if any(_is_nan(row.get(name)) for row in cells)
    ]
    settings = [name for name in values if name in SETTINGS]
    metrics = [name for name in values if name in METRICS and name not in SETTINGS]
    names = _extra_names([name for name in values if name not in {*settings, *metrics, *ignored}], table)
    members = [_text(row.get("member")) or _text(row.get(LOCATION)) or "" for row in cells]
    of_members = {name for name in names if _is_of_members(members, values[name])}
    for line, row in enumerate(cells, start=1):
        others = {names[name]: values[name][line - 1] for name in names if values[name][line - 1] is not None}
        kept: dict[str, Any] = {}
        for kind, chosen in ((SETTINGS, settings), (METRICS, metrics)):
            for name in chosen:
                value = values[name][line - 1]
                if value is None:
                    continue
                try:
                    kept[name] = msgspec.convert(value, kind[name], strict=False)
                except msgspec.ValidationError:
                    others[f"given_{name}"] = value
                    note = f"{name} has values that it cannot have, such as {shown(value)}: kept as given_{name}"
                    if not any(text.startswith(f"{name} has values") for text in table.notes):
                        table.notes.append(note)
        _add_row(
            table,
            line,
            row,
            name=members[line - 1],
            where=where,
            settings={name: value for name, value in kept.items() if name in SETTINGS},
            metrics={name: value for name, value in kept.items() if name not in SETTINGS},
            member_extra={
                names[name]: others.pop(names[name]) for name in names if name in of_members and names[name] in others
            },
            extra=others,
        )
    _same_place(table)
    return table


def _add_row(table: Table, line: int, row: Cells, *, name: str, where: str, **values: Any) -> None:
    location = _text(row.get(LOCATION))
    label = name if name.isprintable() and name else f"{where}, row {line}"
    try:
        if location is None:
            raise CheckpointError("has no location")
        for key in ("location", "member", "parent", "config"):
            text = _text(row.get(key)) or ""
            if not text.isprintable() or len(text) > _MAX_TEXT:
                raise CheckpointError(f"its {key} has a line break, a control character or over {_MAX_TEXT} characters")
        numbers = {key: _count(row.get(key), key, values["extra"]) for key in ("epoch", "step", "parent_epoch")}
        texts = {key: _text(row.get(key)) for key in ("parent", "config")}
        table.rows.append(Row(line=line, location=location, member=name, **numbers, **texts, **values))
    except CheckpointError as error:
        table.skipped[label] = str(error)


def _same_place(table: Table) -> None:
    """Skip a second row of the same checkpoint."""
    first: dict[tuple[str, str], Row] = {}
    kept = []
    for row in table.rows:
        before = first.setdefault((row.location, ""), row)
        if before is not row:
            table.skipped[f"row {row.line}"] = f"{row.location} is in row {before.line} already. Delete one"
        else:
            kept.append(row)
    table.rows = kept


def _count(value: Any, key: str, extra: dict[str, Any]) -> int | None:
    """Return a number of epochs or steps; a fraction of an epoch becomes extra."""
    value = _scalar(value)
    if value is None:
        return None
    number = _parsed(value)
    if isinstance(number, float) and key == "epoch" and number >= 0:
        extra["trained_epochs"] = float(number)
        if not number.is_integer():
            return None
        number = int(number)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if type(number) is not int or not 0 <= number <= _MOST:
        raise CheckpointError(f"its {key} is {shown(value)}", expected=f"a whole number from 0 to {_MOST}")
    return number


def _load_cells(path: Path) -> list[Cells]:
    shown_path = printable(str(path))
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{shown_path} is larger than {_MAX_BYTES} bytes", path=path)
        readers = {".csv": _csv_cells, ".jsonl": _json_cells, ".ndjson": _json_cells, ".parquet": _parquet_cells}
        if path.suffix.lower() not in readers:
            raise CheckpointError(
                f"{shown_path} is a file of another type", expected=f"one of {', '.join(readers)}", path=path
            )
        cells = []
        for row in readers[path.suffix.lower()](path):
            cells.append(row)
            if len(cells) > MAX_ROWS:
                raise CheckpointError(f"{shown_path} has over {MAX_ROWS} rows", path=path)
        return cells
    except OSError as error:
        fix = "" if path.parent.is_dir() is False else did_you_mean(path.name, _names(path.parent))
        raise CheckpointError(f"{shown_path} cannot be read: {error.strerror}", fix=fix, path=path) from None
    except (ValueError, csv.Error, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{shown_path} is not {path.suffix[1:]}: {printable(str(error))[:200]}", path=path
        ) from None


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.suffix in (".csv", ".jsonl", ".ndjson", ".parquet")]


def _csv_cells(path: Path) -> Iterator[Cells]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="", strict=True)
        names = list(reader.fieldnames or [])
        if len(set(names)) < len(names):
            raise CheckpointError(f"{printable(path.name)} has a column twice: {', '.join(map(printable, names))}")
        for row in reader:
            if row.get(""):
                raise CheckpointError(f"{printable(path.name)}, line {reader.line_num} has more values than columns")
            yield {name: value for name, value in row.items() if name}


def _json_cells(path: Path) -> Iterator[Cells]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            value = json.loads(line)
            if not isinstance(value, dict):
                raise CheckpointError(f"{printable(path.name)}, line {number} is not an object")
            yield value


def _parquet_cells(path: Path) -> Iterator[Cells]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise ValueError(error) from None


def _extra_names(columns: Iterable[str], table: Table) -> dict[str, str]:
    """Return columns with names that ``extra`` may have."""
    taken: dict[str, str] = {}
    own = {*SETTINGS, *METRICS, *_DERIVED, *_MEASURED}
    for column in columns:
        name = _CLEAN.sub("_", column.lower()).strip("_")[:60] or "column"
        name = name if name[0].isalpha() else f"x_{name}"
        name = f"given_{name}" if name in own else name
        while name in taken.values():
            name += "_"
        taken[column] = name
    renamed = [f"{printable(column)} is {name}" for column, name in taken.items() if column != name]
    if renamed:
        table.notes.append(f"columns with other names in extra: {', '.join(renamed[:8])}")
    return taken


def _is_of_members(members: Sequence[str], values: Sequence[Any]) -> bool:
    """Tell whether no member has two values of a column."""
    known: dict[str, set[Any]] = defaultdict(set)
    for member, value in zip(members, values, strict=True):
        known[member].add(value)
    return all(len(of_member) == 1 for of_member in known.values())


def _one_type(values: Sequence[Any]) -> list[Any]:
    """Return the values of a column as scalars of one type: numbers if all are, else texts."""
    parsed = [_parsed(_scalar(value)) for value in values]
    kinds = {type(value) for value in parsed if value is not None}
    if kinds <= {int, float} and len(kinds) == 2:
        return [None if value is None else float(value) for value in parsed]
    if len(kinds) > 1:
        return [None if value is None else str(_scalar(raw)) for raw, value in zip(values, parsed, strict=True)]
    return parsed


def _scalar(value: Any) -> Scalar | None:
    """Return a cell as a scalar: null for an empty text, NaN and infinity, and JSON for a list or an object."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.strip()[:_MAX_TEXT]
    if isinstance(value, bool | int | float):
        return value if not isinstance(value, int) or abs(value) < 2**63 else float(value)
    return json.dumps(value, default=str)[:_MAX_TEXT]


def _is_nan(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in _NANS
    return isinstance(value, float) and not math.isfinite(value)


def _parsed(value: Scalar | None) -> Scalar | None:
    """Return the number or truth value that a text of a CSV says."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    if value.lower() in (*_NANS, "null", "none"):
        return None
    if not _NUMBER.fullmatch(value) or (value.lstrip("+-").startswith("0") and value.lstrip("+-")[1:2].isdigit()):
        return value  # 007 is a name
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(value) if value.lstrip("+-").isdigit() and abs(number) < 2**63 else number


def _text(value: Any) -> str | None:
    value = _scalar(value)
    return None if value is None else str(value)
