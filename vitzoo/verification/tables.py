"""Compare the zoo's tables with the records: members and epochs row by row, splits as a whole."""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from vitzoo.errors import AuthenticityError, shown
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.files import file_sha256
from vitzoo.records.json_files import read_bytes
from vitzoo.tables.build import build_table
from vitzoo.tables.cards import front_matter
from vitzoo.tables.columns import TABLES
from vitzoo.tables.read import load_table
from vitzoo.verification.members import Findings, Scope
from vitzoo.verification.problems import Problems

_REBUILD = "Write the tables again: python -m training run."
_ABSENT = "Get the member again; if it was deleted, write the tables again: python -m training run."
_SHOWN = 3  # columns, epochs or members that a message names
_Row = dict[str, Any]


def check_tables(
    scope: Scope, problems: Problems, findings: Mapping[MemberId, Findings], *, others_allowed: bool
) -> None:
    """Compare each table with the records, and the card with the tables.

    Splits follow from all members, so they are compared only if every member has sound records. With ``others_allowed``
    the tables may have rows of members that were not checked.
    """
    sound = [
        (result.record, result.metrics) for result in findings.values() if result.record is not None and result.metrics
    ]
    known = {str(member): result for member, result in findings.items()}
    loaded = set()
    for name in TABLES:
        file = str(layout.table_file(name))
        with problems.collecting():
            try:
                rows = load_table(scope.source, name).to_pylist()
            except AuthenticityError:
                continue  # the manifest names another file, which is a problem already
            loaded.add(name)
            expected = build_table(name, sound, epochs=scope.published).to_pylist()
            unknown = [member for member in dict.fromkeys(row["id"] for row in rows) if member not in known]
            if unknown and not others_allowed:
                problems.add(f"has rows of {_few(unknown)}, but the zoo has no such members", file=file, fix=_ABSENT)
            if name != "splits":
                _compare_members(known, problems, file, expected=_by_member(expected), rows=rows)
            elif not unknown and not others_allowed and len(sound) == len(findings):
                _compare_splits(problems, file, expected=_parts_by_row(expected), rows=rows)
    if loaded == TABLES.keys():
        with problems.collecting(file=str(layout.METADATA_README)):
            _check_card(scope, problems)


def _compare_members(
    known: Mapping[str, Findings],
    problems: Problems,
    file: str,
    *,
    expected: dict[str, dict[int | None, _Row]],
    rows: list[_Row],
) -> None:
    """Compare a table with one row per member, or per member and epoch."""
    actual = _by_member(rows)
    if sum(map(len, actual.values())) != len(rows):
        problems.add("has duplicate rows", file=file, fix=_REBUILD)
    for member, by_epoch in expected.items():
        for row in by_epoch.values():
            if row.get("pretraining_objective", "") is None:  # the parent was not checked, or cannot be read
                del row["pretraining_objective"]
        _compare_rows(known[member].problems, file, expected=by_epoch, actual=actual.get(member, {}))


def _compare_rows(
    problems: Problems, file: str, *, expected: dict[int | None, _Row], actual: dict[int | None, _Row]
) -> None:
    """Compare the rows of one member in one table."""
    missing = [epoch for epoch in expected if epoch not in actual]
    if missing:
        problems.add(f"{file} has no row{_of_epochs(missing)}", fix=_REBUILD)
    more = [epoch for epoch in actual if epoch not in expected]
    if more:
        problems.add(f"{file} has a row{_of_epochs(more)}, but metrics.jsonl has none", fix=_REBUILD)
    differing: dict[int | None, list[str]] = {}
    for epoch, row in expected.items():
        for column, value in row.items() if epoch in actual else ():
            if actual[epoch].get(column) != value:
                text = f"{column} {_format(actual[epoch].get(column))}, expected {_format(value)}"
                differing.setdefault(epoch, []).append(text)
    if differing:
        values = next(iter(differing.values()))
        more_columns = f"; and {len(values) - _SHOWN} more columns" if len(values) > _SHOWN else ""
        what = f"{file} differs from the records{_of_epochs(list(differing))}: {'; '.join(values[:_SHOWN])}"
        problems.add(what + more_columns, fix=_REBUILD)


def _compare_splits(problems: Problems, file: str, *, expected: dict[Any, str], rows: list[_Row]) -> None:
    """Compare the table with one row per scheme, fold and member."""
    actual = _parts_by_row(rows)
    if len(actual) != len(rows):
        problems.add("has duplicate rows", file=file, fix=_REBUILD)
    keys = [*expected, *(key for key in actual if key not in expected)]
    differing = [key for key in keys if actual.get(key) != expected.get(key)]
    if differing:
        scheme, fold, member = map(shown, differing[0])
        part, right = (parts.get(differing[0], "in no part") for parts in (actual, expected))
        problems.add(
            f"differs from the members' splits in {len(differing)} of {len(keys)} rows: in {scheme}, fold {fold}, "
            f"{member} is {part}, expected {right}",
            file=file,
            fix=_REBUILD,
        )


def _parts_by_row(rows: list[_Row]) -> dict[Any, str]:
    return {
        (row["scheme"], row["fold"], row["id"]): f"in {shown(row['part'])} (sound: {shown(row['sound'])})"
        for row in rows
    }


def _by_member(rows: list[_Row]) -> dict[str, dict[int | None, _Row]]:
    """Group rows by member, then by epoch. The rows of members have no epoch."""
    by_member: dict[str, dict[int | None, _Row]] = {}
    for row in rows:
        by_member.setdefault(row["id"], {})[row.get("epoch")] = row
    return by_member


def _of_epochs(epochs: list[int | None]) -> str:
    return "" if epochs == [None] else f" of epoch {_few(epochs)}"


def _few(values: list[Any]) -> str:
    more = len(values) - _SHOWN
    return ", ".join(map(shown, values[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _format(value: Any) -> str:
    return "a list" if isinstance(value, list) else shown(value)


def _check_card(scope: Scope, problems: Problems) -> None:
    """Check that the card begins as `write_tables` writes it: `datasets` reads the files that it names."""
    digests = {name: file_sha256(scope.source.path(layout.table_file(name))) for name in TABLES}
    recipe = str(scope.source.record.recipe.get("name", "custom"))
    expected = "\n".join(front_matter(digests, recipe=recipe)) + "\n"
    card = read_bytes(scope.source.path(layout.METADATA_README))
    if not card.startswith(expected.encode()):
        lines = zip_longest(card.decode(errors="replace").splitlines(), expected.splitlines())
        line, right = next((pair for pair in lines if pair[0] != pair[1]), ("", ""))
        problems.add(
            f"says {shown(line)}, expected {shown(right)}: datasets may read other files, or show old rows",
            file=str(layout.METADATA_README),
            fix=_REBUILD,
        )
