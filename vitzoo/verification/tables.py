"""The zoo's tables, held against the records that they were built from: members and epochs row by row, splits whole."""

import hashlib
from collections.abc import Mapping
from typing import Any

from vitzoo.errors import shown
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.json_files import read_bytes
from vitzoo.tables.build import build_table
from vitzoo.tables.columns import TABLES
from vitzoo.tables.read import load_table
from vitzoo.verification.members import Findings, Scope
from vitzoo.verification.problems import Problems

_REBUILD = "Write the tables again: python -m training run."
_ABSENT = "Get the member again; or, where it was taken away, write the tables again: python -m training run."
_SHOWN = 3  # columns, epochs or members that a message names
_Rows = dict[Any, dict[object, dict[str, Any]]]  # by id, then by epoch: a row of members has none


def check_tables(
    scope: Scope, problems: Problems, findings: Mapping[MemberId, Findings], *, others_allowed: bool
) -> None:
    """Hold each table against the records, and the card against the tables.

    Args:
        scope: What is looked at.
        problems: The zoo's own; those of a member's row become the member's.
        findings: What was found of each member; of one without sound records no row can be compared.
        others_allowed: Whether the tables may have rows of further members, which were not looked at. What the splits
            say follows from all members, so they are compared only where each was looked at and has sound records.
    """
    read = [(found.record, found.metrics) for found in findings.values() if found.record is not None and found.metrics]
    known = {str(member): found for member, found in findings.items()}
    for name in TABLES:
        file = layout.table_file(name)
        with problems.collecting():
            rows = load_table(scope.source, name).to_pylist()
            wanted = build_table(name, read, epochs=scope.published).to_pylist()
            strangers = [member for member in dict.fromkeys(row["id"] for row in rows) if member not in known]
            if strangers and not others_allowed:
                problems.add(
                    f"has rows of {_few(strangers)}, but the zoo has no such members", file=str(file), fix=_ABSENT
                )
            if name != "splits":
                _compare_members(known, problems, str(file), wanted=_by_member(wanted), rows=rows)
            elif not strangers and not others_allowed and len(read) == len(findings):
                _compare_splits(problems, str(file), wanted=wanted, rows=rows)
            _check_card(scope, problems, name)


def _compare_members(
    known: Mapping[str, Findings], problems: Problems, file: str, *, wanted: _Rows, rows: list[dict[str, Any]]
) -> None:
    """A table in which a member, or a member and an epoch, has one row."""
    found = _by_member(rows)
    if sum(map(len, found.values())) != len(rows):
        problems.add("has two rows of the same", file=file, fix=_REBUILD)
    for member, its in wanted.items():
        for row in its.values():
            if row.get("pretraining_objective", "") is None:  # the parent was not looked at, or cannot be read
                del row["pretraining_objective"]
        _compare_rows(known[member].problems, file, wanted=its, found=found.get(member, {}))


def _compare_splits(problems: Problems, file: str, *, wanted: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """The table in which a scheme, a fold and a member have one row."""
    found, expected = _parts_by_row(rows), _parts_by_row(wanted)
    if len(found) != len(rows):
        problems.add("has two rows of the same", file=file, fix=_REBUILD)
    every = [*expected, *(key for key in found if key not in expected)]
    other = [key for key in every if found.get(key) != expected.get(key)]
    if other:
        scheme, fold, member = other[0]
        is_in, belongs = (parts.get(other[0], "in no part") for parts in (found, expected))
        problems.add(
            f"is not what the members give, in {len(other)} of {len(every)} rows: in {shown(scheme)}, fold "
            f"{shown(fold)}, {shown(member)} is {is_in}, expected {belongs}",
            file=file,
            fix=_REBUILD,
        )


def _parts_by_row(rows: list[dict[str, Any]]) -> dict[tuple[Any, Any, Any], str]:
    return {
        (row["scheme"], row["fold"], row["id"]): f"in {shown(row['part'])} (sound: {shown(row['sound'])})"
        for row in rows
    }


def _by_member(rows: list[dict[str, Any]]) -> _Rows:
    by_member: _Rows = {}
    for row in rows:
        by_member.setdefault(row["id"], {})[row.get("epoch")] = row
    return by_member


def _compare_rows(
    problems: Problems, file: str, *, wanted: dict[object, dict[str, Any]], found: dict[object, dict[str, Any]]
) -> None:
    """The rows of one member in one table."""
    missing = [epoch for epoch in wanted if epoch not in found]
    if missing:
        problems.add(f"{file} has no row{_of_epochs(missing)}", fix=_REBUILD)
    more = [epoch for epoch in found if epoch not in wanted]
    if more:
        problems.add(f"{file} has a row{_of_epochs(more)}, but metrics.jsonl has none", fix=_REBUILD)
    other = {
        epoch: [column for column, value in row.items() if found[epoch].get(column) != value]
        for epoch, row in wanted.items()
        if epoch in found
    }
    differing = [epoch for epoch, columns in other.items() if columns]
    if differing:
        first = differing[0]
        values = [
            f"{column} {_brief(found[first].get(column))}, expected {_brief(wanted[first][column])}"
            for column in other[first]
        ]
        problems.add(
            f"{file} says otherwise than the records{_of_epochs(differing)}: {'; '.join(values[:_SHOWN])}"
            + (f"; and {len(values) - _SHOWN} more columns" if len(values) > _SHOWN else ""),
            fix=_REBUILD,
        )


def _of_epochs(epochs: list[object]) -> str:
    return "" if epochs == [None] else f" of epoch {_few(epochs)}"


def _few(values: list[Any]) -> str:
    more = len(values) - _SHOWN
    return ", ".join(map(shown, values[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _brief(value: Any) -> str:
    return "a list" if isinstance(value, list) else shown(value)


def _check_card(scope: Scope, problems: Problems, table: str) -> None:
    """The card names the digest of each table: `datasets` would show old rows otherwise."""
    digest = hashlib.sha256(scope.source.path(layout.table_file(table)).read_bytes()).hexdigest()
    if f"tables {digest}".encode() not in read_bytes(scope.source.path(layout.METADATA_README)):
        problems.add(
            f"does not name the sha256 of {table}.parquet, {digest[:16]}...: datasets may show old rows",
            file=str(layout.METADATA_README),
            fix=_REBUILD,
        )
