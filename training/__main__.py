"""``python -m training plan | run | member | publish``: a recipe is chosen by name; its fields are no flags."""

from training.environment import fix_environment

fix_environment()  # before anything imports torch

from pathlib import Path  # noqa: E402
from typing import Annotated  # noqa: E402

import typer  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from vitzoo.cli import run_app  # noqa: E402
from vitzoo.display import escape  # noqa: E402

app = typer.Typer(help="Regenerate a zoo.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
RecipeArgument = Annotated[str, typer.Argument(help="A recipe, such as digits or digits_full.")]
OutOption = Annotated[Path, typer.Option("--out", help="The zoo folder; what is done in it stays.")]


@app.command()
def plan(recipe: RecipeArgument) -> None:
    """Print the members of a recipe, with cost and disk, without training."""
    from training.recipes import load_recipe
    from training.recipes.plan import plan_members

    planned = plan_members(load_recipe(recipe))
    columns = (
        "id",
        "dataset",
        "objective",
        "head",
        "optimizer",
        "lr",
        "epochs",
        "steps",
        "init/head/order/augmentation",
    )
    table = Table(*columns, "GFLOP", "MB", box=None, padding=(0, 1))
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
            f"{member.flops / 1e9:.1f}",
            f"{member.bytes / 1e6:.2f}",
        )
    console = Console(width=max(Console().width, 132))  # a cut id is none; a narrow terminal wraps
    console.print(table)
    parents = sum(member.id.is_parent for member in planned)
    console.print(
        f"{len(planned)} members ({parents} parents, {len(planned) - parents} children), "
        f"{sum(member.training.epochs + 1 for member in planned):,} checkpoints, "
        f"{sum(member.flops for member in planned) / 1e12:,.1f} TFLOP, "
        f"{sum(member.bytes for member in planned) / 1e6:,.0f} MB"
    )


@app.command()
def run(
    recipe: RecipeArgument,
    *,
    out: OutOption,
    workers: Annotated[int, typer.Option(min=1, help="Processes; on a CPU, one a core.")] = 2,
) -> None:
    """Train every member that is not done yet, then write the tables. Ended at any moment, it can be run again."""
    from training.population.run import run_population
    from training.recipes import load_recipe

    console = Console(stderr=True)
    try:
        outcome = run_population(load_recipe(recipe), out, workers=workers)
    except KeyboardInterrupt:
        console.print("Interrupted. What was finished is kept; the same command goes on from there.")
        raise typer.Exit(130) from None
    for member, reason in outcome.failed.items():
        console.print(f"[red]failed[/] {member}: {escape(reason)}", soft_wrap=True)
    if outcome.skipped:
        console.print(
            f"[yellow]skipped[/] {len(outcome.skipped)} members whose parent failed: {_some(outcome.skipped)}"
        )
    console.print(f"{len(outcome.done)} members are done in {escape(str(out))}.", soft_wrap=True)
    if outcome.failed:
        raise typer.Exit(1)


@app.command()
def member(
    recipe: RecipeArgument,
    member_id: Annotated[str, typer.Argument(metavar="MEMBER", help="A member of the recipe, such as pt-3/ft-1.")],
    *,
    out: OutOption,
) -> None:
    """Train one member, whose parent must be done; for ``accelerate launch`` and job arrays."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from training.member.train import train_member
    from training.recipes import load_recipe
    from training.recipes.plan import plan_member
    from training.workspace import Workspace
    from vitzoo.ids import MemberId

    disable_progress_bar()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    chosen = load_recipe(recipe)
    planned = plan_member(chosen, MemberId.parse(member_id))
    workspace = Workspace(out, chosen)
    console = Console(stderr=True)
    epochs = planned.training.epochs
    train_member(
        workspace, planned, report=lambda epoch: console.print(f"{planned.id}: epoch {epoch} of {epochs} finished")
    )
    console.print(f"{planned.id} is done in {escape(str(out))}.", soft_wrap=True)


@app.command()
def publish(
    zoo: Annotated[Path, typer.Argument(help="The zoo folder.")],
    *,
    to: Annotated[str, typer.Option("--to", metavar="ORG/NAME", help="The model repo.")],
    metadata_to: Annotated[
        str | None,
        typer.Option("--metadata-to", metavar="ORG/NAME", help="The dataset repo.", show_default="<to>-metadata"),
    ] = None,
    epochs: Annotated[
        str, typer.Option(help="Weights beside the final ones: all, last (none), every-10 or 0,10,20.")
    ] = "all",
    private: Annotated[bool, typer.Option("--private", help="Make the repos private.")] = False,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Tag both repos, such as v1.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; no network, no token.")] = False,
) -> None:
    """Publish a zoo to the Hugging Face Hub (HF_TOKEN or hf auth login). Ended at any moment, it can be run again."""
    from training.publish.plan import plan_publication
    from vitzoo.conditions import Epochs
    from vitzoo.folder import FolderSource

    out, console = Console(), Console(stderr=True)
    publication = plan_publication(FolderSource(zoo), to=to, metadata_to=metadata_to, epochs=Epochs(epochs), tag=tag)
    for line in publication.describe():
        out.print(escape(line), soft_wrap=True)
    if dry_run:
        for file in publication.files:
            out.print(f"{file.size:>12,}  {escape(file.path)}", soft_wrap=True, highlight=False)
        out.print("Nothing was verified, and nothing sent: publishing verifies all of it first.", soft_wrap=True)
        return
    from training.publish.push import publish as push

    try:
        published = push(publication, private=private)
    except KeyboardInterrupt:
        console.print("Interrupted. What was sent is kept; the same command goes on from there.")
        raise typer.Exit(130) from None
    what = f"{published.commits} commits" if published.commits else "already published, nothing was sent"
    out.print(f"{what}; sizes and hashes on the Hub are the manifest's.")
    if published.left_alone:
        out.print(f"{published.left_alone} files in {escape(to)} are not of this zoo any more; they were left alone.")
    for url, commit in ((published.url, published.commit), (published.metadata_url, published.metadata_commit)):
        out.print(f"{escape(url)}/tree/{commit}", soft_wrap=True, highlight=False)
    out.print(f"prove it with: vitzoo verify {escape(to)} --digest {published.digest}", soft_wrap=True, highlight=False)


def _some(members: list) -> str:
    return ", ".join(map(str, members[:8])) + (", ..." if len(members) > 8 else "")


if __name__ == "__main__":
    run_app(app)
