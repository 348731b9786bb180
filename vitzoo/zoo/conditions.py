"""Conditions on the columns of tables, as text (``head_type=mlp,optimizer=adamw|sgd``) and as values.

See `vitzoo.zoo.selection` for how conditions select checkpoints, and `vitzoo.records.epochs` for choices of epochs.
"""

import math
import numbers
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.ids import MemberId, MemberRef
from vitzoo.zoo.member import Member

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS: dict[str, type] = {"string": str, "int64": int, "double": float, "bool": bool}  # by Arrow type
_EXPECTED = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
_COMPARISON = re.compile(r"(\w{1,64})\s*(>=|<=|==|>|<)\s*([^\s<>=]{1,64})")
_BOUNDS = {">": "min_", "<": "max_", "=": ""}
_NULL = "null"
_SHOWN = 8  # alternatives in a message


def parse_where(text: str) -> dict[str, object]:
    """Parse conditions into names and values, as `Condition` takes them, in the text's order.

    Args:
        text: ``name=value`` pairs joined by commas, such as ``head_type=mlp,optimizer=adamw|sgd``; empty for none.
            ``|`` joins alternatives, and ``null`` is a missing value.

    Raises:
        SelectionError: A part is not such a pair, or a name occurs twice.

    Example:
        >>> parse_where("head_width=null,optimizer=adamw|sgd")
        {'head_width': None, 'optimizer': ['adamw', 'sgd']}
    """
    if not isinstance(text, str):
        raise SelectionError(
            f"{text!r} is not text",
            expected='text such as "head_type=mlp"',
            fix='Give other conditions by name, such as head_type="mlp".',
            value=text,
        )
    conditions: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (side.strip() for side in part.partition("="))
        values = [None if value == _NULL else value for value in value.split("|")]
        if not name or name.endswith((">", "<", "!")) or "" in values or value.startswith("="):
            raise SelectionError(
                f'"{part}" is not a condition',
                expected='<name>=<value> or <name>=<value>|<value>, such as "optimizer=adamw|sgd"',
                fix=_suggest(part),
                value=part,
            )
        if name in conditions:
            raise SelectionError(
                f'"{text}" has two conditions on {name}',
                fix=f'Join alternatives by "|", such as {name}={value}|...',
                value=part,
            )
        conditions[name] = values[0] if len(values) == 1 else values
    return conditions


def _suggest(part: str) -> str:
    """Return how a comparison, such as ``test_accuracy>0.9``, is written as a condition."""
    match = _COMPARISON.fullmatch(part)
    if match is None:
        return "Bound a column with min_<column>=<number> or max_<column>=<number>."
    name, sign, value = match.groups()
    included = f", which includes {value}" if sign in (">", "<") else ""
    return f"Write {_BOUNDS[sign[0]]}{name}={value}{included}."


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a column's value.

    Args:
        name: A column of text, numbers or truth values; or ``min_<column>`` and ``max_<column>`` (both inclusive) of a
            column of numbers.
        choice: A value, None for null, or a list, tuple or set of alternatives. Whole numbers also take a range, which
            selects the existing values in it. Numbers may be text.

    Example:
        >>> str(Condition("optimizer", ["adamw", "sgd"]))
        'optimizer=adamw|sgd'
    """

    name: str
    choice: object

    def __post_init__(self):
        if isinstance(self.choice, Iterator):  # which can be read once only
            object.__setattr__(self, "choice", list(self.choice))

    def __str__(self) -> str:
        return f"{self.name}={describe(self.choice)}"

    def find(self, tables: "Mapping[str, pa.Table]") -> tuple[str, list[bool]]:
        """Return the table's name and, for each of its rows, whether it meets the condition.

        Args:
            tables: Tables by name. The first one with the column is searched.

        Raises:
            SelectionError: There is no such column, the value does not fit its type, or no row has it.
        """
        columns = condition_columns(tables)
        if self.name not in columns:
            raise SelectionError(
                f'There is no "{self.name}" to choose by', fix=did_you_mean(self.name, columns), value=self.name
            )
        table, column, bound = columns[self.name]
        kind, row = _KINDS[str(tables[table].schema.field(column).type)], table.removesuffix("s")
        values = tables[table].column(column).to_pylist()
        known = set(values)
        if bound:
            accepted = self._within(bound, known - {None}, row)
        elif isinstance(self.choice, range):
            accepted = self._in_range(self.choice, kind, known, row)
        else:
            accepted = {self._parse(value, kind, known) for value in alternatives(self.choice)}
            unknown = sorted(accepted - known, key=str)
            if unknown:
                raise self._no_row_has(unknown[0], known, row)
        return table, [value in accepted for value in values]

    def _within(self, bound: str, known: set[Any], row: str) -> set[Any]:
        limit = _number(self.choice)
        if limit is None:
            raise SelectionError(f"{self} is not a bound", expected="one number", value=self.choice)
        accepted = {value for value in known if (value >= limit if bound == "min_" else value <= limit)}
        if not accepted:
            raise SelectionError(
                f"No {row} has {self}",
                expected=f"a number from {_rounded(min(known))} to {_rounded(max(known))}"
                if known
                else "no bound of nulls",
                value=self.choice,
            )
        return accepted

    def _in_range(self, choice: range, kind: type, known: set[Any], row: str) -> set[Any]:
        if kind is not int:
            raise SelectionError(
                f"{self} is a range of whole numbers, but {self.name} is {_EXPECTED[kind]}",
                fix="Name the values, or bound numbers with min_<column> and max_<column>.",
                value=choice,
            )
        accepted = {value for value in known - {None} if value in choice}
        if not accepted:
            raise self._no_row_has(choice, known, row)
        return accepted

    def _parse(self, value: object, kind: type, known: set[Any]) -> str | int | float | None:
        """Convert a value to the column's type."""
        if value is None:
            return None
        if kind is str and isinstance(value, (str, MemberId)):
            return str(value)
        if kind is str and isinstance(value, MemberRef):
            return str(value.member)
        if kind is str and isinstance(value, Member):
            return str(value.id)
        if kind is bool and str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        if kind in (int, float) and (number := _number(value)) is not None:
            return number
        raise SelectionError(
            f"{self.name} is {_text(value)!r}",
            expected=_EXPECTED[kind],
            fix=did_you_mean(_text(value), _in_order(known)),
            value=value,
        )

    def _no_row_has(self, value: object, known: set[Any], row: str) -> SelectionError:
        return SelectionError(
            f'No {row} has {self.name} "{_text(value)}"',
            fix=did_you_mean(_text(value), _in_order(known)),
            value=value,
        )


def alternatives(choice: object) -> list[object]:
    """Return the values of a list, tuple or set of alternatives, or a list of the one value.

    Raises:
        SelectionError: There are no alternatives.
    """
    if not isinstance(choice, Iterable) or isinstance(choice, (str, bytes)):
        return [choice]
    values = list(cast("Iterable[object]", choice))
    if not values:
        raise SelectionError("A condition has an empty list of alternatives", expected="one or more", value=choice)
    return values


def describe(choice: object) -> str:
    """Write a value as `parse_where` reads it, with at most 8 alternatives."""
    if isinstance(choice, range):
        return str(choice)
    values = [_text(value) for value in alternatives(choice)]
    return "|".join(values[:_SHOWN]) + ("|..." if len(values) > _SHOWN else "")


def condition_columns(tables: "Mapping[str, pa.Table]") -> dict[str, tuple[str, str, str]]:
    """Return the table, column and bound (``min_``, ``max_`` or empty) of every name that a condition may have."""
    fields = [(table, field) for table, columns in tables.items() for field in columns.schema]
    kinds = [(table, field.name, _KINDS[str(field.type)]) for table, field in fields if str(field.type) in _KINDS]
    columns: dict[str, tuple[str, str, str]] = {}
    for table, name, _ in kinds:
        columns.setdefault(name, (table, name, ""))
    for bound in ("min_", "max_"):
        for table, name, kind in kinds:
            if kind in (int, float):
                columns.setdefault(bound + name, (table, name, bound))
    return columns


def _number(value: Any) -> int | float | None:
    """Convert a finite number, numpy's too, or its text; return None for anything else, also for a bool."""
    if isinstance(value, bool) or not isinstance(value, (str, numbers.Real)):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, str):
        with suppress(ValueError):
            return int(value)  # exact, however long
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _in_order(known: set[Any]) -> list[str]:
    return [_text(value) for value in sorted(known, key=lambda value: (value is None, 0 if value is None else value))]


def _rounded(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _text(value: object) -> str:
    return _NULL if value is None else repr(value) if type(value) is float else str(value)
