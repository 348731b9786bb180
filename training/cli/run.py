"""``python -m training run``: train a population, or some of its members; ``--dry-run`` prints the cost and disk."""

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from training.cli.options import RecipeArgument, TrainingOptions, expand_options, load_recipe
from training.cli.signals import UNFINISHED, exit_on_signals
from vitzoo.cli.console import make_console
from vitzoo.cli.display import escape, percent

if TYPE_CHECKING:
    from training.population.run import RunOptions, StartEngine
    from training.population.schedule import Outcome
    from training.population.worker import Job
    from training.recipes.recipe import Recipe

_RESULTS = ("val_accuracy", "val_knn_accuracy", "val_loss")  # of the first that a member has
_MOST_NAMES = 8  # of members in a line


@dataclass(frozen=True, kw_only=True)
class PopulationOptions(TrainingOptions):
    """Options of ``run``."""

    engine: Annotated[Literal["local", "ray"], typer.Option(help="Train in processes here, or on a Ray cluster.")] = (
        "local"
    )
    address: Annotated[
        str | None,
        typer.Option(metavar="auto|HOST:PORT", help="The Ray cluster.", show_default="one is started on this machine"),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Members at a time.", show_default="one per GPU; without GPUs one per core, locally 8 at most"
        ),
    ] = None
    gpus_per_member: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1.0,
            metavar="G",
            help="Ray: .5 shares a card between two members.",
            show_default="1 where there are GPUs",
        ),
    ] = None
    members_per_gpu: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Members that share each GPU; auto measures the fastest number first, for a minute or two.",
            show_default="1",
        ),
    ] = None
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Members to train, such as 'pt-3/*'; may be repeated."),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="One of N parts of about equal cost, for job arrays: 1/8 to 8/8."),
    ] = None
    max_hours: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="H", help=f"Stop after H hours, with exit status {UNFINISHED} if members are left."
        ),
    ] = None
    attempts: Annotated[int, typer.Option(min=1, help="Attempts at a member before it fails.")] = 3
    publish: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Publish finished members there while the others are trained."),
    ] = None
    publish_epochs: Annotated[
        str, typer.Option(help="Weights published beside the final ones: all, last, every-10.")
    ] = "all"
    private: Annotated[bool, typer.Option("--private", help="Make the repos private.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print cost and disk; nothing is trained.")] = False
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="IMAGES/S", help="For --dry-run: one card's speed.", show_default="measured"),
    ] = None

    def for_run(self, recipe: "Recipe") -> "RunOptions":
        """Parse the options of a run."""
        from training.population.publisher import PublishOptions
        from training.population.run import RunOptions
        from training.population.selection import Shard
        from vitzoo.errors import TrainingError
        from vitzoo.records.epochs import Epochs

        for option, value in (("--address", self.address), ("--gpus-per-member", self.gpus_per_member)):
            if self.engine == "local" and value is not None:
                raise TrainingError(f"{option} is for Ray", fix=f"Add --engine ray, or omit {option}.")
        self._check_sharing()
        publish = None
        if self.publish:
            publish = PublishOptions(to=self.publish, epochs=Epochs(self.publish_epochs), private=self.private)
        return RunOptions(
            execution=self.execution(recipe),
            only=tuple(self.only or ()),
            shard=None if self.shard is None else Shard.parse(self.shard),
            attempts=self.attempts,
            max_hours=self.max_hours,
            publish=publish,
        )

    def start_engine(self) -> "StartEngine":
        """Return the function that starts the engine.

        Raises:
            MissingPackageError: Ray is not installed.
            TrainingError: No server answers at ``--address``.
        """
        if self.engine == "local":
            from training.population.local import LocalEngine

            return lambda job, left: LocalEngine(job, workers=self.local_workers(job, left))
        from training.population.ray import RayEngine, check_ray, gpu_share

        check_ray(self.address)
        share = gpu_share(int(self.members_per_gpu)) if self.members_per_gpu else self.gpus_per_member
        return lambda job, left: RayEngine(
            job, address=self.address, slots=min(self.workers or left, left), gpus_per_member=share
        )

    def local_workers(self, job: "Job", left: int) -> int:
        """Return the number of processes on this machine; ``--members-per-gpu auto`` measures it.

        Args:
            job: The work of the run.
            left: Number of unfinished members.
        """
        from training.population.local import default_workers

        workers = self.workers or default_workers()
        if self.members_per_gpu == "auto":
            workers *= _measure_sharing(job, most=left // workers)
        elif self.members_per_gpu is not None:
            workers *= int(self.members_per_gpu)
        return min(workers, left)

    def _check_sharing(self) -> None:
        """Check ``--members-per-gpu`` and the options that it excludes.

        Raises:
            TrainingError: The number is out of range, the machine has no GPU, or two options disagree.
        """
        from training.population.local import visible_gpus
        from vitzoo.errors import TrainingError, shown

        if self.members_per_gpu is None:
            return
        if not re.fullmatch(r"auto|[1-9]\d{0,2}", self.members_per_gpu, re.ASCII):
            raise TrainingError(
                f"--members-per-gpu is {shown(self.members_per_gpu)}", expected="a number from 1 to 999, or auto"
            )
        other = {"local": ("--workers", self.workers), "ray": ("--gpus-per-member", self.gpus_per_member)}
        option, value = other[self.engine]
        if value is not None:
            raise TrainingError(
                f"{option} and --members-per-gpu are given together",
                expected="one of them, since each sets the number of members at a time",
                fix=f"Omit {option}.",
            )
        if self.engine == "ray" and self.members_per_gpu == "auto":
            raise TrainingError(
                "--members-per-gpu auto measures this machine, and not a Ray cluster",
                fix="Run python -m training bench --only sharing on a machine of the cluster, and give the number.",
            )
        if self.engine == "local" and not visible_gpus():
            raise TrainingError(
                "--members-per-gpu needs a GPU, and this machine has none",
                fix="Omit it. On a CPU, --workers sets the number of members at a time.",
            )


@expand_options
def run(recipe: RecipeArgument, *, options: PopulationOptions) -> None:
    """Train every member that is not done yet, then write the tables. After any interruption, run it again."""
    from training.population.run import run_population

    console = make_console(stderr=True)
    loaded = load_recipe(recipe)
    for_run = options.for_run(loaded)
    if options.dry_run:
        _print_cost(loaded, options, for_run)
        return
    start_engine, started = options.start_engine(), time.monotonic()
    with exit_on_signals(console):
        outcome = run_population(loaded, options.out, start_engine=start_engine, options=for_run)
    _print_outcome(outcome, options, console, hours=(time.monotonic() - started) / 3600)
    raise typer.Exit(_exit_status(outcome))


def _print_cost(recipe: "Recipe", options: PopulationOptions, for_run: "RunOptions") -> None:
    """Print members, operations, hours and disk of a run, and write nothing."""
    from training.population.local import visible_gpus
    from training.population.selection import select_members
    from training.recipes.cost import estimate, in_hours
    from training.recipes.plan import plan_members
    from training.workspace import check_folder, finished_members

    out, rate, planned = options.out, options.rate, plan_members(recipe)
    check_folder(out, recipe)
    done = finished_members(out, planned)
    planned, _ = select_members(planned, only=for_run.only, shard=for_run.shard, done=done)
    console = make_console(soft_wrap=True, highlight=False)
    if rate is None and (reference := estimate(planned).reference) is not None:
        from training.bench.sharing import COUNTS, find_fastest
        from training.bench.steps import measure_rate

        together = ""
        with console.status("measuring the speed of a training step"):
            if options.members_per_gpu is None:
                rate = measure_rate(reference, for_run.execution)
            else:
                counts = COUNTS if options.members_per_gpu == "auto" else (int(options.members_per_gpu),)
                count, rate = find_fastest(reference, for_run.execution, counts=counts)
                together = f" of {count} members together on a GPU"
        console.print(f"measured here: {rate:,.1f} {reference.unit}/s{together}; --rate sets another card's speed")
    cost = estimate(planned, done=done, throughput=rate, keep=for_run.execution.keep, dtype=for_run.execution.dtype)
    folder = next(folder for folder in (out, *out.resolve().parents) if folder.is_dir())
    for line in cost.describe(free_bytes=shutil.disk_usage(folder).free, width=console.width):
        console.print(escape(line))
    slots = options.workers or len(visible_gpus())
    if slots > 1 and cost.hours is not None:
        cards = "workers" if options.members_per_gpu is None else "cards"
        console.print(f"{slots} {cards}: {in_hours(cost.hours / slots)}, if each has a card of that speed")


def _measure_sharing(job: "Job", *, most: int) -> int:
    """Measure and print the fastest number of members at a time on a GPU, up to a number."""
    from training.bench.sharing import COUNTS, find_fastest, heaviest
    from training.recipes.plan import plan_members

    counts = [count for count in COUNTS if count <= most]
    if len(counts) < 2:
        return 1
    console, planned = make_console(stderr=True, soft_wrap=True), heaviest(plan_members(job.recipe))
    console.print(f"measuring {planned.id} with {', '.join(map(str, counts))} members at a time on a GPU")
    count, speed = find_fastest(planned, job.execution, counts=counts)
    console.print(
        f"fastest: {count} at a time, {speed:,.0f} {planned.unit}/s together; --members-per-gpu {count} skips this "
        "measurement"
    )
    return count


def _print_outcome(outcome: "Outcome", options: PopulationOptions, console: Console, *, hours: float) -> None:
    from training.recipes.cost import in_hours

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    for member, reason in outcome.diverged.items():
        say(f"[yellow]diverged[/] {member}: {escape(reason)}")
    for member, reason in outcome.failed.items():
        say(f"[red]failed[/] {member}: {escape(reason)}")
    if outcome.skipped:
        names = ", ".join(map(str, outcome.skipped[:_MOST_NAMES]))
        names += ", ..." if len(outcome.skipped) > _MOST_NAMES else ""
        say(f"[yellow]skipped[/] {len(outcome.skipped)} members whose parent failed or diverged: {names}")
    left = "1 member is left" if len(outcome.left) == 1 else f"{len(outcome.left)} members are left"
    if outcome.stopped == "full":
        say(
            f"[red]stopped[/] because the disk is full: {escape(outcome.reason)} {left}. Make room; the same command "
            "continues."
        )
    if outcome.stopped == "hours":
        say(f"[yellow]stopped[/] after {options.max_hours:g} hours: {left}; the same command continues.")
    for line in _describe_results(options.out) if outcome.done and outcome.stopped != "full" else ():
        say(line)
    say(f"this run: {in_hours(hours)}")
    say(f"{len(outcome.done)} members are done in {escape(str(options.out))}.")
    if outcome.unpublished is not None:
        say(
            f"[red]not published[/]: see {escape(str(options.out))}/.training/logs/publish.log, then continue with: "
            f"{escape(outcome.unpublished)}"
        )


def _describe_results(zoo: Path) -> list[str]:
    """Describe the final validation metrics of a zoo: a line for parents or children, and each metric."""
    from vitzoo.zoo.zoo import Zoo

    groups: dict[tuple[str, str], dict[str, float]] = {}
    for row in Zoo(zoo).table("members").to_pylist():
        metric = next((name for name in _RESULTS if row[f"final_{name}"] is not None), None)
        if metric is not None:
            stage = "parents" if row["parent"] is None else "children"
            groups.setdefault((stage, metric), {})[row["id"]] = row[f"final_{metric}"]
    lines = []
    for (stage, metric), values in groups.items():
        best, shown = (min, "{:.4f}".format) if metric.endswith("loss") else (max, percent)
        name = best(values, key=lambda member: values[member])
        mean = shown(sum(values.values()) / len(values))
        lines.append(f"{len(values)} {stage}, {metric}: mean {mean}, best {shown(values[name])} ({name})")
    return lines


def _exit_status(outcome: "Outcome") -> int:
    if outcome.stopped == "hours" and outcome.left:
        return UNFINISHED  # also if members failed: the next run tries them again
    return 1 if outcome.failed or outcome.stopped is not None or outcome.unpublished else 0
