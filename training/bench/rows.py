"""Results of a benchmark, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rich.table import Table


def _column(title: str, form: str = "", default: Any = None) -> Any:
    return field(default=default, metadata={"title": title, "format": form})


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A result. Every field with a title is a column of the table."""

    part: str  # of the benchmark, such as "steps"
    member: str = _column("member", default="")  # "supervised, 256 images"
    what: str = _column("how", default="")  # way of training it: "compiled", "compiled, end to end"
    images_per_second: float | None = _column("images/s", ",.0f")  # each view counted
    step_ms: float | None = _column("ms a step", ",.1f")  # median of the rounds
    rounds_ms: tuple[float, ...] = ()  # milliseconds a step of each round
    spread: float | None = _column("spread", ".1%")  # slowest less fastest round, as a fraction of the median
    peak_share: float | None = _column("of peak", ".1%")  # fraction of the device's matrix-product rate
    ratio: float | None = _column(
        "ratio", ".3f"
    )  # speed as a multiple of the other row's: median of the rounds' ratios
    ratio_to: str | None = _column("to")  # `what` of that other row of the same member
    waiting: float | None = _column("waited", ".1%")  # fraction of the time in which the loop waited for images
    compile_seconds: float | None = _column("compile s", ".1f")  # of the first step, beyond a step
    seconds: float | None = _column("seconds", ".3f")  # another time, which `note` explains
    share: float | None = _column("share", ".2%")  # that time as a fraction, which `note` explains
    note: str = _column("note", default="")  # explanation, or the reason why something was not measured


def build_table(rows: Sequence[Row]) -> Table:
    """Build a table of some rows, with the columns that any of them has."""
    columns = [column for column in fields(Row) if column.metadata]
    columns = [column for column in columns if any(getattr(row, column.name) not in (None, "") for row in rows)]
    table = Table(box=None, padding=(0, 1))
    for column in columns:
        table.add_column(column.metadata["title"], justify="right" if column.metadata["format"] else "left")
    for row in rows:
        values = [(getattr(row, column.name), column.metadata["format"]) for column in columns]
        table.add_row(*("" if value is None else format(value, form) for value, form in values))
    return table
