"""Run ``python -m training bench``: every part in turn, each row when it is measured, a table at the end."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.status import Status

from training.bench.members import Scale, scale_for
from training.bench.parts import measure_checkpoint, measure_deterministic, measure_start, nothing_compiled
from training.bench.population import measure_population
from training.bench.rows import Row, build_table, write_rows
from training.bench.steps import Setting, measure_member, peak_rate, timm_version
from training.environment import hardware, versions
from training.member.execution import Execution, prepare_process
from training.recipes.cost import in_flop
from vitzoo.errors import TrainingError, did_you_mean, shown

PARTS = ("steps", "data", "timm", "checkpoint", "start", "deterministic", "population")
_ON_REQUEST = {"population"}  # minutes of runs that measure nothing of a GPU
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
    """Measure the speed of training on this machine: on a GPU if it has one, else smaller members on a CPU.

    Args:
        only: Parts of `PARTS`; by default all but ``population``.
        quick: Fewer rounds, and nothing compiled on a CPU.
        json_file: File for the rows, written again after each.
        console: Console to print to.
        scale: Members to train; by default `training.bench.members.scale_for` this device.

    Returns:
        The rows.

    Raises:
        TrainingError: A part does not exist.
    """
    for part in only:
        if part not in PARTS:
            raise TrainingError(f"The benchmark has no part {shown(part)}.{did_you_mean(part, PARTS)}")
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
    rate = peak_rate(device, planned.training.precision)
    console.print(
        f"floor: {in_flop(planned.image_flops)} an image, forward and backward; matrix products run at "
        f"{in_flop(rate)}/s in {planned.training.precision}, so {rate / planned.image_flops:,.0f} images/s at most",
        soft_wrap=True,
    )
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
            parts=frozenset(only or set(PARTS) - _ON_REQUEST),
            say=lambda text: _say(console, status, text),
        )
        for row in _measure(setting):
            rows.append(row)
            console.print(f"{time.perf_counter() - began:5.0f} s  {row.describe()}", highlight=False, soft_wrap=True)
            if json_file is not None:
                write_rows(json_file, rows, about=about)
    wide = Console(file=console.file, width=max(console.width, 160))  # a narrow terminal wraps
    wide.print("", build_table(rows))
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


def _say(console: Console, status: Status, text: str) -> None:
    """Show the current work: in a terminal in one line, elsewhere a line for all but the rounds."""
    status.update(text)
    if not console.is_terminal and "; round" not in text:
        console.print(f"        {text}", highlight=False, soft_wrap=True)


def _about(device: torch.device, scale: Scale) -> dict[str, Any]:
    timm = timm_version()
    return {
        "date": date.today().isoformat(),
        "device": hardware(device.type),
        "trained": scale.title,
        "versions": versions() | ({} if timm is None else {"timm": timm}),
    }
