"""``python -m training plan``: print the members of a recipe, with cost and disk."""

from typing import Annotated

import typer

from training.cli.options import RecipeArgument, load_recipe
from vitzoo.cli.console import make_console
from vitzoo.cli.display import Number, print_json, print_table
from vitzoo.cli.options import JsonOption


def plan(
    recipe: RecipeArgument,
    *,
    as_json: JsonOption = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only ids, one a line, parents before their children.")
    ] = False,
) -> None:
    """Print cost and disk of a recipe, then its members, without training."""
    from training.recipes.cost import estimate, in_flop
    from training.recipes.plan import plan_members
    from vitzoo.progress import in_bytes

    planned = plan_members(load_recipe(recipe))
    if quiet:
        print(*(member.id for member in planned), sep="\n")
        return
    rows = []
    for member in planned:
        training, seeds = member.training, member.seeds
        rows.append(
            {
                "id": str(member.id),
                "dataset": training.dataset.name,
                "objective": training.objective,
                "head": member.head.type,
                "optimizer": training.optimizer.name,
                "lr": training.optimizer.learning_rate,
                "epochs": training.epochs,
                "steps": training.steps,
                "training": member.flops,
                "disk": member.bytes,
                "seeds": f"{seeds.init}/{seeds.head}/{seeds.order}/{seeds.augmentation}",
            }
        )
    if as_json:
        print_json(rows)
        return
    console = make_console()
    console.print(estimate(planned).summary(), soft_wrap=True, highlight=False)
    formats = {"lr": "{:g}".format, "epochs": str, "steps": str, "training": in_flop, "disk": in_bytes}
    cells = [
        [Number(formats[name](value)) if name in formats else value for name, value in row.items()] for row in rows
    ]
    print_table(
        console, ["seeds\ninit/head/order/augmentation" if name == "seeds" else name for name in rows[0]], cells
    )
