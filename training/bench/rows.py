"""Show the results of a benchmark: each in a line when it is measured, all in a table at the end, and as JSON.

    {"version": 1, "about": {"date": ..., "device": ..., "trained": ..., "versions": {...}}, "rows": [{...}, ...]}

A row has the fields of `Row`; a field without a value is null.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

_COLUMNS = {  # title and format by field
    "images_per_second": ("images/s", ",.0f"),
    "step_ms": ("ms a step", ",.1f"),
    "spread": ("spread", ".1%"),
    "peak_share": ("of peak", ".1%"),
    "ratio": ("ratio", ".3f"),
    "ratio_to": ("to", ""),
    "waiting": ("waited", ".1%"),
    "compile_seconds": ("compile s", ".1f"),
    "seconds": ("seconds", ".3f"),
    "share": ("share", ".2%"),
    "note": ("note", ""),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One result.

    Args:
        part: Part of the benchmark, such as ``steps``.
        member: Member that is trained: ``supervised, 256 images``.
        what: Way of training it: ``compiled``, ``compiled, end to end``.
        images_per_second: Images a second, each view counted.
        step_ms: Median milliseconds of an optimizer step.
        rounds_ms: Milliseconds a step of each round.
        peak_share: Fraction of the device's matrix-product rate, 0 to 1.
        ratio: Speed as a multiple of the row that ``ratio_to`` names: the median of the rounds' ratios.
        ratio_to: ``what`` of another row of the same member.
        waiting: Fraction of the time in which the loop waited for images, 0 to 1. A GPU may have worked meanwhile.
        compile_seconds: Seconds of the first step beyond a step.
        seconds: Another time, which ``note`` explains.
        share: That time as a fraction, 0 to 1, which ``note`` explains.
        note: Explanation, or the reason why something was not measured.
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
        """Return the slowest less the fastest round, as a fraction of the median; None without rounds."""
        if self.step_ms is None or not self.rounds_ms:
            return None
        return (max(self.rounds_ms) - min(self.rounds_ms)) / self.step_ms

    def describe(self) -> str:
        """Return the row in a line."""
        values = [f"{title} {text}" for field, (title, _) in _COLUMNS.items() if (text := self.cell(field))]
        return f"{self.member}; {self.what}: " + ", ".join(values)

    def cell(self, field: str) -> str:
        """Format one field; empty without a value."""
        value = getattr(self, field)
        return "" if value is None else format(value, _COLUMNS[field][1])


def build_table(rows: Sequence[Row]) -> Table:
    """Build a table of all rows, with the columns that any of them has."""
    fields = [field for field in _COLUMNS if any(row.cell(field) for row in rows)]
    table = Table("member", "how", box=None, padding=(0, 1))
    for field in fields:
        table.add_column(_COLUMNS[field][0], justify="left" if field in ("ratio_to", "note") else "right")
    before = None
    for row in rows:
        table.add_row("" if row.member == before else row.member, row.what, *map(row.cell, fields))
        before = row.member
    return table


def write_rows(path: Path, rows: Sequence[Row], *, about: Mapping[str, Any]) -> None:
    """Write all rows as JSON."""
    content = {"version": 1, "about": dict(about), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
