"""``vitzoo import``: what exists elsewhere, into a zoo folder."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vitzoo.cli.display import escape
from vitzoo.progress import ByteProgress, in_bytes

if TYPE_CHECKING:
    from vitzoo.interop.authors.plan import PlannedImport
    from vitzoo.interop.authors.report import ImportReport

app = typer.Typer(help="Take what exists elsewhere into a zoo folder.", no_args_is_help=True)


@app.command()
def authors(
    source: Annotated[str, typer.Argument(help="The release's folder, with pretraining/ and finetuning/.")],
    zoo: Annotated[str, typer.Argument(help="A folder that becomes a zoo, or that an import was begun in.")],
    *,
    epochs: Annotated[
        str, typer.Option(help='Weights kept beside the final ones: "all", "last", "every-10" or "0,10".')
    ] = "all",
    jobs: Annotated[int, typer.Option(min=1, help="Models converted at a time; each takes a core.")] = 2,
    check: Annotated[
        int, typer.Option(min=0, help="Compare the logits of so many members with their original checkpoints.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be taken.")] = False,
) -> None:
    """Import the raw release of the zoo's authors. Ended at any moment, the same command goes on from there."""
    from vitzoo.interop.authors.run import REPORT, import_release, plan_release

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    said: set[str] = set()
    try:
        with ByteProgress("importing", console=console) as progress:

            def tell(what: str, done: int, total: int) -> None:
                if what == "importing":
                    progress.update(done, total)
                elif what not in said:
                    said.add(what)
                    progress.say(f"{what}: {total}")

            if dry_run:
                planned, report = plan_release(source, zoo, epochs=epochs, report=tell)
            else:
                planned, report = [], import_release(source, zoo, epochs=epochs, jobs=jobs, check=check, report=tell)
    except KeyboardInterrupt:
        console.print("Interrupted. What was finished is kept; the same command goes on from there.")
        sys.stderr.flush()
        os._exit(130)
    _print_plan(planned)
    _print_report(report, zoo)
    if not dry_run:
        Console(soft_wrap=True, highlight=False).print(f"The report stands in {escape(str(REPORT))} of the zoo.")
    if not report.complete:
        raise typer.Exit(1)


def _print_plan(planned: "list[PlannedImport]") -> None:
    console = Console(soft_wrap=True, highlight=False)
    for one in planned:
        kept = len({*one.keep, max(one.checkpoints)})
        console.print(f"{one.id}  {escape(one.folder)}  {kept} checkpoints, {in_bytes(one.bytes)}")


def _print_report(report: "ImportReport", zoo: str) -> None:
    console = Console(soft_wrap=True, highlight=False)
    parents = sum("/" not in member for member in report.taken)
    console.print(
        f"[bold]{escape(zoo)}[/]  {len(report.taken)} members ({parents} parents, {len(report.taken) - parents} "
        f"children), {report.checkpoints} checkpoints; {in_bytes(report.read)} read by this command."
    )
    for member, difference in report.checked.items():
        console.print(f"{member}: logits as before, largest difference {difference:.1e}")
    for folder, lines in report.notes.items():
        for line in lines:
            console.print(f"[yellow]note[/] {escape(folder)}: {escape(line)}")
    for folder, why in report.skipped.items():
        console.print(f"[red]not taken[/] {escape(folder)}: {escape(why)}.")
    console.print(
        "Not taken of any model: optimizer states, train_acc, and what names machines, users, processes or paths."
    )
