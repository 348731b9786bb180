"""``python -m training run --dry-run``: what a run takes."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from vitzoo.cli.display import escape

if TYPE_CHECKING:
    from training.population.run import RunOptions
    from training.recipes.recipe import Recipe


def dry_run(recipe: "Recipe", out: Path, *, options: "RunOptions", slots: int, rate: float | None) -> None:
    """Print what a run takes: members, operations, hours, disk. Nothing is written.

    Args:
        recipe: The population.
        out: The zoo folder.
        options: What is asked for; what is not chosen is left out.
        slots: Members at a time; 0 for one a GPU.
        rate: Of one card, in images a second; None for measuring it.
    """
    from training.population.local import visible_gpus
    from training.population.selection import select_members
    from training.recipes.cost import estimate, in_hours
    from training.recipes.plan import plan_members
    from training.workspace import check_recipe
    from vitzoo.records import layout
    from vitzoo.sources.folder import FolderSource, is_zoo_folder

    slots = slots or len(visible_gpus())
    planned = plan_members(recipe)
    done = {member.id for member in planned if (out / layout.member_file(member.id)).is_file()}
    planned = select_members(planned, only=options.only, shard=options.shard, done=done).filter(planned)
    console = Console(soft_wrap=True, highlight=False)
    if is_zoo_folder(out):
        check_recipe(FolderSource(out), recipe)
    reference = estimate(planned).reference
    if rate is None:
        from training.bench.rate import measure_rate

        with console.status("measuring the speed of a training step"):
            rate = measure_rate(next(member for member in planned if member.id == reference), options.execution)
        console.print(f"measured here: {rate:,.1f} images/s; --rate reckons with another card's")
    cost = estimate(
        planned,
        done=done.intersection(member.id for member in planned),
        images_per_second=rate,
        keep=options.execution.keep,
    )
    there = next(folder for folder in (out, *out.resolve().parents) if folder.is_dir())
    for line in cost.describe(free_bytes=shutil.disk_usage(there).free):
        console.print(escape(line))
    if slots > 1 and cost.total.hours is not None:
        console.print(f"{slots} workers: {in_hours(cost.total.hours / slots)}, where each has a card of its own")
