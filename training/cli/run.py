"""``python -m training run``: a whole population, or a part of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from training.cli.dry_run import dry_run as say_what_it_takes
from training.cli.ending import TIME_IS_UP, ends_in_order
from training.cli.options import (
    AccumulationOption,
    CompileOption,
    DataOption,
    DeterministicOption,
    KeepOption,
    LoaderWorkersOption,
    OutOption,
    RecipeArgument,
    TrackOption,
    execution_of,
    load_recipe,
)
from vitzoo.cli.display import escape

if TYPE_CHECKING:
    from training.population.run import RunOptions, StartEngine
    from training.population.schedule import Outcome

EngineOption = Annotated[
    Literal["local", "ray"], typer.Option(help="What carries members out: processes here, or a Ray cluster.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(metavar="auto|HOST:PORT", help="The Ray cluster.", show_default="one is started on this machine"),
]
GpusOption = Annotated[
    float | None,
    typer.Option("--gpus-per-member", min=0.001, metavar="G", help="Ray: .5 shares a card between two members, "
                 "2 trains one on two.", show_default="1 where there are GPUs"),
]  # fmt: skip
ScratchOption = Annotated[
    Path | None,
    typer.Option(help="Ray: a folder of each machine to train in, where they do not share the zoo folder; files go "
                 "there through this process."),
]  # fmt: skip
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Members to train, such as 'pt-3/*'; may be repeated."),
]
ShardOption = Annotated[
    str | None, typer.Option(metavar="I/N", help="One of N parts of about equal cost, for job arrays: 1/8 to 8/8.")
]
MaxHoursOption = Annotated[
    float | None,
    typer.Option(min=0.0, metavar="H", help=f"Stop after so long, with exit status {TIME_IS_UP} if something is left."),
]
PublishOption = Annotated[
    str | None, typer.Option(metavar="ORG/NAME", help="Publish finished members there while the others are trained.")
]
PublishEpochsOption = Annotated[str, typer.Option(help="Weights published beside the final ones: all, last, every-10.")]
PrivateOption = Annotated[bool, typer.Option("--private", help="Make the repos private.")]
AttemptsOption = Annotated[int, typer.Option(min=1, help="How often a member is tried.")]


def run(
    recipe: RecipeArgument,
    *,
    out: OutOption,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Members at a time.", show_default="one a GPU; without any one a core, locally 8 at most"
        ),
    ] = None,
    gpus_per_member: GpusOption = None,
    scratch: ScratchOption = None,
    only: OnlyOption = None,
    shard: ShardOption = None,
    max_hours: MaxHoursOption = None,
    attempts: AttemptsOption = 3,
    publish: PublishOption = None,
    publish_epochs: PublishEpochsOption = "all",
    private: PrivateOption = False,
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
    from training.population.publisher import PublishOptions
    from training.population.run import RunOptions, run_population
    from training.recipes.plan import plan_members
    from vitzoo.images.known import check_data
    from vitzoo.zoo.conditions import Epochs

    console = Console(stderr=True)
    chosen = load_recipe(recipe)
    execution = execution_of(
        compile_mode, deterministic=deterministic, accumulation=accumulation, loader_workers=loader_workers, keep=keep,
        track=track, data=data,
    )  # fmt: skip
    check_data(execution.data, [planned.training.dataset.name for planned in plan_members(chosen)])
    options = RunOptions(
        execution=execution,
        only=tuple(only or ()),
        shard=_shard(shard),
        attempts=attempts,
        max_hours=max_hours,
        publish=PublishOptions(to=publish, epochs=Epochs(publish_epochs), private=private) if publish else None,
    )
    start_engine = _engine(engine, workers=workers, address=address, gpus_per_member=gpus_per_member, scratch=scratch)
    if dry_run:
        say_what_it_takes(chosen, out, options=options, slots=workers or 0, rate=rate)
        return
    with ends_in_order(console):
        outcome = run_population(chosen, out, start_engine=start_engine, options=options)
    raise typer.Exit(_report(outcome, out, console, options=options))


def _shard(text: str | None):
    from training.population.selection import Shard
    from vitzoo.errors import TrainingError

    try:
        return None if text is None else Shard.parse(text)
    except ValueError as error:
        raise TrainingError(f"{error}. Mend --shard.") from None


def _engine(
    name: str, *, workers: int | None, address: str | None, gpus_per_member: float | None, scratch: Path | None
) -> "StartEngine":
    """What starts the engine that the command line names."""
    from vitzoo.errors import TrainingError

    if name == "local":
        for option, value in (("--address", address), ("--gpus-per-member", gpus_per_member), ("--scratch", scratch)):
            if value is not None:
                raise TrainingError(f"{option} is Ray's: add --engine ray, or leave it out.")
        from training.population.engines.local import LocalEngine, default_workers

        return lambda job, left: LocalEngine(job, workers=min(workers or default_workers(), left))
    from training.population.engines.ray import RayEngine

    return lambda job, left: RayEngine(
        job, address=address, most=min(workers or left, left), gpus_per_member=gpus_per_member, scratch=scratch
    )


def _report(outcome: "Outcome", out: Path, console: Console, *, options: "RunOptions") -> int:
    """Say what became of a run; its exit status."""
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
    if outcome.stopped == "full":
        console.print(
            f"[red]stopped[/] for want of room on the disk: {escape(outcome.reason)} {_left(outcome.left)}. Make room; "
            "the same command goes on.",
            soft_wrap=True,
        )
    if outcome.stopped == "hours":
        console.print(
            f"[yellow]stopped[/] after {options.max_hours:g} hours: {_left(outcome.left)}; the same command goes on.",
            soft_wrap=True,
        )
    console.print(f"{len(outcome.done)} members are done in {escape(str(out))}.", soft_wrap=True)
    if outcome.unpublished is not None:
        console.print(
            f"[red]not published[/]: see {escape(str(out))}/.training/logs/publish.log, then go on with: "
            f"{escape(outcome.unpublished)}",
            soft_wrap=True,
        )
    if outcome.stopped == "hours" and outcome.left:
        return TIME_IS_UP  # what failed is tried again by the next run
    return 1 if outcome.failed or outcome.stopped is not None or outcome.unpublished else 0


def _left(members: list) -> str:
    return "1 member is left" if len(members) == 1 else f"{len(members)} members are left"


def _some(members: list) -> str:
    return ", ".join(map(str, members[:8])) + (", ..." if len(members) > 8 else "")
