"""Show objects that users hold: one short line in a console, and small tables of HTML in a notebook.

Names and metrics come from a zoo, which is not trusted, so all text is escaped.
"""

from collections.abc import Mapping, Sequence
from html import escape
from math import isnan

from vitzoo.errors import printable

_LONGEST = 199  # characters of a repr
_LONGEST_VALUE = 60
_FEW = 4  # items of a sequence that are listed
_ROWS = 10  # of a table that are shown
_COLUMNS = 12


class Shown:
    """Base of objects that users hold: their repr is one short line, and a notebook shows a table.

    A subclass that is a dataclass sets ``repr=False``.
    """

    __slots__ = ()

    def _facts(self) -> Mapping[str, object]:
        """Return values by name, the fields of a dataclass by default."""
        names = getattr(self, "__dataclass_fields__", ())
        return {name: getattr(self, name) for name in names if not name.startswith("_")}

    def _table_rows(self) -> Sequence[Mapping[str, object]]:
        """Return the rows of a table under the facts; none by default."""
        return ()

    def __repr__(self) -> str:
        return one_line(type(self).__name__, self._facts())

    def _repr_html_(self) -> str:
        return as_html(type(self).__name__, self._facts(), self._table_rows())


def one_line(name: str, facts: Mapping[str, object]) -> str:
    """Return a repr of at most 199 characters, such as ``Fold(scheme=by_parent, name=0)``."""
    text = f"{name}({', '.join(f'{key}={brief(value)}' for key, value in facts.items())})"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]}...)"


def brief(value: object) -> str:
    """Return a value as a short text of one line: an array by dtype and shape, a long sequence by its length."""
    shape = getattr(value, "shape", None)
    if isinstance(value, float):
        text = f"{value:.4g}"
    elif shape is not None and hasattr(value, "dtype") and len(shape):
        text = f"{str(getattr(value, 'dtype', '')).removeprefix('torch.')}{list(shape)}"
    elif isinstance(value, Mapping):
        text = f"{len(value)} items"
    elif isinstance(value, (list, tuple)):
        few = 0 < len(value) <= _FEW
        text = ", ".join(map(brief, value)) if few else f"{len(value)} {type(value[0]).__name__}" if value else "none"
    elif isinstance(value, bytes):
        text = f"{len(value)} bytes"
    else:
        text = str(value)
    text = printable(text[: 2 * _LONGEST_VALUE])
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def as_html(title: str, facts: Mapping[str, object], rows: Sequence[Mapping[str, object]] = ()) -> str:
    """Return a title, a table of names and values, and the first rows of another table, all escaped."""
    lines = "".join(f"<tr><th>{_cell(key)}</th><td>{_cell(value)}</td></tr>" for key, value in facts.items())
    html = f"<div><strong>{escape(title)}</strong><table><tbody>{lines}</tbody></table>"
    if rows:
        columns = list(rows[0])[:_COLUMNS]
        head = "".join(f"<th>{_cell(column)}</th>" for column in columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{_cell(row.get(column))}</td>' for column in columns)}</tr>" for row in rows[:_ROWS]
        )
        html += f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        if len(rows) > _ROWS:
            html += f"<small>{_ROWS} of {len(rows)} rows</small>"
    return f"{html}</div>"


def _cell(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and isnan(value)) else escape(brief(value))
