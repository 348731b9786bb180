"""Rows: what a benchmark says, as a line when it is known, in two tables at the end, and as JSON.

    {"version": 1, "about": {"date": ..., "device": ..., "trained": ..., "versions": {...}}, "rows": [{...}, ...]}

A row's fields are `Row`'s; those that it has nothing to say of are null.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One result.

    Args:
        part: Of the benchmark, such as ``steps``.
        member: What is trained: ``supervised, 256 images``.
        what: How: ``compiled``, ``compiled, end to end``.
        images_per_second: Each view of an image counted.
        step_ms: Median milliseconds of an optimizer step.
        rounds_ms: Milliseconds a step of each round.
        peak_share: Share of the device's matrix-product rate, 0 to 1.
        ratio: This speed to that of the row that ``ratio_to`` names: the median of the rounds' ratios.
        ratio_to: ``what`` of a row of the same member.
        waiting: Share of the time in which the loop waited for images, 0 to 1; a GPU may have worked meanwhile.
        compile_seconds: What the first step took beyond a step.
        seconds: A time that is no step's; ``note`` says which.
        share: That time as a share of what ``note`` says, 0 to 1.
        note: What else there is to say; of what was not measured, why.
    """

    part: str
    member: str
    what: str
    images_per_second: float | None = None
    step_ms: float | None = None
    rounds_ms: tuple[float, ...] = ()
    peak_share: float | None = None
    ratio: float | None = None
    ratio_to: str | None = None
    waiting: float | None = None
    compile_seconds: float | None = None
    seconds: float | None = None
    share: float | None = None
    note: str = ""

    @property
    def spread(self) -> float | None:
        """Difference of the slowest and the fastest round, as a share of the median; None without rounds."""
        if self.step_ms is None or not self.rounds_ms:
            return None
        return (max(self.rounds_ms) - min(self.rounds_ms)) / self.step_ms

    def describe(self) -> str:
        """The row in a line."""
        told = [
            _format(self.images_per_second, ",.0f", "{} images/s"),
            _format(self.step_ms, ",.1f", "{} ms a step"),
            _format(self.spread, ".1%", "spread {}"),
            _format(self.peak_share, ".1%", "{} of the peak"),
            _format(self.ratio, ".3f", f"{{}} times {self.ratio_to}"),
            _format(self.waiting, ".1%", "waited {}"),
            _format(self.compile_seconds, ".1f", "compiled in {} s"),
            _format(self.seconds, ".3f", "{} s"),
            _format(self.share, ".2%", "{}"),
            self.note,
        ]
        return f"{self.member}; {self.what}: " + ", ".join(text for text in told if text)


def build_tables(rows: Sequence[Row]) -> list[Table]:
    """The rows that are speeds in one table, the others in another."""
    speeds = [row for row in rows if row.images_per_second is not None]
    times = [row for row in rows if row.images_per_second is None]
    tables = []
    if speeds:
        columns = ("images/s", "ms a step", "spread", "of peak", "ratio", "to", "waited", "compile s")
        tables.append(_table(speeds, columns, _speed_cells))
    if times:
        tables.append(_table(times, ("seconds", "share", "note"), _time_cells))
    return tables


def write_rows(path: Path, rows: Sequence[Row], *, about: Mapping[str, Any]) -> None:
    """Write all rows as JSON."""
    content = {"version": 1, "about": dict(about), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _table(rows: Sequence[Row], columns: tuple[str, ...], cells: Callable[[Row], tuple[str, ...]]) -> Table:
    table = Table("member", "how", box=None, padding=(0, 1))
    for column in columns:
        table.add_column(column, justify="left" if column in ("to", "note") else "right")
    before = None
    for row in rows:
        table.add_row("" if row.member == before else row.member, row.what, *cells(row))
        before = row.member
    return table


def _speed_cells(row: Row) -> tuple[str, ...]:
    return (
        _format(row.images_per_second, ",.0f"),
        _format(row.step_ms, ",.1f"),
        _format(row.spread, ".1%"),
        _format(row.peak_share, ".1%"),
        _format(row.ratio, ".3f"),
        row.ratio_to or "",
        _format(row.waiting, ".1%"),
        _format(row.compile_seconds, ".1f"),
    )


def _time_cells(row: Row) -> tuple[str, ...]:
    return _format(row.seconds, ".3f"), _format(row.share, ".2%"), row.note


def _format(value: float | None, form: str, text: str = "{}") -> str:
    return "" if value is None else text.format(format(value, form))
