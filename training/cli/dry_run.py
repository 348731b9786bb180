"""``python -m training run --dry-run``: print the cost and disk of a run."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vitzoo.cli.console import make_console
from vitzoo.cli.display import escape

if TYPE_CHECKING:
    from training.population.run import RunOptions
    from training.recipes.recipe import Recipe


def dry_run(recipe: "Recipe", out: Path, *, options: "RunOptions", slots: int, rate: float | None) -> None:
    """Print members, operations, hours and disk of a run, and write nothing.

    Args:
        recipe: The population.
        out: The zoo folder.
        options: Options of the run, which select the members.
        slots: Members at a time; 0 for one per GPU.
        rate: Speed of one card, in images a second; None to measure it.
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
    console = make_console(soft_wrap=True, highlight=False)
    if is_zoo_folder(out):
        check_recipe(FolderSource(out), recipe)
    if rate is None and (reference := estimate(planned).reference) is not None:
        from training.bench.rate import measure_rate

        with console.status("measuring the speed of a training step"):
            rate = measure_rate(reference, options.execution)
        console.print(f"measured here: {rate:,.1f} images/s; --rate sets another card's speed")
    cost = estimate(planned, done=done, images_per_second=rate, keep=options.execution.keep)
    folder = next(folder for folder in (out, *out.resolve().parents) if folder.is_dir())
    for line in cost.describe(free_bytes=shutil.disk_usage(folder).free):
        console.print(escape(line))
    if slots > 1 and cost.hours is not None:
        console.print(f"{slots} workers: {in_hours(cost.hours / slots)}, if each has its own card")
