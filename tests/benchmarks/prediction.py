"""Time and memory of the entries that predict from weights, on ViT-S/16 members with random weights and targets.

    python -m tests.benchmarks.prediction [--members 6]

Scores mean nothing here. Each entry runs in a process of its own, whose peak memory is printed.
"""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tests.benchmarks.synthetic_zoo import write_synthetic_zoo
from tests.benchmarks.timing import versions
from vitzoo import Zoo, prediction
from vitzoo.analysis.prediction.predictors import ENTRIES, predict


def main(
    members: Annotated[int, typer.Option(min=6, help="Number of members, of 87 MB each.")] = 6,
    zoo: Annotated[Path | None, typer.Option(help="An existing synthetic zoo.")] = None,
    entry: Annotated[str | None, typer.Option(help="Run this entry alone, in this process.")] = None,
) -> None:
    """Print seconds and peak memory of each entry."""
    if zoo is not None and entry is not None:
        _run(zoo, entry)
        return
    with tempfile.TemporaryDirectory() as temporary:
        if zoo is None:
            zoo = Path(temporary) / "zoo"
            write_synthetic_zoo(zoo, members=members)
        print(f"{len(Zoo(zoo))} members, 2 folds, {versions('numpy', 'torch')}", flush=True)
        for name in ENTRIES if entry is None else (entry,):
            command = [sys.executable, "-m", "tests.benchmarks.prediction", "--zoo", str(zoo), "--entry", name]
            subprocess.run(command, check=True)


def _run(zoo: Path, entry: str) -> None:
    task = prediction(Zoo(zoo).select(), "init_seed", scheme="by_parent", folds=2)
    task = replace(task, target="random", classes=(), truth=np.random.default_rng(0).random(len(task.truth)))
    found = predict(task, entry)
    # VmHWM, because getrusage counts the memory of the parent before exec.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    peak = int(line.split()[1]) * 1024 / 1e6
    print(f"{entry}: {found.seconds:.1f} s, {found.parameters:,} parameters, peak memory {peak:,.0f} MB")


if __name__ == "__main__":
    typer.run(main)
