"""``python -m training plan | run | member | bench | publish``: a recipe is chosen by name; its fields are no flags."""

from training.environment import fix_environment

fix_environment()  # before anything imports torch

import os  # noqa: E402
import shutil  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Annotated  # noqa: E402

import typer  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from vitzoo.cli import run_app  # noqa: E402
from vitzoo.display import escape  # noqa: E402

if TYPE_CHECKING:
    from training.member.execution import Execution
    from training.recipes.recipe import Recipe

app = typer.Typer(help="Regenerate a zoo.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
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


@app.command()
def plan(recipe: RecipeArgument) -> None:
    """Print the members of a recipe, with cost and disk, without training."""
    from training.recipes.cost import estimate, in_flop
    from training.recipes.plan import plan_members
    from vitzoo.progress import in_bytes

    planned = plan_members(_load_recipe(recipe))
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
    table = Table(*columns, "training", "disk", box=None, padding=(0, 1))
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
    console = Console(width=max(Console().width, 132))  # a cut id is none; a narrow terminal wraps
    console.print(table)
    console.print(estimate(planned).summary())


@app.command()
def run(
    recipe: RecipeArgument,
    *,
    out: OutOption,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="one a GPU; 2 without any")
    ] = None,
    compile_mode: CompileOption = None,
    deterministic: DeterministicOption = False,
    accumulation: AccumulationOption = 1,
    loader_workers: LoaderWorkersOption = None,
    keep: KeepOption = "all",
    track: TrackOption = None,
    data: DataOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it takes; nothing is trained.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="IMAGES/S", help="For --dry-run: one card's speed.", show_default="measured"),
    ] = None,
) -> None:
    """Train every member that is not done yet, then write the tables. Ended at any moment, it can be run again."""
    from training.population.engines.local import visible_gpus
    from training.population.run import run_population
    from training.recipes.plan import plan_members
    from vitzoo.images.known import check_data

    console = Console(stderr=True)
    chosen = _load_recipe(recipe)
    execution = _execution(
        compile_mode, deterministic=deterministic, accumulation=accumulation, loader_workers=loader_workers, keep=keep,
        track=track, data=data,
    )  # fmt: skip
    check_data(execution.data, [planned.training.dataset.name for planned in plan_members(chosen)])
    slots = workers or len(visible_gpus())
    if dry_run:
        _dry_run(chosen, out, execution=execution, slots=slots, rate=rate)
        return
    try:
        outcome = run_population(chosen, out, workers=slots or 2, execution=execution)
    except KeyboardInterrupt:
        console.print("Interrupted. What was finished is kept; the same command goes on from there.")
        raise typer.Exit(130) from None
    for member, reason in outcome.diverged.items():
        console.print(f"[yellow]diverged[/] {member}: {escape(reason)}", soft_wrap=True)
    for member, reason in outcome.failed.items():
        console.print(f"[red]failed[/] {member}: {escape(reason)}", soft_wrap=True)
    if outcome.skipped:
        console.print(
            f"[yellow]skipped[/] {len(outcome.skipped)} members whose parent failed or diverged: "
            + _some(outcome.skipped),
            soft_wrap=True,
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
    compile_mode: CompileOption = None,
    deterministic: DeterministicOption = False,
    accumulation: AccumulationOption = 1,
    loader_workers: LoaderWorkersOption = None,
    keep: KeepOption = "all",
    track: TrackOption = None,
    data: DataOption = None,
) -> None:
    """Train one member, whose parent must be done; for ``accelerate launch`` and job arrays."""
    from transformers.utils.logging import disable_progress_bar

    from training.member.display import MemberDisplay
    from training.member.execution import prepare_process
    from training.member.record import describe_divergence
    from training.member.train import train_member
    from training.recipes.plan import plan_member, plan_members
    from training.workspace import Workspace
    from vitzoo.ids import MemberId
    from vitzoo.images.known import check_data

    disable_progress_bar()
    execution = _execution(
        compile_mode, deterministic=deterministic, accumulation=accumulation, loader_workers=loader_workers, keep=keep,
        track=track, data=data,
    )  # fmt: skip
    prepare_process(execution)
    chosen = _load_recipe(recipe)
    planned = plan_member(chosen, MemberId.parse(member_id))
    check_data(execution.data, [one.training.dataset.name for one in plan_members(chosen)])
    workspace = Workspace(out, chosen)
    is_main = os.environ.get("RANK", "0") == "0"
    console = Console(stderr=True, quiet=not is_main)
    try:
        with MemberDisplay(planned, console) as display:
            record = train_member(workspace, planned, execution=execution, report=display)
    except KeyboardInterrupt:
        console.print("Interrupted. What was finished is kept; the same command goes on from there.")
        raise typer.Exit(130) from None
    if record.status == "diverged":
        console.print(f"{planned.id} diverged: {describe_divergence(record)}", markup=False, soft_wrap=True)
    else:
        console.print(f"{planned.id} is done in {escape(str(out))}.", soft_wrap=True)
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()  # which would otherwise be complained about


@app.command()
def bench(
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="steps, data, timm, checkpoint, start, deterministic; may be repeated."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds; on a CPU nothing is compiled.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the rows there too.")] = None,
) -> None:
    """Measure how fast members are trained on this machine: on a GPU where there is one, else small on a CPU."""
    from training.bench.run import run_bench

    run_bench(only=tuple(only or ()), quick=quick, json_file=json_file)


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


def _execution(
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


def _dry_run(recipe: "Recipe", out: Path, *, execution: "Execution", slots: int, rate: float | None) -> None:
    """Print what a run takes: members, operations, hours, disk. Nothing is written."""
    from training.recipes.cost import estimate, in_hours
    from training.recipes.plan import plan_members
    from training.workspace import check_recipe
    from vitzoo import layout
    from vitzoo.folder import FolderSource, is_zoo_folder

    planned = plan_members(recipe)
    console = Console(soft_wrap=True, highlight=False)
    if is_zoo_folder(out):
        check_recipe(FolderSource(out), recipe)
    reference = estimate(planned).reference
    if rate is None:
        from training.bench.rate import measure_rate

        with console.status("measuring the speed of a training step"):
            rate = measure_rate(next(member for member in planned if member.id == reference), execution)
        console.print(f"measured here: {rate:,.1f} images/s; --rate reckons with another card's")
    done = {member.id for member in planned if (out / layout.member_file(member.id)).is_file()}
    cost = estimate(planned, done=done, images_per_second=rate, keep=execution.keep)
    there = next(folder for folder in (out, *out.resolve().parents) if folder.is_dir())
    for line in cost.describe(free_bytes=shutil.disk_usage(there).free):
        console.print(escape(line))
    if slots > 1 and cost.total.hours is not None:
        console.print(f"{slots} workers: {in_hours(cost.total.hours / slots)}, where each has a card of its own")


def _load_recipe(name: str) -> "Recipe":
    """A recipe, after saying what was noticed while it was read."""
    from training.recipes import read_recipe

    loaded = read_recipe(name)
    for note in loaded.notes:
        Console(stderr=True).print(f"note: {escape(note)}", soft_wrap=True, highlight=False)
    return loaded.recipe


def _some(members: list) -> str:
    return ", ".join(map(str, members[:8])) + (", ..." if len(members) > 8 else "")


if __name__ == "__main__":
    run_app(app)
