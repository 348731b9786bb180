"""The columns of a zoo's tables, derived from the declarations of the records.

    metadata/members.parquet   a row a member
    metadata/epochs.parquet    a row a member and epoch
    metadata/splits.parquet    a row a scheme, fold and member in it

Names in the ``extra`` of a record become columns after the declared ones. See `vitzoo.tables.build` for their values.
"""

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import pyarrow as pa

from vitzoo.errors import RecordError
from vitzoo.records import EpochRecord, MemberRecord
from vitzoo.records.members import declared_columns
from vitzoo.splits.schemes import SCHEMES


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        type: Its Arrow type.
        meaning: Its meaning, with unit or range.
    """

    type: pa.DataType
    meaning: str


_STRING, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
_TYPES = {str: _STRING, bool: pa.bool_(), int: _INT, float: _FLOAT, dict: _STRING, tuple: pa.list_(_STRING)}
EXTRA_TYPES: dict[type, pa.DataType] = {str: _STRING, bool: pa.bool_(), int: _INT, float: _FLOAT}
_EXTRA = "Recorded by whoever trained the zoo (extra)."


def _arrow_type(hint: Any) -> pa.DataType:
    """Return the Arrow type of a record's field; None is null in any type."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (hint,) = [argument for argument in get_args(hint) if argument is not types.NoneType]
        return _arrow_type(hint)
    if origin is Literal:
        return _STRING
    if hasattr(hint, "__metadata__"):
        return _arrow_type(hint.__origin__)
    return _TYPES[origin or hint]


def _declared(record: type) -> dict[str, Column]:
    return {
        name: Column(_arrow_type(hint), str(meta.description))
        for name, (hint, meta) in declared_columns(record).items()
    }


def _insert_after(columns: dict[str, Column], name: str, added: dict[str, Column]) -> dict[str, Column]:
    place = list(columns).index(name) + 1
    items = list(columns.items())
    return dict([*items[:place], *added.items(), *items[place:]])


EPOCHS: dict[str, Column] = {
    "id": Column(_STRING, "Member inside its zoo."),
    **_declared(EpochRecord),
    "bytes": Column(_INT, "Size of the weights file; null if it was not saved."),
    "dtype": Column(_STRING, "Type of the saved numbers: float32 or bfloat16; null for that of config.json."),
}

FINAL = tuple(name for name in EPOCHS if name.startswith(("train_", "val_", "test_")) and name != "train_loss_running")
"""The metrics of the last epoch that the members table repeats as ``final_<name>``."""

MEMBERS: dict[str, Column] = {
    **_insert_after(
        _declared(MemberRecord),
        "objective",
        {"pretraining_objective": Column(_STRING, "Objective of the pre-training; a child has its parent's.")},
    ),
    "bytes": Column(_INT, "Size of the final weights file."),
    "sha256": Column(_STRING, "Digest of the final weights file."),
    **{f"final_{name}": Column(EPOCHS[name].type, EPOCHS[name].meaning) for name in FINAL},
    "best_val_epoch": Column(_INT, "Epoch of the highest validation accuracy; the earliest if several are equal."),
    "test_accuracy_at_best_val": Column(_FLOAT, "0 to 1; null without validation."),
    "gap": Column(_FLOAT, "Final train accuracy - final test accuracy, both on unmixed images."),
}

SPLITS: dict[str, Column] = {
    "scheme": Column(
        _STRING,
        ", ".join(scheme.name for scheme in SCHEMES.values() if scheme.sound)
        + " (sound: no family is in two parts); "
        + ", ".join(scheme.name for scheme in SCHEMES.values() if not scheme.sound)
        + " (diagnostic: near duplicates are).",
    ),
    "fold": Column(_STRING, "Fold of the scheme: its number, or the family, value or replicate that is test."),
    "id": Column(_STRING, "Member inside its zoo; a member in no part of the fold has no row."),
    "part": Column(_STRING, "train, val or test."),
    "sound": Column(pa.bool_(), "false for a diagnostic scheme, never a result: near duplicates are in both parts."),
}

TABLES = {"members": MEMBERS, "epochs": EPOCHS, "splits": SPLITS}


def extra_types(table: str, extras: Iterable[Mapping[str, Any]]) -> dict[str, pa.DataType]:
    """Return the type of each column that the ``extra`` of records adds to a table, by ascending name.

    Args:
        table: ``members`` or ``epochs``.
        extras: The ``extra`` of each record.

    Raises:
        RecordError: A name is a declared column's, or has values of several types.
    """
    kinds: dict[str, set[type]] = {}
    for extra in extras:
        for name, value in extra.items():
            kinds.setdefault(name, set()).add(type(value))
    types_by_name = {}
    for name in sorted(kinds):
        types_of_name = kinds[name]
        if name in TABLES[table]:
            raise RecordError(f'extra has "{name}", which is a column of {table} already', fix="Rename it.")
        if types_of_name == {int, float}:
            types_of_name = {float}
        if len(types_of_name) > 1:
            names = " and ".join(sorted(kind.__name__ for kind in types_of_name))
            raise RecordError(f'extra "{name}" is {names} in different records', expected="one type", fix="Convert it.")
        types_by_name[name] = EXTRA_TYPES[types_of_name.pop()]
    return types_by_name


def column_meaning(table: str, name: str) -> str:
    """Return the meaning of a column of a table."""
    return TABLES[table][name].meaning if name in TABLES[table] else _EXTRA
