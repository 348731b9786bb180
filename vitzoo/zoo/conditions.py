"""Conditions on the columns of tables, as text (``head_type=mlp,optimizer=adamw|sgd``) and as values.

See `vitzoo.zoo.selection` for how conditions select checkpoints, and `vitzoo.records.epochs` for choices of epochs.
"""

import math
import numbers
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.ids import MemberId, MemberRef

if TYPE_CHECKING:
    import pyarrow as pa  # tables are handed in: whoever only chooses epochs does without it

_KINDS: dict[str, type] = {
    "string": str,
    "int64": int,
    "double": float,
    "bool": bool,
}
_BOUNDS = {"min_": "at least", "max_": "at most"}
_NULL = "null"
_WHOLE = re.compile(r"-?\d{1,30}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:[eE][+-]?\d{1,4})?", re.ASCII)
_SHOWN = 8  # alternatives that a message names


def parse_where(text: str) -> dict[str, object]:
    """The conditions that a text names, as `Condition` takes them.

    Args:
        text: ``name=value`` pairs joined by commas, such as ``head_type=mlp,optimizer=adamw|sgd``; empty for none.
            ``|`` stands between alternatives, ``null`` for a value that is not there.

    Returns:
        Values, None or lists of them by name, in the text's order.

    Raises:
        SelectionError: A part is no such pair, or a name stands twice.

    Example:
        >>> parse_where("head_width=null,optimizer=adamw|sgd")
        {'head_width': None, 'optimizer': ['adamw', 'sgd']}
    """
    if not isinstance(text, str):
        raise SelectionError(
            f'{text!r} is no text of conditions, such as "head_type=mlp": give conditions by name, head_type="mlp".',
            value=text,
        )
    conditions: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (one.strip() for one in part.partition("="))
        alternatives = [None if one == _NULL else one for one in value.split("|")]
        if name.endswith((">", "<")):
            bound = "min_" if name.endswith(">") else "max_"
            raise SelectionError(f'"{part}" is spelled {bound}{name[:-1]}={value}.', value=part)
        if not name or "" in alternatives:
            raise SelectionError(
                f'"{part}" is no condition: expected <name>=<value> or <name>=<value>|<value>, such as '
                '"optimizer=adamw|sgd".',
                value=part,
            )
        if name in conditions:
            raise SelectionError(
                f'"{text}" has two conditions on {name}',
                fix=f'Join alternatives by "|", such as {name}={value}|...',
                value=part,
            )
        conditions[name] = alternatives[0] if len(alternatives) == 1 else alternatives
    return conditions


@dataclass(frozen=True, slots=True)
class Condition:
    """What a column's value must be.

    Args:
        name: A column of text or numbers; or ``min_<column>``, ``max_<column>`` (both inclusive) of one of numbers.
        wanted: A value, None for null, a list, tuple or set of alternatives; of whole numbers also a range, which
            stands for those of it that exist. Numbers may be spelled as text.

    Example:
        >>> str(Condition("optimizer", ["adamw", "sgd"]))
        'optimizer=adamw|sgd'
    """

    name: str
    wanted: object

    def __post_init__(self):
        if isinstance(self.wanted, Iterator):  # which could be looked at once only
            object.__setattr__(self, "wanted", list(self.wanted))

    def __str__(self) -> str:
        return f"{self.name}={describe(self.wanted)}"

    def find(self, tables: "Mapping[str, pa.Table]") -> tuple[str, list[bool]]:
        """The rows that it holds of.

        Args:
            tables: The first that has the column is the one that is meant.

        Returns:
            The table's name, and for each of its rows whether the condition holds.

        Raises:
            SelectionError: There is no such column, the value is none of its kind, or no row has it.
        """
        table, column, bound = self._place(tables)
        kind, found = _KINDS[str(tables[table].schema.field(column).type)], tables[table].column(column).to_pylist()
        of = table.removesuffix("s")
        if bound is not None:
            return table, self._within(found, kind, bound=bound, of=of)
        known = set(found)
        if isinstance(self.wanted, range):
            return table, self._in_range(found, kind, self.wanted, of=of)
        wanted = [self._parse(value, kind, known) for value in alternatives(self.wanted)]
        for value in wanted:
            if value not in known:
                raise self._none_has(value, known, of=of)
        chosen = set(wanted)
        return table, [value in chosen for value in found]

    def _place(self, tables: "Mapping[str, pa.Table]") -> tuple[str, str, str | None]:
        """The table and the column that are meant, and which bound of it."""
        for table, columns in tables.items():
            kinds = {field.name: _KINDS.get(str(field.type)) for field in columns.schema}
            if kinds.get(self.name) is not None:
                return table, self.name, None
            bound, column = self.name[:4], self.name[4:]
            if bound in _BOUNDS and kinds.get(column) in (int, float):
                return table, column, bound
        raise SelectionError(f'There is no "{self.name}" to choose by.{did_you_mean(self.name, _names(tables))}',
                             value=self.name)  # fmt: skip

    def _within(self, found: Sequence[Any], kind: type, *, bound: str, of: str) -> list[bool]:
        there = [value for value in found if value is not None]
        limit = None if _is_several(self.wanted) or self.wanted is None else _number(self.wanted)
        if limit is None:
            raise SelectionError(f"{self} is no bound: expected one number.", value=self.wanted)
        holds = [value is not None and (value >= limit if bound == "min_" else value <= limit) for value in found]
        if not any(holds):
            column = self.name.removeprefix(bound)
            span = f"they go from {_text(min(there))} to {_text(max(there))}" if there else "it is null of all"
            raise SelectionError(
                f"No {of} has a {column} of {_BOUNDS[bound]} {_text(limit)}: {span}.", value=self.wanted
            )
        return holds

    def _in_range(self, found: Sequence[Any], kind: type, wanted: range, *, of: str) -> list[bool]:
        if kind is not int:
            raise SelectionError(
                f"{self}: a range is of whole numbers, which {self.name} is not. Name the values"
                + (f", or say min_{self.name} and max_{self.name}." if kind is float else "."),
                value=wanted,
            )
        holds = [value is not None and value in wanted for value in found]
        if not any(holds):
            raise self._none_has(wanted, set(found), of=of)
        return holds

    def _none_has(self, value: object, known: set[Any], *, of: str) -> SelectionError:
        names = [_text(one) for one in _ordered(known)]
        return SelectionError(
            f'No {of} has {self.name} "{_text(value)}".{did_you_mean(_text(value), names)}', value=value
        )

    def _parse(self, value: object, kind: type, known: set[Any]) -> str | int | float | None:
        """A value as the column has it."""
        if value is None:
            return None
        if kind is str and isinstance(value, (str, MemberId)):
            return str(value)
        if kind is str and isinstance(value, MemberRef):
            return str(value.member)
        if kind is bool and str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        if kind in (int, float):
            number = _number(value)
            if number is not None:
                return number
        expected = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}[kind]
        names = [_text(one) for one in _ordered(known)]
        raise SelectionError(
            f"{self.name} is {expected}, not {_text(value)!r}.{did_you_mean(_text(value), names)}", value=value
        )


def alternatives(wanted: object) -> list[object]:
    """The values of which one is wanted.

    Raises:
        SelectionError: There are none.
    """
    if not _is_several(wanted):
        return [wanted]
    values = list(cast("Iterable[object]", wanted))
    if not values:
        raise SelectionError("A condition has an empty list of alternatives: nothing can match it.", value=wanted)
    return values


def _is_several(wanted: object) -> bool:
    return isinstance(wanted, Iterable) and not isinstance(wanted, (str, bytes, Mapping))


def describe(wanted: object) -> str:
    """What is wanted, as `parse_where` spells it; of many alternatives the first."""
    if isinstance(wanted, range):
        return str(wanted)
    values = [_text(value) for value in alternatives(wanted)]
    return "|".join(values[:_SHOWN]) + ("|..." if len(values) > _SHOWN else "")


def _names(tables: "Mapping[str, pa.Table]") -> list[str]:
    """Everything that can be chosen by."""
    kinds = {
        field.name: _KINDS[str(field.type)]
        for table in tables.values()
        for field in table.schema
        if str(field.type) in _KINDS
    }
    return [*kinds, *(bound + name for bound in _BOUNDS for name, kind in kinds.items() if kind in (int, float))]


def _number(value: object) -> int | float | None:
    """A number, numpy's too, or its text; None for what is none, as a bool."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if not isinstance(value, (str, numbers.Real)) or isinstance(value, bool):
        return None
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)  # exact, however long
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _ordered(known: set[Any]) -> list[Any]:
    return sorted(known, key=lambda value: (value is None, 0 if value is None else value))


def _text(value: object) -> str:
    return _NULL if value is None else repr(value) if type(value) is float else str(value)
