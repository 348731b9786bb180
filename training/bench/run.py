"""``python -m training bench``: every part in turn, each row said when it is known, a table at the end."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.status import Status

from training.bench.apart import nothing_compiled
from training.bench.checkpoint import measure_checkpoint
from training.bench.deterministic import measure_deterministic
from training.bench.floor import describe_floor, peak_rate
from training.bench.peers import timm_version
from training.bench.population import measure_population
from training.bench.scale import Scale, scale_for
from training.bench.start import measure_start
from training.bench.steps import Setting, measure_member
from training.bench.table import Row, build_tables, write_rows
from training.environment import hardware, versions
from training.member.execution import Execution, prepare_process
from vitzoo.errors import TrainingError, did_you_mean, shown

PARTS = ("steps", "data", "timm", "checkpoint", "start", "deterministic", "population")
_UNLESS_ASKED = {"population"}  # minutes of runs, that say nothing of a GPU
_MEMBERS = {
    "supervised": {"steps", "data", "timm"},
    "fine-tuning": {"data"},  # its steps are those of the supervised member
    "contrastive": {"steps", "data"},
    "halves": {"steps", "data"},
}


def run_bench(
    *,
    only: Sequence[str] = (),
    quick: bool = False,
    json_file: Path | None = None,
    console: Console | None = None,
    scale: Scale | None = None,
) -> list[Row]:
    """Measure how fast members are trained on this machine: on a GPU where there is one, else on a CPU in small.

    Args:
        only: Parts of `PARTS`; by default all but ``population``.
        quick: Fewer rounds, and nothing compiled on a CPU.
        json_file: Where the rows are written too, each time there is one more.
        console: Where they are printed.
        scale: What is trained instead of `training.bench.scale.scale_for` this device.

    Returns:
        The rows.

    Raises:
        TrainingError: No part is called so.
    """
    for part in only:
        if part not in PARTS:
            raise TrainingError(f"No part of the benchmark is called {shown(part)}.{did_you_mean(part, PARTS)}")
    console = console or Console()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = scale or scale_for("cuda" if device.type == "cuda" else "cpu", quick=quick)
    prepare_process(Execution())
    about = _about(device, scale)
    title = f"{about['device']}: {scale.title}"
    console.print(
        f"{title}; {about['date']}, {', '.join(f'{k} {v}' for k, v in about['versions'].items())}", soft_wrap=True
    )
    planned = scale.members["supervised"]
    console.print(describe_floor(planned, peak_rate(device, planned.training.precision)), soft_wrap=True)
    rows: list[Row] = []
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="vitzoo-bench-", ignore_cleanup_errors=True) as folder,
        nothing_compiled(Path(folder) / "compiled"),
        console.status("starting") as status,
    ):
        setting = Setting(
            scale=scale,
            device=device,
            folder=Path(folder),
            parts=frozenset(only or set(PARTS) - _UNLESS_ASKED),
            say=_teller(console, status),
        )
        for row in _measure(setting):
            rows.append(row)
            console.print(f"{time.perf_counter() - began:5.0f} s  {row.describe()}", highlight=False, soft_wrap=True)
            if json_file is not None:
                write_rows(json_file, rows, about=about)
    wide = Console(file=console.file, width=max(console.width, 132))  # a narrow terminal wraps
    for table in build_tables(rows):
        wide.print("", table)
    return rows


def _measure(setting: Setting) -> Iterator[Row]:
    for name, parts in _MEMBERS.items():
        if parts & setting.parts:
            yield from measure_member(setting, name)
    for part, measure in (
        ("checkpoint", measure_checkpoint),
        ("start", measure_start),
        ("deterministic", measure_deterministic),
        ("population", measure_population),
    ):
        if part in setting.parts:
            yield from measure(setting)


def _teller(console: Console, status: Status) -> Callable[[str], None]:
    """Shows what is being done: in a terminal in one line, elsewhere a line for all but the rounds."""

    def say(text: str) -> None:
        status.update(text)
        if not console.is_terminal and "; round" not in text:
            console.print(f"        {text}", highlight=False, soft_wrap=True)

    return say


def _about(device: torch.device, scale: Scale) -> dict[str, Any]:
    timm = timm_version()
    return {
        "date": date.today().isoformat(),
        "device": hardware(device.type),
        "trained": scale.title,
        "versions": versions() | ({} if timm is None else {"timm": timm}),
    }
