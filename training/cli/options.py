"""Declare the options that several commands share, in a dataclass. See `expand_options` for its use."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from vitzoo.cli.console import make_console
from vitzoo.cli.display import escape

if TYPE_CHECKING:
    from training.member.execution import Execution
    from training.recipes.recipe import Recipe

RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="digits, digits_full, digits_self_supervised, demo, paper, as_released, no_mixup, evening, "
        "evening_self_supervised, snippets, language, language_as_released, bert_medium; ./my.py or ./my.py:function; "
        "the authors' ./config.json, ./one.json+./two.json, or a folder of them."
    ),
]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of every command that trains: the zoo folder, and the fields of an `Execution` as text."""

    out: Annotated[Path, typer.Option("--out", help="The zoo folder; members in it are kept.")]
    compile: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="torch.compile: none, default, max-autotune-no-cudagraphs.",
            show_default="default on a GPU, none without",
        ),
    ] = None
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="Equal bits from equal runs on one GPU; slower. CPUs always give them."),
    ] = False
    accumulation: Annotated[
        int, typer.Option(min=1, help="Equal parts of a batch, one after another, to fit into memory; not for InfoNCE.")
    ] = 1
    loader_workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes per member that decode streamed images.", show_default="from the cores"),
    ] = None
    keep: Annotated[str, typer.Option(help="Epochs whose weights are saved: all, last, last-3, every-10.")] = "all"
    dtype: Annotated[
        str, typer.Option(help="Type of saved epochs: fp32, or bf16 for half the disk; epoch 0 and the last are fp32.")
    ] = "fp32"
    track: Annotated[
        list[str] | None, typer.Option(metavar="TRACKER", help="tensorboard, trackio or wandb; may be repeated.")
    ] = None
    data: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="Folder of a data set here; may be repeated.")
    ] = None

    def execution(self, recipe: "Recipe") -> "Execution":
        """Parse the settings of a training, and check that the named folders of data sets exist.

        Raises:
            TrainingError: A value is out of range, or a folder is missing.
        """
        from training.member.execution import Execution
        from training.recipes.plan import plan_members
        from training.recipes.retention import Retention
        from vitzoo.data.known import check_data, parse_data
        from vitzoo.errors import TrainingError

        try:
            execution = Execution(
                compile=self.compile,  # pyright: ignore[reportArgumentType] (Execution checks it)
                deterministic=self.deterministic,
                accumulation=self.accumulation,
                loader_workers=self.loader_workers,
                keep=Retention(self.keep),
                dtype=self.dtype,  # pyright: ignore[reportArgumentType] (likewise)
                track=tuple(self.track or ()),
                data=parse_data(self.data or ()),
            )
        except ValueError as error:
            raise TrainingError(f"{error}") from None
        check_data(execution.data, [planned.training.dataset.name for planned in plan_members(recipe)])
        return execution


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter ``options``, a dataclass, by its fields, which Typer then reads as options."""
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    declared = parameters.pop("options").annotation
    hints = get_type_hints(declared, include_extras=True)
    for field in fields(declared):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        parameters[field.name] = inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
        )

    @functools.wraps(command)
    def expanded(**values: Any) -> None:
        options = declared(**{field.name: values.pop(field.name) for field in fields(declared)})
        command(**values, options=options)

    expanded.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    expanded.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return expanded


def load_recipe(name: str) -> "Recipe":
    """Load a recipe, and print its reader's notes."""
    from training.recipes import read_recipe

    loaded = read_recipe(name)
    for note in loaded.notes:
        make_console(stderr=True).print(f"note: {escape(note)}", soft_wrap=True, highlight=False)
    return loaded.recipe
