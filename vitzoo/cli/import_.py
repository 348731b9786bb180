"""``vitzoo import``: models from elsewhere as a zoo folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from vitzoo.cli.console import make_console
from vitzoo.cli.display import end_interrupted, escape, id_prefix, print_json
from vitzoo.cli.options import IdsOption, JsonOption, examples
from vitzoo.progress import ByteProgress, in_bytes

if TYPE_CHECKING:
    from vitzoo.interop.authors.plan import PlannedImport
    from vitzoo.interop.checkpoints.plan import PlannedMember
    from vitzoo.interop.engine import ImportReport

app = typer.Typer(help="Import models from elsewhere into a zoo folder.", no_args_is_help=True)

_EPOCHS = typer.Option(help='Weights beside the final ones: "all", "last", "every-10" or "0,10".')
_JOBS = typer.Option(min=1, help="Models converted at a time; each takes a core.")
_DRY_RUN = typer.Option("--dry-run", help="Only print what would be imported.")


@app.command(
    epilog=examples(
        "vitzoo import authors release zoo --dry-run", "vitzoo import authors release zoo --epochs last --check 5"
    )
)
def authors(
    source: Annotated[str, typer.Argument(help="The release's folder, with pretraining/ and finetuning/.")],
    zoo: Annotated[str, typer.Argument(help="A new folder for the zoo, or the folder of an unfinished import.")],
    *,
    epochs: Annotated[str, _EPOCHS] = "all",
    jobs: Annotated[int, _JOBS] = 2,
    check: Annotated[
        int, typer.Option(min=0, help="Number of members whose logits are compared with their original checkpoints.")
    ] = 0,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder of the tokenizer of language models, such as bert-base-cased's.")
    ] = None,
    dry_run: Annotated[bool, _DRY_RUN] = False,
    as_json: JsonOption = False,
    quiet: IdsOption = False,
) -> None:
    """Import the raw release of the zoo's authors. After an interruption the same command resumes."""
    from vitzoo.interop.authors.job import Import
    from vitzoo.interop.authors.run import import_release, plan_release
    from vitzoo.records.epochs import Epochs

    with _progress() as report:
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
    left_out = "Not taken of any model: optimizer states, train_acc, and names of machines, users, processes and paths."
    _finish(planned, job.report, zoo, left_out=left_out, dry_run=dry_run, as_json=as_json, quiet=quiet)


@app.command(
    epilog=examples(
        "vitzoo import checkpoints runs.csv --from-folder ./runs",
        "vitzoo import checkpoints runs.csv ./zoo --dry-run",
        "vitzoo import checkpoints multiberts ./multiberts --epochs last",
    )
)
def checkpoints(
    table: Annotated[
        str | None,
        typer.Argument(
            help="A table with a row a checkpoint (.csv, .jsonl or .parquet), or the name of a ready one: multiberts "
            "or model-j."
        ),
    ] = None,
    zoo: Annotated[
        str | None, typer.Argument(help="A new folder for the zoo, or the folder of an earlier import of the table.")
    ] = None,
    *,
    from_folder: Annotated[
        str | None,
        typer.Option(help="Write a table of the checkpoints in a folder to TABLE (checkpoints.csv), and stop."),
    ] = None,
    epochs: Annotated[str, _EPOCHS] = "all",
    jobs: Annotated[int, _JOBS] = 2,
    link: Annotated[
        bool, typer.Option("--link", help="Link weights files that are as a zoo has them, instead of copying them.")
    ] = False,
    find_parents: Annotated[
        str | None,
        typer.Option(help='Number of families, or "auto": find parents by the weights, for a table that names none.'),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder of the tokenizer of BERTs that have none beside their weights.")
    ] = None,
    dry_run: Annotated[bool, _DRY_RUN] = False,
    as_json: JsonOption = False,
    quiet: IdsOption = False,
) -> None:
    """Import any population of ViTs or BERTs by a table. After an interruption the same command resumes."""
    from vitzoo.errors import ConflictingArgumentsError

    if from_folder is not None:
        if zoo is not None:
            raise ConflictingArgumentsError(
                "--from-folder writes a table and imports nothing",
                fix="Leave ZOO out. Look through the table, and import it.",
            )
        _write_table(Path(from_folder), Path(table or "checkpoints.csv"))
        return
    if table is None or zoo is None:
        raise ConflictingArgumentsError(
            "TABLE or ZOO is missing", expected="vitzoo import checkpoints TABLE ZOO, or --from-folder FOLDER"
        )
    from vitzoo.interop.checkpoints.job import Import
    from vitzoo.interop.checkpoints.run import import_checkpoints, plan_checkpoints
    from vitzoo.records.epochs import Epochs

    with _progress() as report:
        job = Import(
            table=Path(table),
            root=Path(zoo),
            epochs=Epochs(epochs),
            jobs=jobs,
            link=link,
            find_parents=_families(find_parents),
            tokenizer=None if tokenizer is None else Path(tokenizer),
            progress=report,
        )
        planned = plan_checkpoints(job) if dry_run else []
        if not dry_run:
            import_checkpoints(job)
    _finish(planned, job.report, zoo, left_out="", dry_run=dry_run, as_json=as_json, quiet=quiet)


def _families(text: str | None) -> int | Literal["auto"] | None:
    from vitzoo.errors import ConflictingArgumentsError

    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise ConflictingArgumentsError(f"--find-parents is {text}", expected='a number of families from 1, or "auto"')
    return int(text)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show an import's progress, and end the command if it is interrupted."""
    errors = make_console(stderr=True, soft_wrap=True, highlight=False)
    steps: set[str] = set()
    try:
        with ByteProgress("importing", console=errors) as bar:

            def report(step: str, done: int, total: int) -> None:
                if step == "importing":
                    bar.update(done, total)
                elif step not in steps:
                    steps.add(step)
                    bar.say(f"{step}: {total}")

            yield report
    except KeyboardInterrupt:
        end_interrupted(errors, "Finished members")


def _finish(
    planned: "Sequence[PlannedImport | PlannedMember]",
    report: "ImportReport",
    zoo: str,
    *,
    left_out: str,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print the result of an import, and end the command with status 1 if a model was not taken."""
    if as_json or quiet:
        _print_plain(planned, report, zoo, as_json=as_json)
    else:
        _print_result(planned, report, zoo, dry_run=dry_run)
        if left_out:
            make_console(soft_wrap=True, highlight=False).print(left_out)
    if not report.complete:
        raise typer.Exit(1)


def _print_plain(
    planned: "Sequence[PlannedImport | PlannedMember]", report: "ImportReport", zoo: str, *, as_json: bool
) -> None:
    """Print the report as JSON, or else only ids. ``planned`` has members after a dry run."""
    if as_json:
        members = [
            {"id": str(each.id), "name": each.name, "checkpoints": len(each.numbers), "bytes": each.bytes}
            for each in planned
        ]
        print_json(asdict(report) | {"planned": members})
    else:
        prefix = id_prefix(zoo)
        for member in report.taken or [each.id for each in planned]:
            print(f"{prefix}/{member}")


def _print_result(
    planned: "Sequence[PlannedImport | PlannedMember]", report: "ImportReport", zoo: str, *, dry_run: bool
) -> None:
    from vitzoo.interop.engine import REPORT

    console = make_console(soft_wrap=True, highlight=False)
    for member in planned:
        console.print(
            f"{member.id}  {escape(member.name)}  {len(member.numbers)} checkpoints, {in_bytes(member.bytes)}"
        )
    if dry_run:
        console.print(f"{in_bytes(sum(member.bytes for member in planned))} in all.")
    _print_report(console, report, zoo)
    if not dry_run:
        console.print(f"The report is in {escape(str(REPORT))} of the zoo.")


def _print_report(console: Console, report: "ImportReport", zoo: str) -> None:
    parents = sum("/" not in member for member in report.taken)
    console.print(
        f"[bold]{escape(zoo)}[/]  {len(report.taken)} members ({parents} parents, {len(report.taken) - parents} "
        f"children), {report.checkpoints} checkpoints; {in_bytes(report.read)} read by this command."
    )
    for member, difference in report.checked.items():
        console.print(f"{member}: logits as before, largest difference {difference:.1e}")
    for names, line in _group(report.notes):
        console.print(f"[yellow]note[/] {escape(names)}: {escape(line)}")
    for folder, reason in report.skipped.items():
        console.print(f"[red]not taken[/] {escape(folder)}: {escape(reason)}.")


def _group(notes: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return each note once, with the names of the models that it is about."""
    names: dict[str, list[str]] = {}
    for name, lines in notes.items():
        for line in lines:
            names.setdefault(line, []).append(name)
    return [(own[0] if len(own) == 1 else f"{own[0]} and {len(own) - 1} more", line) for line, own in names.items()]


def _write_table(folder: Path, path: Path) -> None:
    from vitzoo.interop.checkpoints.scan import write_table

    written = write_table(folder, path)
    console = make_console(soft_wrap=True, highlight=False)
    for note in written.notes:
        console.print(f"[yellow]note[/] {escape(note)}")
    console.print(f"{escape(str(path))}: {written.rows} checkpoints of {written.members} members.")
    console.print(f"Next: vitzoo import checkpoints {escape(str(path))} ./zoo --dry-run")
