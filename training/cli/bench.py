"""``python -m training bench``: how fast members are trained here."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART", help="steps, data, timm, checkpoint, start, deterministic; population; may be repeated."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds; on a CPU nothing is compiled.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the rows there too.")] = None,
) -> None:
    """Measure how fast members are trained on this machine: on a GPU where there is one, else small on a CPU."""
    from training.bench.run import run_bench

    run_bench(only=tuple(only or ()), quick=quick, json_file=json_file)
