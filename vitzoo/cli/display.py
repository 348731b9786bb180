"""What the commands show: lines and tables of members, figures and problems. `vitzoo.cli` has the commands.

Text that comes from a zoo is escaped before it is shown.
"""

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from rich import markup
from rich.console import Console
from rich.table import Table

from vitzoo.errors import printable
from vitzoo.ids import MemberRef
from vitzoo.progress import in_bytes
from vitzoo.records import FACTORS
from vitzoo.sources.locate import DEFAULT_ZOO
from vitzoo.zoo.member import Member

if TYPE_CHECKING:
    from vitzoo.verification.evaluations import Comparison
    from vitzoo.verification.problems import Problem
    from vitzoo.verification.verify import Verification
    from vitzoo.zoo.selection import Selection

_FACTORS = ("pretraining_objective", *FACTORS)
_SHARED = ("id", "parent", "status", *_FACTORS)  # what checkpoints of one member have in common
_TWINS = ("init_group", "init_seed", "head_seed", "order_seed", "augmentation_seed", "replicate")  # in csv and json
_FIGURES = ("test_accuracy", "test_knn_accuracy")


def describe_parent(parent: Member) -> str:
    """A pre-trained member in the family tree."""
    record, final = parent.record, parent.metrics[-1]
    figure = f"test {percent(final.test_accuracy)}"
    if record.head_role == "embedding":
        figure = f"test k-NN {percent(final.test_knn_accuracy)}"
    trained = f"{escape(record.objective or 'unknown')} on {escape(record.dataset or 'unknown')}"
    return f"{trained}, {figure}{_unless_completed(record.status)}"


def describe_child(child: Member) -> str:
    """A fine-tuned member in the family tree."""
    record, final = child.record, child.metrics[-1]
    rate = "?" if record.learning_rate is None else f"{record.learning_rate:g}"
    factors = f"{record.head_type:<6} {record.optimizer or '?':<5} lr {rate:<6} replicate {record.replicate}"
    return f"{escape(factors)}  test {percent(final.test_accuracy)}{_unless_completed(record.status)}"


def _unless_completed(status: str) -> str:
    return "" if status == "completed" else f"  [red]{escape(status)}[/]"


def metrics_table(member: Member) -> Table:
    """A member's figures by epoch."""
    columns = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"]
    if member.record.head_role == "embedding":
        columns = ["train_loss", "val_loss", "val_knn_accuracy", "test_loss", "test_knn_accuracy"]
    columns += ["weight_norm", "distance_from_start"]
    table = Table("epoch", *(column.replace("_", "\n") for column in columns), box=None, padding=(0, 1))
    for record in member.metrics:
        values = [getattr(record, column) for column in columns]
        table.add_row(str(record.epoch), *("-" if value is None else f"{value:.4f}" for value in values))
    return table


def escape(text: str) -> str:
    """Text as it may be shown: rich's markup and the terminal's control characters do nothing."""
    return markup.escape(printable(text))


def percent(share: float | None) -> str:
    """A share of 1 as a person reads it."""
    return "-" if share is None else f"{100 * share:.2f}%"


def print_comparisons(console: Console, comparisons: "Iterable[Comparison]") -> None:
    """What evaluating members again gave."""
    for one in comparisons:
        verdict = "[green]they agree exactly[/]" if one.exact else "they agree but for rounding"
        console.print(
            f"{one.member} on {one.images} test images of {escape(one.dataset)}, epoch {one.epoch}: {one.figure} "
            f"measured {percent(one.measured)}, recorded {percent(one.recorded)}: "
            f"{verdict if one.agrees else '[red]they differ[/]'}"
        )


def print_evaluation(console: Console, found: "Comparison") -> None:
    """What evaluating one member gave, to the last bit."""
    verdict = "[green]they agree exactly[/]" if found.exact else "[red]they differ[/]"
    console.print(
        f"\n{found.images} test images of {escape(found.dataset)}, epoch {found.epoch}: "
        f"{found.figure} measured {percent(found.measured)}, recorded {percent(found.recorded)}: {verdict}",
        soft_wrap=True,
    )


def print_problems(console: Console, problems: "Sequence[Problem]") -> None:
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


def describe_trust(found: "Verification") -> str:
    """What a verification says of who made the zoo."""
    if found.authenticated:
        return f"{'But for this, it' if found.problems else 'It'} is the zoo of digest {found.digest}."
    text = "Who made it is unchecked." if found.problems else "It agrees with itself; who made it is unchecked."
    if found.digest is None:
        return f"{text} It has no digest to compare: it was never published."
    return f"{text} Its digest is {found.digest}; compare it with the one that its authors publish: --digest."


def describe_selection(chosen: "Selection") -> str:
    """How much a selection is."""
    return f"{_count(len(chosen.ids), 'member')}, {_count(len(chosen), 'checkpoint')}, {in_bytes(chosen.bytes)}"


def print_selection(chosen: "Selection", *, zoo: str, format: Literal["table", "csv", "json", "ids"]) -> None:
    """A selection on standard output.

    Args:
        chosen: The selection.
        zoo: How its zoo was named: an id with it can be loaded.
        format: A table of the factors that vary among the members, for people; ids alone, a line each; or csv and json
            with all factors and figures, for programs.
    """
    rows = _selection_rows(chosen, zoo=zoo)
    if format == "ids":
        sys.stdout.writelines(f"{row['ref']}\n" for row in rows)
    elif format == "json":
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")  # which escapes what is not ASCII
    elif format == "csv":
        writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: printable(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows)
    else:
        print("\n".join(_selection_table(chosen, rows)))


def _selection_rows(chosen: "Selection", *, zoo: str) -> list[dict[str, Any]]:
    """Each checkpoint with its member's factors and its own figures; ``learning_rate`` is the factor, the peak."""
    members = {row["id"]: row for row in chosen.members_table.to_pylist()}
    name, rows = zoo.rstrip("/") or "/", []
    name = f"./{name}" if name == DEFAULT_ZOO != zoo else name  # "zoo/" is a folder, whatever the default zoo is
    for ref, size, figures in zip(chosen, chosen.sizes, chosen.epochs_table.to_pylist(), strict=True):
        member = members[figures["id"]]
        row = {"ref": str(MemberRef(ref.member, name, ref.epoch)), **{column: member[column] for column in _SHARED}}
        rows.append({**row, **{k: v for k, v in figures.items() if k not in row}, "bytes": size})
    return rows


def _selection_table(chosen: "Selection", rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines with the factors that vary, seeds apart, and the figures; never cut to a terminal's width."""
    varying = [name for name in _FACTORS if name not in _TWINS and len({row[name] for row in rows}) > 1]
    figures = [name for name in _FIGURES if any(row[name] is not None for row in rows)]
    lines = [["id", *varying, "epoch", *figures]]
    for ref, row in zip(chosen, rows, strict=True):
        factors = ["-" if row[name] is None else printable(str(row[name])) for name in varying]
        lines.append([str(replace(ref, zoo=None)), *factors, str(row["epoch"]), *(percent(row[f]) for f in figures)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
