"""``python -m training prepare``: encode the texts of a recipe once, for every member and machine."""

import os
from pathlib import Path
from typing import Annotated

import typer

from training.cli.options import RecipeArgument, load_recipe
from vitzoo.cli.console import make_console
from vitzoo.cli.display import escape


def prepare(
    recipe: RecipeArgument,
    *,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="The folder; it is new or empty.")],
    data: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="Folder of a data set here; may be repeated.")
    ] = None,
) -> None:
    """Encode the texts of a recipe once, into a folder that ``run --data NAME=FOLDER`` takes."""
    from training.recipes.plan import plan_members
    from training.text.shared import population_texts, prepare_population
    from vitzoo.data.known import check_data, names_of, parse_data
    from vitzoo.errors import TrainingError, shown

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # this process never forks
    console = make_console(stderr=True)
    members = plan_members(load_recipe(recipe))
    texts = population_texts(members)
    if not texts:
        raise TrainingError(
            f"The recipe {shown(recipe)} trains on images",
            expected="a recipe of language models",
            fix="Images need no preparation: run the recipe.",
        )
    folders = parse_data(data or ())
    check_data(folders, [spec.name for spec in texts])
    written = prepare_population(
        members, to, data=folders, say=lambda line: console.print(escape(line), soft_wrap=True, highlight=False)
    )
    options = " ".join(dict.fromkeys(f"--data {names_of(spec.name)[-1]}={to}" for spec in texts))
    state = "is prepared" if written else "was prepared before"
    console.print(f"{escape(str(to))} {state}. Train on it with: {escape(options)}", soft_wrap=True, highlight=False)
