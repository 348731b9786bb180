"""Compare the zoo's tables with the records: members and epochs row by row, splits as a whole."""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from vitzoo.errors import AuthenticityError, advise, shown
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.files import file_sha256
from vitzoo.records.json_files import read_bytes
from vitzoo.tables.build import build_table
from vitzoo.tables.cards import front_matter
from vitzoo.tables.columns import TABLES
from vitzoo.tables.read import KEYS, REBUILD, load_table
from vitzoo.verification.members import Findings, Scope
from vitzoo.verification.problems import Problems

_ABSENT = advise(
    repository="Get the member again; if it was deleted, write the tables again: python -m training run.",
    wheel="Get the member again.",
)
_SHOWN = 3  # columns, rows or members that a message names
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
            for row in expected:
                if row.get("pretraining_objective", "") is None:  # the parent was not checked, or cannot be read
                    del row["pretraining_objective"]
            all_sound = not unknown and not others_allowed and len(sound) == len(findings)
            if name != "splits" or all_sound:
                _compare(known, problems, name, expected=expected, rows=rows)
    if loaded == TABLES.keys():
        with problems.collecting(file=str(layout.METADATA_README)):
            _check_card(scope, problems)


def _compare(
    known: Mapping[str, Findings], problems: Problems, name: str, *, expected: list[_Row], rows: list[_Row]
) -> None:
    """Compare a table with the rows that follow from the records. Differences of a member's rows are its problems."""
    keys, file = KEYS[name], str(layout.table_file(name))
    right, actual = ({tuple(row[key] for key in keys): row for row in table} for table in (expected, rows))
    if len(actual) != len(rows):
        problems.add("has duplicate rows", file=file, fix=REBUILD)
    members = {row["id"] for row in expected}
    differences: dict[Problems, list[str]] = {}
    for key in dict.fromkeys([*right, *actual]):
        member = key[keys.index("id")]
        difference = _difference(right.get(key), actual.get(key))
        if difference is not None and (name == "splits" or member in members):
            of = problems if name == "splits" else known[member].problems
            differences.setdefault(of, []).append(f"row {' '.join(map(shown, key))} {difference}")
    for of, texts in differences.items():
        more = f"; and {len(texts) - _SHOWN} more rows" if len(texts) > _SHOWN else ""
        of.add(f"differs from the records: {'; '.join(texts[:_SHOWN])}{more}", file=file, fix=REBUILD)


def _difference(expected: _Row | None, actual: _Row | None) -> str | None:
    """Describe how a row differs from the expected one; None if it does not."""
    if actual is None:
        return "is missing"
    if expected is None:
        return "should not exist"
    columns = [column for column, value in expected.items() if actual.get(column) != value]
    texts = [f"{name} {_format(actual.get(name))}, expected {_format(expected[name])}" for name in columns[:_SHOWN]]
    more = f" and {len(columns) - _SHOWN} more columns" if len(columns) > _SHOWN else ""
    return f"has {', '.join(texts)}{more}" if texts else None


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
            fix=REBUILD,
        )
