"""The command line: ``vitzoo tree | show | verify | download``.

Each command prints what a function of the library returns. Text that comes from a zoo is escaped before it is shown.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich import markup
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from vitzoo.errors import VitZooError
from vitzoo.ids import MemberRef
from vitzoo.locate import locate, open_source
from vitzoo.member import Member
from vitzoo.progress import ByteProgress, in_bytes
from vitzoo.selection import Epochs
from vitzoo.zoo import Zoo

if TYPE_CHECKING:
    from vitzoo.verification.evaluations import Comparison
    from vitzoo.verification.problems import Problem
    from vitzoo.verification.verify import Verification

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
        branch = root.add(f"[bold]{parent.id}[/]  {_describe_parent(parent)}")
        for child in parent.children:
            branch.add(f"{child.id}  {_describe_child(child)}")
    Console().print(root)


@app.command()
def show(member: MemberArgument, *, evaluate: EvaluateOption = False) -> None:
    """Print a member's lineage, factors and figures; with --evaluate, measure its accuracy beside the recorded one."""
    located = locate(member)
    ref, source = located or (MemberRef.parse(member), open_source())  # what is no member's is an error here
    found = Zoo.of(source)[ref.member]
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
    for name, value in found.factors.items():
        if value is not None:
            factors.add_row(name, escape(str(value)))
    console.print(factors)
    console.print(_metrics_table(found))
    if evaluate:
        _print_evaluation(console, found, ref.epoch)


@app.command()
def verify(
    zoo: ZooArgument = "zoo",
    *,
    digest: DigestOption = None,
    evaluate: Annotated[int, typer.Option(min=0, help="Evaluate so many members again on their test images.")] = 0,
    where: WhereOption = "",
    epochs: Annotated[str, typer.Option(help='Weights to look at: "all", "last", "every-10" or "0,10".')] = "all",
    revision: RevisionOption = None,
) -> None:
    """Look for all that is wrong with a zoo: files, records, weights, tables; exit status 1 where something is."""
    from vitzoo.hub_http import quiet
    from vitzoo.verification.verify import verify_zoo

    chosen = Epochs(epochs)
    opened = Zoo(zoo, revision=revision, digest=digest)
    members = [member.id for member in opened.match(where)] if where else None
    with quiet(), ByteProgress("verifying") as progress:
        found = verify_zoo(opened, members=members, epochs=chosen, evaluate=evaluate, report=progress.update)
    console = Console(soft_wrap=True, highlight=False)
    recipe = escape(str(opened.recipe.get("name", "custom")))
    console.print(
        f"[bold]{escape(opened.source.name)}[/]  recipe {recipe}: read {found.files} files of {found.members} members, "
        f"weights of epochs: {chosen}, {found.bytes / 1e6:,.1f} MB"
    )
    _print_comparisons(console, found.evaluations)
    _print_problems(console, found.problems)
    if found.unlisted is not None:
        console.print(f"Files that the manifest does not name were not looked for: {escape(found.unlisted)}")
    console.print(_describe_trust(found))
    if found.problems:
        raise typer.Exit(1)


def _print_comparisons(console: Console, comparisons: "Iterable[Comparison]") -> None:
    for one in comparisons:
        verdict = "[green]they agree exactly[/]" if one.exact else "they agree but for rounding"
        console.print(
            f"{one.member} on {one.images} test images of {escape(one.dataset)}, epoch {one.epoch}: {one.figure} "
            f"measured {_percent(one.measured)}, recorded {_percent(one.recorded)}: "
            f"{verdict if one.agrees else '[red]they differ[/]'}"
        )


def _print_problems(console: Console, problems: "Sequence[Problem]") -> None:
    """By member, and under problems with one cure the cure."""
    for member, its in groupby(problems, key=lambda problem: problem.member):
        console.print(f"[bold]{member or 'the zoo itself'}[/]")
        by_fix: dict[str, list[str]] = {}
        for problem in its:
            by_fix.setdefault(problem.fix, []).append(problem.what)
        for fix, whats in by_fix.items():
            for what in whats:
                console.print(f"  [red]{escape(what)}[/]")
            console.print(f"    {escape(fix)}")
    members = len({problem.member for problem in problems} - {None})
    found = f"[red]{_count(len(problems), 'problem')}[/], in {_count(members, 'member')}"
    console.print(found if problems else "[green]No problems.[/]")


def _count(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


def _describe_trust(found: "Verification") -> str:
    if found.authenticated:
        return f"{'But for this, it' if found.problems else 'It'} is the zoo of digest {found.digest}."
    text = "Who made it is unchecked." if found.problems else "It agrees with itself; who made it is unchecked."
    if found.digest is None:
        return f"{text} It has no digest to compare: it was never published."
    return f"{text} Its digest is {found.digest}; compare it with the one that its authors publish: --digest."


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
    from vitzoo.download import plan_download, run_download
    from vitzoo.hub_http import quiet

    console, chosen = Console(stderr=True, soft_wrap=True, highlight=False), Epochs(epochs)
    try:
        with quiet(), ByteProgress("downloading", console=console) as progress:
            opened = Zoo(zoo, revision=revision, digest=digest)
            members = [member.id for member in opened.match(where)]
            planned = plan_download(opened, members=members, epochs=chosen, to=to)
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


def _describe_parent(parent: Member) -> str:
    record, final = parent.record, parent.metrics[-1]
    figure = f"test {_percent(final.test_accuracy)}"
    if record.head_role == "embedding":
        figure = f"test k-NN {_percent(final.test_knn_accuracy)}"
    return f"{escape(record.objective)} on {escape(record.dataset)}, {figure}"


def _describe_child(child: Member) -> str:
    record, final = child.record, child.metrics[-1]
    factors = f"{record.head_type:<6} {record.optimizer:<5} lr {record.learning_rate:<6g} replicate {record.replicate}"
    return f"{escape(factors)}  test {_percent(final.test_accuracy)}"


def _metrics_table(member: Member) -> Table:
    columns = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"]
    if member.record.head_role == "embedding":
        columns = ["train_loss", "val_loss", "val_knn_accuracy", "test_loss", "test_knn_accuracy"]
    columns += ["weight_norm", "distance_from_start"]
    table = Table("epoch", *(column.replace("_", "\n") for column in columns), box=None, padding=(0, 1))
    for record in member.metrics:
        values = [getattr(record, column) for column in columns]
        table.add_row(str(record.epoch), *("-" if value is None else f"{value:.4f}" for value in values))
    return table


def _print_evaluation(console: Console, member: Member, epoch: int | None) -> None:
    from vitzoo.verification.evaluations import compare_with_record

    found = compare_with_record(member, epoch=epoch)
    verdict = "[green]they agree exactly[/]" if found.exact else "[red]they differ[/]"
    console.print(
        f"\n{found.images} test images of {escape(found.dataset)}, epoch {found.epoch}: "
        f"{found.figure} measured {_percent(found.measured)}, recorded {_percent(found.recorded)}: {verdict}",
        soft_wrap=True,
    )
    if not found.exact:
        raise typer.Exit(1)


def escape(text: str) -> str:
    """Text as it may be shown: rich's markup and the terminal's control characters do nothing."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return markup.escape(shown)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}%"


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
