"""``python -m training bench``: measure the speed of training on this machine."""

from pathlib import Path
from typing import Annotated

import typer

_PARTS = "steps, data, timm, checkpoint, start; population, sharing; may be repeated."


def bench(
    *,
    only: Annotated[list[str] | None, typer.Option(metavar="PART", help=_PARTS)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the rows there too.")] = None,
) -> None:
    """Measure the speed of training on this machine: on a GPU if there is one, else small on a CPU."""
    from training.bench.run import run_bench

    run_bench(only=tuple(only or ()), quick=quick, json_file=json_file)
