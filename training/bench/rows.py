"""Time ways of training in turn, and show the results as a table.

Ways take turns round after round, so that a machine that slows down does so for all of them.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rich.table import Table

_WARM_UP = 2  # steps after the first

Take = Callable[[int], float]  # takes a number of steps, and returns the seconds until the device has done them


def _column(title: str, form: str = "", default: Any = None) -> Any:
    return field(default=default, metadata={"title": title, "format": form})


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A result. Every field with a title is a column of the table."""

    part: str  # of the benchmark, such as "steps"
    member: str = _column("member", default="")  # "supervised, 256 images"
    what: str = _column("how", default="")  # way of training it: "compiled", "compiled, end to end"
    images_per_second: float | None = _column("images/s", ",.0f")  # each view counted
    members_per_hour: float | None = _column("members/h", ",.1f")  # whole members at that speed, metrics included
    step_ms: float | None = _column("ms a step", ",.1f")  # median of the rounds
    rounds_ms: tuple[float, ...] = ()  # milliseconds a step of each round
    spread: float | None = _column("spread", ".1%")  # slowest less fastest round, as a fraction of the median
    peak_share: float | None = _column("of peak", ".1%")  # fraction of the device's matrix-product rate
    ratio: float | None = _column("ratio", ".3f")  # speed as a multiple of another row's: median of the rounds' ratios
    ratio_to: str | None = _column("to")  # `what` of that other row of the same member
    compile_seconds: float | None = _column("compile s", ".1f")  # of the first step, beyond a step
    seconds: float | None = _column("seconds", ".3f")  # another time, which `note` explains
    share: float | None = _column("share", ".2%")  # that time as a fraction, which `note` explains
    note: str = _column("note", default="")  # explanation, or the reason why something was not measured


def measure(
    ways: Sequence[tuple[Row, Take]], *, steps: int, rounds: int, say: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Time ways of training in turn: A B C, A B C, ... after the first steps of every way.

    Args:
        ways: Rows with the name of a way, and the name of the way that it is compared with, if any.
        steps: Steps of a round.
        rounds: Rounds of every way.
        say: Called with a line on the current work.

    Returns:
        The rows with their times and ratios.
    """
    first: dict[str, float] = {}
    for row, take in ways:
        say(f"first step: {row.what}")
        first[row.what] = take(1)
        take(_WARM_UP)
    times: dict[str, list[float]] = {row.what: [] for row, _ in ways}
    for number in range(1, rounds + 1):
        for row, take in ways:
            say(f"round {number} of {rounds}: {row.what}")
            times[row.what].append(take(steps) / steps)
    measured = []
    for row, _ in ways:
        own, step = times[row.what], statistics.median(times[row.what])
        ratios = [] if row.ratio_to is None else [b / a for a, b in zip(own, times[row.ratio_to], strict=True)]
        measured.append(
            replace(
                row,
                step_ms=1000 * step,
                rounds_ms=tuple(1000 * seconds for seconds in own),
                spread=(max(own) - min(own)) / step,
                ratio=statistics.median(ratios) if ratios else None,
                compile_seconds=max(0.0, first[row.what] - step) if row.what.endswith("compiled") else None,
            )
        )
    return measured


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
