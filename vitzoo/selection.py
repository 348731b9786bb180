"""Which members and which epochs: ``head_type=mlp,optimizer=adamw`` and ``last``, as text and as values.

Pure: what a choice means for a zoo's files is asked of the zoo (`vitzoo.zoo`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitzoo.errors import SelectionError, did_you_mean

_EVERY = re.compile(r"every-(?P<step>[1-9]\d{0,8})", re.ASCII)
_EPOCHS = re.compile(r"(?:0|[1-9]\d{0,8})(?:,(?:0|[1-9]\d{0,8}))*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Epochs:
    """A choice of epochs: ``all``, ``last`` (the final weights), ``every-10`` (and the final ones) or ``0,10,20``.

    Args:
        text: The choice; `str()` gives it back.

    Raises:
        SelectionError: It is none of these.

    Example:
        >>> Epochs("every-10").of([0, 5, 10, 11, None])
        [0, 10, None]
    """

    text: str = "all"

    def __post_init__(self):
        if self.text not in ("all", "last") and not _EVERY.fullmatch(self.text) and not _EPOCHS.fullmatch(self.text):
            raise SelectionError(
                f'epochs "{self.text}" are no choice of epochs: expected "all", "last", "every-10" or "0,10,20".',
                value=self.text,
            )

    def __str__(self) -> str:
        return self.text

    def of(self, kept: Iterable[int | None]) -> list[int | None]:
        """Those of the kept epochs that are chosen; None among them stands for the final weights."""
        every = _EVERY.fullmatch(self.text)
        if self.text == "all":
            return list(kept)
        if self.text == "last":
            return [epoch for epoch in kept if epoch is None]
        if every is not None:
            return [epoch for epoch in kept if epoch is None or epoch % int(every["step"]) == 0]
        chosen = set(map(int, self.text.split(",")))
        return [epoch for epoch in kept if epoch in chosen]


def matching(where: str, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The rows that a condition holds of.

    Args:
        where: ``name=value`` pairs joined by commas, all of which must hold; empty for all rows. A value is compared as
            a number where the column holds numbers, else as text; ``null`` stands for a value that is not there.
        rows: What is chosen from; every row has the same names.

    Returns:
        Indices, ascending.

    Raises:
        SelectionError: A name is unknown, or a value that no row has; or nothing is left.
    """
    chosen = list(range(len(rows)))
    for condition in filter(None, where.split(",")):
        name, separator, value = condition.partition("=")
        factors = rows[0] if rows else ()
        if not separator or name not in factors:
            raise SelectionError(
                f'"{condition}" is no condition: expected <factor>=<value>.{did_you_mean(name, factors)}',
                value=condition,
            )
        known = sorted({_text(row[name]) for row in rows})
        wanted = [row[name] for row in rows if _is(row[name], value)]
        if not wanted:
            raise SelectionError(f'No member has {name} "{value}".{did_you_mean(value, known)}', value=condition)
        chosen = [i for i in chosen if _is(rows[i][name], value)]
        if not chosen:
            raise SelectionError(
                f'No member is left after "{condition}": each condition of "{where}" holds of some, all of none.',
                value=condition,
            )
    return chosen


def _text(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _is(found: Any, wanted: str) -> bool:
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        try:
            return found == float(wanted)
        except ValueError:
            return False
    return _text(found) == wanted
