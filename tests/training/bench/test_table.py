"""Rows as lines, tables and JSON."""

import json
from io import StringIO
from pathlib import Path

from rich.console import Console

from training.bench.table import Row, build_tables, write_rows

STEP = Row(
    part="steps",
    member="supervised, 256 images",
    what="compiled",
    images_per_second=9142.86,
    step_ms=28.0,
    rounds_ms=(28.0, 27.3, 28.7),
    peak_share=0.318,
    ratio=2.5,
    ratio_to="eager",
    compile_seconds=21.04,
)
FED = Row(
    part="data",
    member="supervised, 256 images",
    what="compiled, end to end",
    images_per_second=8000.0,
    step_ms=32.0,
    ratio=0.875,
    ratio_to="compiled",
    waiting=0.114,
)
START = Row(part="start", member="child", what="warm", seconds=2.5, note="to the first step's end")
STALL = Row(part="checkpoint", member="child", what="beside", seconds=0.0273, share=0.005)
SKIPPED = Row(part="timm", member="child", what="timm", note="not measured: timm cannot be imported here")

LINES = {
    STEP: "supervised, 256 images; compiled: 9,143 images/s, 28.0 ms a step, spread 5.0%, 31.8% of the peak, "
    "2.500 times eager, compiled in 21.0 s",
    FED: "supervised, 256 images; compiled, end to end: 8,000 images/s, 32.0 ms a step, 0.875 times compiled, "
    "waited 11.4%",
    START: "child; warm: 2.500 s, to the first step's end",
    STALL: "child; beside: 0.027 s, 0.50%",
    SKIPPED: "child; timm: not measured: timm cannot be imported here",
}


def test_a_row_in_a_line() -> None:
    assert {row: row.describe() for row in LINES} == LINES


def test_speeds_and_times_stand_in_tables_of_their_own() -> None:
    printed = []
    for table in build_tables(list(LINES)):
        out = StringIO()
        Console(file=out, width=150).print(table)
        printed.append([" ".join(line.split()) for line in out.getvalue().splitlines()])
    speeds, times = printed
    assert speeds == [
        "member how images/s ms a step spread of peak ratio to waited compile s",
        "supervised, 256 images compiled 9,143 28.0 5.0% 31.8% 2.500 eager 21.0",
        "compiled, end to end 8,000 32.0 0.875 compiled 11.4%",
    ]
    assert times == [
        "member how seconds share note",
        "child warm 2.500 to the first step's end",
        "beside 0.027 0.50%",
        "timm not measured: timm cannot be imported here",
    ]
    assert build_tables([]) == []


def test_rows_as_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    write_rows(path, [STEP, SKIPPED], about={"device": "NVIDIA H200"})
    content = json.loads(path.read_text())
    assert (content["version"], content["about"]) == (1, {"device": "NVIDIA H200"})
    first, second = (Row(**row | {"rounds_ms": tuple(row["rounds_ms"])}) for row in content["rows"])
    assert (first, second) == (STEP, SKIPPED)
