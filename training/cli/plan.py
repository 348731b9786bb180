"""``python -m training plan``: print the members of a recipe, with cost and disk."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.cli.options import RecipeArgument, load_recipe
from vitzoo.cli.console import make_console

_COLUMNS = "id dataset objective head optimizer lr epochs steps init/head/order/augmentation training disk"


def plan(
    recipe: RecipeArgument,
    *,
    ids: Annotated[
        bool, typer.Option("--ids", help="One id a line, parents before their children; for scripts.")
    ] = False,
) -> None:
    """Print the members of a recipe, with cost and disk, without training."""
    from training.recipes.cost import estimate, in_flop
    from training.recipes.plan import plan_members
    from vitzoo.progress import in_bytes

    planned = plan_members(load_recipe(recipe))
    if ids:
        print(*(member.id for member in planned), sep="\n")
        return
    table = Table(*_COLUMNS.split(), box=None, padding=(0, 1))
    for member in planned:
        training, seeds = member.training, member.seeds
        table.add_row(
            str(member.id),
            training.dataset.name,
            training.objective,
            member.head.type,
            training.optimizer.name,
            f"{training.optimizer.learning_rate:g}",
            str(training.epochs),
            str(training.steps),
            f"{seeds.init}/{seeds.head}/{seeds.order}/{seeds.augmentation}",
            in_flop(member.flops),
            in_bytes(member.bytes),
        )
    console = Console(width=max(make_console().width, 132))  # wide enough for whole ids; a narrow terminal wraps
    console.print(table)
    console.print(estimate(planned).summary())
