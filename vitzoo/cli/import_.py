"""``vitzoo import``: models from elsewhere as a zoo folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vitzoo.cli.console import make_console
from vitzoo.cli.display import end_interrupted, escape
from vitzoo.cli.options import examples
from vitzoo.progress import ByteProgress, in_bytes

if TYPE_CHECKING:
    from vitzoo.interop.authors.job import ImportReport

app = typer.Typer(help="Import models from elsewhere into a zoo folder.", no_args_is_help=True)


@app.command(
    epilog=examples(
        "vitzoo import authors release zoo --dry-run", "vitzoo import authors release zoo --epochs last --check 5"
    )
)
def authors(
    source: Annotated[str, typer.Argument(help="The release's folder, with pretraining/ and finetuning/.")],
    zoo: Annotated[str, typer.Argument(help="A new folder for the zoo, or the folder of an unfinished import.")],
    *,
    epochs: Annotated[
        str, typer.Option(help='Weights beside the final ones: "all", "last", "every-10" or "0,10".')
    ] = "all",
    jobs: Annotated[int, typer.Option(min=1, help="Models converted at a time; each takes a core.")] = 2,
    check: Annotated[
        int, typer.Option(min=0, help="Number of members whose logits are compared with their original checkpoints.")
    ] = 0,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder of the tokenizer of language models, such as bert-base-cased's.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be imported.")] = False,
) -> None:
    """Import the raw release of the zoo's authors. After an interruption the same command resumes."""
    from vitzoo.interop.authors.job import Import
    from vitzoo.interop.authors.run import REPORT, import_release, plan_release
    from vitzoo.records.epochs import Epochs

    console, errors = (make_console(stderr=stderr, soft_wrap=True, highlight=False) for stderr in (False, True))
    steps: set[str] = set()
    try:
        with ByteProgress("importing", console=errors) as bar:

            def report(step: str, done: int, total: int) -> None:
                if step == "importing":
                    bar.update(done, total)
                elif step not in steps:
                    steps.add(step)
                    bar.say(f"{step}: {total}")

            job = Import(
                source=Path(source),
                root=Path(zoo),
                epochs=Epochs(epochs),
                jobs=jobs,
                check=check,
                tokenizer=None if tokenizer is None else Path(tokenizer),
                progress=report,
            )
            planned = plan_release(job) if dry_run else []
            if not dry_run:
                import_release(job)
    except KeyboardInterrupt:
        end_interrupted(errors, "Finished members")
    for member in planned:
        console.print(
            f"{member.id}  {escape(member.folder)}  {len(member.epochs)} checkpoints, {in_bytes(member.bytes)}"
        )
    _print_report(console, job.report, zoo)
    if not dry_run:
        console.print(f"The report is in {escape(str(REPORT))} of the zoo.")
    if not job.report.complete:
        raise typer.Exit(1)


def _print_report(console: Console, report: "ImportReport", zoo: str) -> None:
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
    for folder, reason in report.skipped.items():
        console.print(f"[red]not taken[/] {escape(folder)}: {escape(reason)}.")
    console.print(
        "Not taken of any model: optimizer states, train_acc, and names of machines, users, processes and paths."
    )
