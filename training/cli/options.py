"""What several commands take: recipe, folder, and how members are carried out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vitzoo.cli.display import escape

if TYPE_CHECKING:
    from training.member.execution import Execution
    from training.recipes.recipe import Recipe

RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="digits, digits_full, paper, as_released, no_mixup; ./my.py or ./my.py:function; "
        "the authors' ./config.json, ./one.json+./two.json, or a folder of them."
    ),
]
OutOption = Annotated[Path, typer.Option("--out", help="The zoo folder; what is done in it stays.")]

CompileOption = Annotated[
    str | None,
    typer.Option("--compile", metavar="MODE", help="torch.compile: none, default, max-autotune-no-cudagraphs.",
                 show_default="default on a GPU, none without"),
]  # fmt: skip
DeterministicOption = Annotated[
    bool, typer.Option("--deterministic", help="Equal bits from equal runs on one GPU; slower. CPUs always give them.")
]
AccumulationOption = Annotated[
    int,
    typer.Option(min=1, help="Equal parts of a batch, one after another, to fit into memory; not for InfoNCE."),
]
LoaderWorkersOption = Annotated[
    int | None,
    typer.Option(min=0, help="Processes a member that decode streamed images.", show_default="from the cores"),
]
KeepOption = Annotated[str, typer.Option(help="Epochs whose weights are kept: all, last, last-3, every-10.")]
TrackOption = Annotated[
    list[str] | None, typer.Option(metavar="TRACKER", help="tensorboard, trackio or wandb; may be repeated.")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FOLDER", help="Where a data set lies here; may be repeated."),
]


def load_recipe(name: str) -> "Recipe":
    """A recipe, after saying what was noticed while it was read."""
    from training.recipes import read_recipe

    loaded = read_recipe(name)
    for note in loaded.notes:
        Console(stderr=True).print(f"note: {escape(note)}", soft_wrap=True, highlight=False)
    return loaded.recipe


def execution_of(
    compile_mode: str | None,
    *,
    deterministic: bool,
    accumulation: int,
    loader_workers: int | None,
    keep: str,
    track: list[str] | None,
    data: list[str] | None,
) -> "Execution":
    """How members are carried out, from what the command line says."""
    from training.member.execution import Execution
    from training.recipes.retention import Retention
    from vitzoo.errors import TrainingError
    from vitzoo.images.known import parse_data

    try:
        return Execution(
            compile=compile_mode,  # pyright: ignore[reportArgumentType]
            deterministic=deterministic,
            accumulation=accumulation,
            loader_workers=loader_workers,
            keep=Retention(keep),
            track=tuple(track or ()),
            data=parse_data(data or ()),
        )
    except ValueError as error:
        raise TrainingError(f"{error}") from None
