"""Format members, metrics, selections and problems for the commands of `vitzoo.cli`. Text from a zoo is escaped."""

import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import accumulate, groupby
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from rich import markup
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from vitzoo.errors import SelectionError, did_you_mean, printable, shown
from vitzoo.ids import DEFAULT_ZOO, MemberId, MemberRef
from vitzoo.notebook import brief
from vitzoo.progress import in_bytes
from vitzoo.records import FACTORS, SEEDS
from vitzoo.zoo.member import Member
from vitzoo.zoo.zoo import Zoo

if TYPE_CHECKING:
    from vitzoo.analysis.diversity.diff import Difference
    from vitzoo.verification.evaluations import Comparison
    from vitzoo.verification.problems import Problem
    from vitzoo.verification.verify import Verification
    from vitzoo.zoo.selection import Selection

_FACTORS = ("pretraining_objective", *FACTORS)
_MEMBER_COLUMNS = ("id", "parent", "status", *_FACTORS)
# Columns of csv and json alone.
_METRICS = ("test_accuracy", "test_knn_accuracy")
_NAMED = 6  # tensors
_WIDEST_CELL = 40  # characters


def member_rows(zoo: Zoo, *, where: str, depth: int, sort: str) -> list[dict[str, Any]]:
    """Return rows of the table of members: each parent, then its children.

    Args:
        zoo: The zoo.
        where: Conditions of the members; their parents are added. Empty for all members.
        depth: 1 for parents alone, 2 for their children too.
        sort: Column that orders parents, and the children of each; with a leading "-", the largest first.

    Raises:
        SelectionError: A column is unknown, or no member matches.
    """
    present = set(map(str, zoo.catalogue.member_ids))  # a partial copy has the whole table
    rows = [row for row in zoo.table("members").to_pylist() if row["id"] in present]
    column, is_reversed = sort.removeprefix("-"), sort.startswith("-")
    if column not in rows[0]:
        raise SelectionError(
            f"members have no column {shown(column)}", fix=did_you_mean(column, list(rows[0])), value=column
        )
    if where:
        chosen = {str(member) for member in zoo.select(where, status="any").ids}
        chosen |= {member.partition("/")[0] for member in chosen}
        rows = [row for row in rows if row["id"] in chosen]
    if depth == 1:
        rows = [row for row in rows if row["parent"] is None]
    if column != "id":  # the table's own order
        known = [row for row in rows if row[column] is not None]
        unknown = [row for row in rows if row[column] is None]
        rows = sorted(known, key=lambda row: row[column], reverse=is_reversed) + unknown
    elif is_reversed:
        rows.reverse()
    families: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["parent"] is not None):  # stable: parents first, in their order
        families.setdefault(row["parent"] or row["id"], []).append(row)
    return [row for family in families.values() for row in family]


def print_tree(console: Console, zoo: Zoo, members: Sequence[MemberId]) -> None:
    """Print members as a tree, in their order, with the children of a parent under it."""
    recipe = escape(str(zoo.recipe.get("name", "custom")))
    shown_members = "" if len(members) == len(zoo) else f", {len(members)} of them shown"
    root = Tree(f"[bold]{escape(zoo.source.name)}[/]  recipe {recipe}, {len(zoo)} members{shown_members}")
    branches: dict[int, Tree] = {}
    lines = dict(
        zip((found := [m for m in members if not m.is_parent]), describe_children([zoo[m] for m in found]), strict=True)
    )
    for member in members:
        if member.parent not in branches:
            missing = f"[bold]{member.parent_id or member}[/]  (not in this folder)"
            branches[member.parent] = root.add(describe_parent(zoo[member]) if member.is_parent else missing)
        if not member.is_parent:
            branches[member.parent].add(lines[member])
    console.print(root)


def describe_parent(member: Member) -> str:
    """Format a parent for the family tree."""
    record = member.record
    text = f"{record.objective or 'unknown'} on {record.dataset or 'unknown'}"
    return f"[bold]{member.id}[/]  {escape(text)}, {_describe_result(member)}"


def describe_children(members: Sequence[Member]) -> list[str]:
    """Format children for the family tree, one a line, in columns."""
    cells = []
    for member in members:
        record = member.record
        rate = "?" if record.learning_rate is None else f"{record.learning_rate:g}"
        replicate = "?" if record.replicate is None else record.replicate
        factors = (record.head_type, record.optimizer or "?", f"lr {rate}", f"replicate {replicate}")
        cells.append([str(member.id), *map(printable, factors)])
    lines = _align(cells)
    return [f"{escape(line)}  {_describe_result(member)}" for line, member in zip(lines, members, strict=True)]


def _describe_result(member: Member) -> str:
    record, last = member.record, member.metrics[-1]
    accuracy = f"test {percent(last.test_accuracy)}"
    if record.head_role == "embedding":
        accuracy = f"test k-NN {percent(last.test_knn_accuracy)}"
    status = "" if record.status == "completed" else f"  [red]{escape(record.status)}[/]"
    source = member.catalogue.source
    if source.copied is not None and not source.saved_epochs(member.id):
        status += "  (records only)"
    return accuracy + status


def print_metrics(console: Console, member: Member, *, marked: int | None = None) -> None:
    """Print a member's metrics by epoch, and mark the row of one epoch.

    Args:
        console: Where to print.
        member: The member.
        marked: Number of the marked epoch; None for no mark.
    """
    columns = ["val_accuracy", "test_accuracy", "train_accuracy", "train_loss", "val_loss", "test_loss"]
    if member.record.head_role == "embedding":
        columns = ["val_knn_accuracy", "test_knn_accuracy", "train_loss", "val_loss", "test_loss"]
    columns += ["weight_norm", "distance_from_start"]
    rows = []
    for record in member.metrics:
        epoch = f"> {record.epoch}" if record.epoch == marked else str(record.epoch)
        rows.append([Number(epoch), *(_metric(column, getattr(record, column)) for column in columns)])
    unit = member.catalogue.source.record.unit
    print_table(console, [unit, *(column.replace("_", "\n") for column in columns)], rows)


class Number(str):
    """Text of a number, which a table aligns to the right."""

    __slots__ = ()


def _metric(name: str, value: float | None) -> Number:
    """Format a metric: accuracies in percent, others with four digits."""
    return Number(percent(value) if name.endswith("accuracy") or value is None else f"{value:.4f}")


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that fits the terminal: numbers to the right, and no column that the width cannot hold.

    Args:
        console: Where to print.
        columns: Headings, the most important first, of one line or more.
        rows: Cells, plain text. A `Number` is aligned to the right.
    """
    cells = [[cell_len(max(text.split("\n"), key=cell_len)) for text in line] for line in (columns, *rows)]
    ends = list(accumulate(max(column) + 2 for column in zip(*cells, strict=True)))
    shown = max(sum(end - 2 <= console.width for end in ends), 1)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for place, name in enumerate(columns[:shown]):
        is_number = any(isinstance(row[place], Number) for row in rows)
        heading = "\n".join(map(escape, name.split("\n")))
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row[:shown]))
    console.print(table)
    if shown < len(columns):
        hidden = ", ".join(name.replace("\n", "_") for name in columns[shown:])
        console.print(escape(f"Not shown in {console.width} columns: {hidden}. A wider terminal shows all."))


def escape(text: str) -> str:
    """Escape rich's markup and the terminal's control characters."""
    return markup.escape(printable(text))


def percent(share: float | None) -> str:
    """Format a share between 0 and 1."""
    return "-" if share is None else f"{100 * share:.2f}%"


def print_difference(console: Console, difference: "Difference") -> None:
    """Print the values that differ side by side, the weights by layer, and the predictions."""
    for title, differing in (("record", difference.records), ("metric", difference.metrics)):
        if differing:
            rows = [[name, *map(_cell, values)] for name, values in differing.items()]
            print_table(console, [title, *map(str, difference.refs)], rows)
        else:
            console.print(f"Their {title}s are equal.")
    if difference.layers:
        rows = []
        for layer in difference.layers:
            numbers = (f"{number:.4g}" for number in (layer.relative_l2, layer.cosine, layer.l2))
            rows.append([layer.layer, *map(Number, numbers), Number(f"{layer.parameters:,}")])
        print_table(console, ["weights", "relative l2", "cosine", "l2", "parameters"], rows)
    if difference.unmatched:
        names = ", ".join(difference.unmatched[:_NAMED]) + (", ..." if len(difference.unmatched) > _NAMED else "")
        count = _count(len(difference.unmatched), "tensor")
        console.print(f"Not compared, {count} that one of them lacks or has in another shape: {escape(names)}")
    found = difference.predictions
    if found is None:
        console.print(f"Predictions were not compared. {escape(str(difference.reason))}")
        return
    rows = [
        ["test samples", f"{found.samples} of {found.dataset}"],
        ["accuracies", ", ".join(percent(accuracy) for accuracy in found.accuracies)],
        ["agreement", percent(found.agreement)],
    ]
    for name, value in (("kappa", found.kappa), ("error consistency", found.error_consistency)):
        rows.append([name, "undefined" if isnan(value) else f"{value:.4f}"])
    print_table(console, ["predictions", "value"], rows)


def verification_as_json(result: "Verification") -> dict[str, Any]:
    """Return the values of a verification by name."""
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    problems = [
        {"member": each.member and str(each.member), "problem": each.what, "fix": each.fix} for each in result.problems
    ]
    evaluations = [comparison_as_json(each) for each in result.evaluations]
    return values | {"problems": problems, "evaluations": evaluations}


def comparison_as_json(comparison: "Comparison") -> dict[str, Any]:
    """Return a measured metric and the recorded one, and whether they agree."""
    values = {field.name: getattr(comparison, field.name) for field in fields(comparison)}
    return values | {"member": str(comparison.member), "exact": comparison.exact, "agrees": comparison.agrees}


def difference_as_json(difference: "Difference") -> dict[str, Any]:
    """Return the values of a difference by name."""
    values = {field.name: getattr(difference, field.name) for field in fields(difference)}
    return values | {"refs": [str(ref) for ref in difference.refs]}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _cell(value: object) -> str:
    """Format a value of a record in at most 40 characters; a data set by its name."""
    text = "-" if value is None else brief(getattr(value, "name", value))
    return text if len(text) <= _WIDEST_CELL else f"{text[: _WIDEST_CELL - 3]}..."


def end_interrupted(console: Console, done: str) -> NoReturn:
    """End the process after Ctrl-C, without waiting for threads or for workers."""
    console.print(f"Interrupted. {done} are kept; the same command goes on from there.")
    sys.stderr.flush()
    os._exit(130)


def describe_comparison(comparison: "Comparison") -> str:
    """Format the metric of a member that was evaluated again."""
    verdict = "[red]they differ[/]"
    if comparison.agrees:
        verdict = "[green]they agree exactly[/]" if comparison.exact else "they agree but for rounding"
    return (
        f"{comparison.member} on {comparison.samples} test samples of {escape(comparison.dataset)}, epoch "
        f"{comparison.epoch}: {comparison.metric} measured {percent(comparison.measured)}, recorded "
        f"{percent(comparison.recorded)}: {verdict}"
    )


def print_problems(console: Console, problems: "Sequence[Problem]") -> None:
    """Print problems by member, and problems with one fix above the fix."""
    for member, own in groupby(problems, key=lambda problem: problem.member):
        console.print(f"[bold]{member or 'the zoo itself'}[/]")
        by_fix: dict[str, list[str]] = {}
        for problem in own:
            by_fix.setdefault(problem.fix, []).append(problem.what)
        for fix, texts in by_fix.items():
            for text in texts:
                console.print(f"  [red]{escape(text)}[/]")
            console.print(f"    {escape(fix)}")
    members = len({problem.member for problem in problems} - {None})
    summary = f"[red]{_count(len(problems), 'problem')}[/], in {_count(members, 'member')}"
    console.print(summary if problems else "[green]No problems.[/]")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_trust(result: "Verification") -> str:
    """Describe what a verification proves about the zoo's origin."""
    if result.authenticated:
        part = "" if result.copied is None else "a part of "
        return f"{'But for this, it' if result.problems else 'It'} is {part}the zoo of digest {result.digest}."
    text = "Who made it is unchecked." if result.problems else "It agrees with itself; who made it is unchecked."
    if result.digest is None:
        return f"{text} It has no digest to compare: it was never published."
    return f"{text} Its digest is {result.digest}; compare it with the one that its authors publish: --digest."


def describe_selection(selection: "Selection") -> str:
    """Describe the size of a selection."""
    return (
        f"{_count(len(selection.ids), 'member')}, {_count(len(selection), 'checkpoint')}, {in_bytes(selection.bytes)}"
    )


def print_json(value: object) -> None:
    """Print a value as JSON on standard output. Text is ASCII, and an undefined number is null."""
    sys.stdout.write(json.dumps(_without_nan(msgspec.to_builtins(value)), indent=1) + "\n")


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with all their columns on standard output."""
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: printable(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows)


def id_prefix(zoo: str) -> str:
    """Return the part of an id that names the zoo of a command. "zoo/" is a folder, not the default zoo."""
    prefix = zoo.rstrip("/") or "/"
    return f"./{prefix}" if prefix == DEFAULT_ZOO != zoo else prefix


def selection_rows(selection: "Selection", *, zoo: str) -> list[dict[str, Any]]:
    """Return each checkpoint with its member's factors and its metrics. ``learning_rate`` is the factor, the peak."""
    members = {row["id"]: row for row in selection.members_table.to_pylist()}
    prefix, rows = id_prefix(zoo), []
    for ref, size, metrics in zip(selection, selection.sizes, selection.epochs_table.to_pylist(), strict=True):
        member = members[metrics["id"]]
        row = {"ref": str(MemberRef(ref.member, prefix, ref.epoch))}
        row |= {column: member[column] for column in _MEMBER_COLUMNS}
        rows.append({**row, **{name: value for name, value in metrics.items() if name not in row}, "bytes": size})
    return rows


def print_selection(console: Console, selection: "Selection", rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the factors that vary, without seeds, and the metrics of each checkpoint."""
    varying = [name for name in _FACTORS if name not in SEEDS and len({row[name] for row in rows}) > 1]
    metrics = [name for name in _METRICS if any(row[name] is not None for row in rows)]
    lines = []
    for ref, row in zip(selection, rows, strict=True):
        numbers = [Number(row["epoch"]), *(Number(percent(row[name])) for name in metrics)]
        factors = [_factor(row[name]) for name in varying]
        lines.append([str(replace(ref, zoo=None)), *numbers, *factors])
    print_table(console, ["id", "epoch", *metrics, *varying], lines)


def _factor(value: object) -> str:
    return "-" if value is None else Number(value) if isinstance(value, (int, float)) else str(value)


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Join the cells of each line, padded to the width of their columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
