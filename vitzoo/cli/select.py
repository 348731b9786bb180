"""``vitzoo select``: checkpoints by conditions."""

import os
import signal
import sys
from typing import Annotated, Literal

import typer
from rich.console import Console

from vitzoo.cli.display import describe_selection, print_selection
from vitzoo.cli.options import DigestOption, RevisionOption, ZooArgument
from vitzoo.zoo.zoo import Zoo


def select(
    zoo: ZooArgument = "zoo",
    *,
    where: Annotated[
        str,
        typer.Option(help='Which checkpoints, such as "head_type=mlp,optimizer=adamw|sgd,min_test_accuracy=.8".'),
    ] = "",
    epochs: Annotated[str, typer.Option(help='Of which epochs: "last", "all", "every-10" or "0,10".')] = "last",
    format: Annotated[
        Literal["table", "csv", "json", "ids"], typer.Option(help="How to print them; ids can be loaded.")
    ] = "table",
    revision: RevisionOption = None,
    digest: DigestOption = None,
) -> None:
    """Print the checkpoints that all conditions hold of, and what downloading them would take."""
    from vitzoo.hub_http import quiet

    with quiet():
        chosen = Zoo(zoo, revision=revision, digest=digest).select(where, epoch=epochs)
    try:
        print_selection(chosen, zoo=zoo, format=format)
        sys.stdout.flush()
    except BrokenPipeError:  # "| head" has read enough: no error, and nothing more to say to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(128 + signal.SIGPIPE) from None
    Console(stderr=True, soft_wrap=True, highlight=False).print(describe_selection(chosen))
