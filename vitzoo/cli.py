"""The command line: ``vitzoo tree | show | select | verify | download``.

Each command prints what a function of the library returns; how it looks is `vitzoo.display`'s business.
"""

import os
import signal
import sys
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from vitzoo.conditions import Epochs
from vitzoo.display import (
    describe_child,
    describe_parent,
    describe_selection,
    describe_trust,
    escape,
    metrics_table,
    print_comparisons,
    print_evaluation,
    print_problems,
    print_selection,
)
from vitzoo.errors import VitZooError
from vitzoo.ids import MemberRef
from vitzoo.images.known import check_data, parse_data
from vitzoo.locate import locate, open_source
from vitzoo.progress import ByteProgress, in_bytes
from vitzoo.zoo import Zoo

app = typer.Typer(
    help="A population of vision transformers: look at it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ZooArgument = Annotated[str, typer.Argument(help='The zoo: "zoo" (the default one), a path, or a Hub repo (org/name).')]
RevisionOption = Annotated[str | None, typer.Option(help="Of a Hub repo: a branch, tag or commit.")]
DigestOption = Annotated[
    str | None, typer.Option(help="sha256:... of its manifest, as its authors publish it: proves which zoo it is.")
]
WhereOption = Annotated[
    str, typer.Option(help='Which members, such as "head_type=mlp,optimizer=adamw"; all by default.')
]
MemberArgument = Annotated[str, typer.Argument(help='A member id, such as "zoo/pt-12/ft-3".')]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="NAME=FOLDER",
        help="Folder of a data set that --evaluate needs, such as cifar100=./cifar-100-python; may be repeated.",
    ),
]
EvaluateOption = Annotated[
    bool, typer.Option("--evaluate", help="Load it, classify its test images, and compare with the record.")
]


@app.command()
def tree(zoo: ZooArgument = "zoo") -> None:
    """Print the family tree with accuracies on the test images."""
    opened = Zoo(zoo)
    recipe = escape(str(opened.recipe.get("name", "custom")))
    root = Tree(f"[bold]{escape(opened.source.name)}[/]  recipe {recipe}, {len(opened)} members")
    for parent in opened.parents:
        branch = root.add(f"[bold]{parent.id}[/]  {describe_parent(parent)}")
        for child in parent.children:
            branch.add(f"{child.id}  {describe_child(child)}")
    Console().print(root)


@app.command()
def show(member: MemberArgument, *, evaluate: EvaluateOption = False, data: DataOption = None) -> None:
    """Print a member's lineage, factors and figures; with --evaluate, measure its accuracy beside the recorded one."""
    located = locate(member)
    ref, source = located or (MemberRef.parse(member), open_source())  # what is no member's is an error here
    found = Zoo.of(source)[ref.member]
    folders = parse_data(data or ())
    check_data(folders, [found.record.dataset])
    if ref.epoch is not None and ref.epoch not in found.epochs:
        raise found.zoo.source.no_epoch(ref.member, ref.epoch)
    console = Console()
    console.print(
        f"[bold]{escape(str(ref))}[/]  {escape(found.record.status)}, {found.record.num_parameters:,} parameters"
    )
    family = [f"parent {found.parent.id}"] if found.parent else []
    family += [f"{len(found.children)} children"] if found.children else []
    console.print(", ".join(family) or "no relatives")
    factors = Table("factor", "value", box=None, padding=(0, 2))
    ends = {name: getattr(found.record, name) for name in ("diverged_step", "last_good_epoch")}
    for name, value in (found.factors | ends).items():
        if value is not None:
            factors.add_row(name, escape(str(value)))
    console.print(factors)
    console.print(metrics_table(found))
    if evaluate:
        from vitzoo.verification.evaluations import compare_with_record

        compared = compare_with_record(found, epoch=ref.epoch, data=folders)
        print_evaluation(console, compared)
        if not compared.exact:
            raise typer.Exit(1)


@app.command()
def select(
    zoo: ZooArgument = "zoo",
    *,
    where: Annotated[
        str,
        typer.Option(help='Which checkpoints, such as "head_type=mlp,optimizer=adamw|sgd,min_test_accuracy=.8".'),
    ] = "",
    epochs: Annotated[str, typer.Option(help='Of which epochs: "last", "all", "every-10" or "0,10".')] = "last",
    format: Annotated[
        Literal["table", "csv", "json", "ids"], typer.Option(help="How to print them; ids can be loaded.")
    ] = "table",
    revision: RevisionOption = None,
    digest: DigestOption = None,
) -> None:
    """Print the checkpoints that all conditions hold of, and what downloading them would take."""
    from vitzoo.hub_http import quiet

    with quiet():
        chosen = Zoo(zoo, revision=revision, digest=digest).select(where, epoch=epochs)
    try:
        print_selection(chosen, zoo=zoo, format=format)
        sys.stdout.flush()
    except BrokenPipeError:  # "| head" has read enough: no error, and nothing more to say to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(128 + signal.SIGPIPE) from None
    Console(stderr=True, soft_wrap=True, highlight=False).print(describe_selection(chosen))


@app.command()
def verify(
    zoo: ZooArgument = "zoo",
    *,
    digest: DigestOption = None,
    evaluate: Annotated[int, typer.Option(min=0, help="Evaluate so many members again on their test images.")] = 0,
    data: DataOption = None,
    where: WhereOption = "",
    epochs: Annotated[str, typer.Option(help='Weights to look at: "all", "last", "every-10" or "0,10".')] = "all",
    revision: RevisionOption = None,
) -> None:
    """Look for all that is wrong with a zoo: files, records, weights, tables; exit status 1 where something is."""
    from vitzoo.hub_http import quiet
    from vitzoo.verification.verify import verify_zoo

    chosen, folders = Epochs(epochs), parse_data(data or ())
    opened = Zoo(zoo, revision=revision, digest=digest)
    if folders:
        check_data(folders, [member.record.dataset for member in opened])
    members = opened.select(where, status="any").ids if where else None
    with quiet(), ByteProgress("verifying") as progress:
        found = verify_zoo(
            opened, members=members, epochs=chosen, evaluate=evaluate, data=folders, report=progress.update
        )
    console = Console(soft_wrap=True, highlight=False)
    recipe = escape(str(opened.recipe.get("name", "custom")))
    console.print(
        f"[bold]{escape(opened.source.name)}[/]  recipe {recipe}: read {found.files} files of {found.members} members, "
        f"weights of epochs: {chosen}, {found.bytes / 1e6:,.1f} MB"
    )
    print_comparisons(console, found.evaluations)
    print_problems(console, found.problems)
    if found.unlisted is not None:
        console.print(f"Files that the manifest does not name were not looked for: {escape(found.unlisted)}")
    console.print(describe_trust(found))
    if found.problems:
        raise typer.Exit(1)


@app.command()
def download(
    zoo: ZooArgument,
    *,
    where: WhereOption = "",
    epochs: Annotated[str, typer.Option(help="Which weights: last, all, every-10 or 0,10,20.")] = "last",
    to: Annotated[str | None, typer.Option(help="A folder that becomes a zoo; the cache by default.")] = None,
    revision: RevisionOption = None,
    digest: DigestOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much it is.")] = False,
) -> None:
    """Download members of a Hub zoo and compare every file with its hash. Ended at any moment, it can be run again."""
    from vitzoo.download import find_weights, plan_download, run_download
    from vitzoo.hub_http import quiet

    console, chosen = Console(stderr=True, soft_wrap=True, highlight=False), Epochs(epochs)
    try:
        with quiet(), ByteProgress("downloading", console=console) as progress:
            opened = Zoo(zoo, revision=revision, digest=digest)
            members = opened.select(where).ids if where else opened.source.member_ids()
            planned = plan_download(opened, find_weights(opened, members=members, epochs=chosen), to=to)
            progress.say(
                f"{escape(opened.source.name)} at {planned.source.commit[:12]}: {len(members)} members, epochs "
                f"{epochs}, {len(planned.files)} files of {in_bytes(planned.bytes)}, {in_bytes(planned.missing)} of "
                "them not here yet."
            )
            if dry_run:
                return
            run_download(planned, report=progress.update)
    except KeyboardInterrupt:
        console.print("Interrupted. What was downloaded is kept; the same command goes on from there.")
        sys.stderr.flush()
        os._exit(130)  # threads that wait for the Hub would be waited for
    console.print(f"All are in {escape(str(planned.to or planned.source.root))}, with the hashes of the manifest.")


def run_app(command: typer.Typer) -> None:
    """Run a command line; an error of ours is one line on standard error and exit status 1."""
    try:
        command()
    except VitZooError as error:
        Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(1) from None


def main() -> None:
    """The ``vitzoo`` command."""
    run_app(app)
