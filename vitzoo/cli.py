"""The command line: ``vitzoo tree | show``.

Each command prints what a function of the library returns. Text that comes from a zoo is escaped before it is shown.
"""

from typing import Annotated

import typer
from rich import markup
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from vitzoo.errors import VitZooError
from vitzoo.ids import MemberRef
from vitzoo.source import locate
from vitzoo.zoo import Member, Zoo

app = typer.Typer(
    help="A population of vision transformers: look at it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ZooArgument = Annotated[str, typer.Argument(help='The zoo: "zoo" (the default one) or a path.')]
MemberArgument = Annotated[str, typer.Argument(help='A member id, such as "zoo/pt-12/ft-3".')]
EvaluateOption = Annotated[
    bool, typer.Option("--evaluate", help="Load it, classify its test images, and compare with the record.")
]


@app.command()
def tree(zoo: ZooArgument = "zoo") -> None:
    """Print the family tree with accuracies on the test images."""
    opened = Zoo(zoo)
    recipe = escape(str(opened.recipe.get("name", "custom")))
    root = Tree(f"[bold]{escape(str(opened.source.root))}[/]  recipe {recipe}, {len(opened)} members")
    for parent in opened.parents:
        branch = root.add(f"[bold]{parent.id}[/]  {_describe_parent(parent)}")
        for child in parent.children:
            branch.add(f"{child.id}  {_describe_child(child)}")
    Console().print(root)


@app.command()
def show(member: MemberArgument, *, evaluate: EvaluateOption = False) -> None:
    """Print a member's lineage, factors and figures; with --evaluate, measure its accuracy beside the recorded one."""
    files = locate(member)
    ref = MemberRef.parse(member) if files is None else files.ref  # what is no member's is an error here
    found = Zoo(ref.zoo or "zoo")[ref.member]
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
    from transformers.utils.logging import disable_progress_bar

    from vitzoo.evaluation import knn_accuracy

    disable_progress_bar()
    recorded = member.metrics_at(epoch)
    measured = member.evaluate(epoch=epoch)
    if member.record.head_role == "embedding":
        what, before = "k-NN accuracy of the features", recorded.test_knn_accuracy
        accuracy = knn_accuracy(member.evaluate(part="train", epoch=epoch), measured)
    else:
        what, before, accuracy = "accuracy", recorded.test_accuracy, measured.accuracy
    verdict = "[green]they agree exactly[/]" if accuracy == before else "[red]they differ[/]"
    console.print(
        f"\n{len(measured.labels)} test images of {escape(member.record.dataset)}, epoch {recorded.epoch}: "
        f"{what} measured {_percent(accuracy)}, recorded {_percent(before)}: {verdict}",
        soft_wrap=True,
    )
    if accuracy != before:
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
