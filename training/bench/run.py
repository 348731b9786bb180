"""Run ``python -m training bench``: every part in turn, a table after each, and all rows as JSON.

    {"about": {"date": ..., "device": ..., "trained": ..., "versions": {...}}, "rows": [{...}, ...]}

A row has the fields of `training.bench.rows.Row`; a field without a value is null.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch._inductor.utils import fresh_cache

from training.bench.members import Scale, scale_for
from training.bench.parts import measure_checkpoint, measure_start
from training.bench.population import measure_population
from training.bench.rows import Row, build_table
from training.bench.sharing import measure_sharing
from training.bench.steps import Setting, measure_member, timm_version
from training.environment import hardware, versions
from training.member.device import matrix_product_rate
from training.member.execution import Execution, prepare_process
from training.recipes.cost import in_flop
from vitzoo.errors import TrainingError, did_you_mean, shown

# Functions in the order of the run, and the parts for which each is called. The fine-tuned member has the supervised
# one's steps.
_MEASURED: tuple[tuple[Callable[[Setting], list[Row]], set[str]], ...] = (
    (partial(measure_member, name="supervised"), {"steps", "data", "timm"}),
    (partial(measure_member, name="contrastive"), {"steps", "data"}),
    (partial(measure_member, name="fine-tuning"), {"data"}),
    (measure_checkpoint, {"checkpoint"}),
    (measure_start, {"start"}),
    (measure_population, {"population"}),
    (measure_sharing, {"sharing"}),
)
PARTS = ("steps", "data", "timm", "checkpoint", "start", "population", "sharing")
_ON_REQUEST = {"population", "sharing"}  # minutes of runs that measure nothing of a GPU; many processes


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
        only: Parts of `PARTS`; by default all but ``population`` and ``sharing``.
        quick: Fewer rounds.
        json_file: File for the rows, written again after each table.
        console: Console to print to.
        scale: Members to train; by default `training.bench.members.scale_for` this device.

    Returns:
        The rows.

    Raises:
        TrainingError: A part does not exist.
    """
    for part in only:
        if part not in PARTS:
            raise TrainingError(f"The benchmark has no part {shown(part)}", fix=did_you_mean(part, PARTS).strip())
    console = console or Console(width=max(Console().width, 180))  # a narrow terminal wraps the tables
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = scale or scale_for(device.type, quick=quick)
    prepare_process(Execution())
    about = {
        "date": date.today().isoformat(),
        "device": hardware(device.type),
        "trained": scale.title,
        "versions": versions() | ({} if timm_version() is None else {"timm": timm_version()}),
    }
    planned = scale.members["supervised"]
    rate = matrix_product_rate(device.type, planned.training.precision)
    if rate is None:
        raise TrainingError("The GPU's memory is full before the measurement", fix="Stop other processes on the card.")
    console.print(
        f"{about['device']}: {scale.title}; {about['date']}, {about['versions']}\n"
        f"floor: {in_flop(planned.unit_flops)} an image, forward and backward; matrix products run at "
        f"{in_flop(rate)}/s in {planned.training.precision}, so {rate / planned.unit_flops:,.0f} images/s at most",
        highlight=False,
    )
    parts, rows = set(only) or set(PARTS) - _ON_REQUEST, []
    with (
        tempfile.TemporaryDirectory(prefix="vitzoo-bench-", ignore_cleanup_errors=True) as folder,
        fresh_cache(),  # nothing is compiled before
        console.status("starting") as status,
    ):
        setting = Setting(scale=scale, device=device, folder=Path(folder), parts=parts, peak=rate, say=status.update)
        for measure, needed in _MEASURED:
            if parts & needed:
                measured = measure(setting)
                rows += measured
                console.print(build_table(measured), "")
                if json_file is not None:
                    content = {"about": about, "rows": [asdict(row) for row in rows]}
                    json_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return rows
