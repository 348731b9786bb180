"""Format members, metrics, selections and problems for the commands of `vitzoo.cli`. Text from a zoo is escaped."""

import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import groupby
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec
from rich import markup
from rich.console import Console
from rich.table import Table

from vitzoo.errors import printable
from vitzoo.ids import MemberRef
from vitzoo.notebook import brief
from vitzoo.progress import in_bytes
from vitzoo.records import FACTORS, SEEDS
from vitzoo.sources.locate import DEFAULT_ZOO
from vitzoo.zoo.member import Member

if TYPE_CHECKING:
    from vitzoo.analysis.diff import Difference
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


def metrics_table(member: Member) -> Table:
    """Make a table of a member's metrics by epoch."""
    columns = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"]
    if member.record.head_role == "embedding":
        columns = ["train_loss", "val_loss", "val_knn_accuracy", "test_loss", "test_knn_accuracy"]
    columns += ["weight_norm", "distance_from_start"]
    unit = member.catalogue.source.record.unit
    table = Table(unit, *(column.replace("_", "\n") for column in columns), box=None, padding=(0, 1))
    for record in member.metrics:
        values = [getattr(record, column) for column in columns]
        table.add_row(str(record.epoch), *("-" if value is None else f"{value:.4f}" for value in values))
    return table


def escape(text: str) -> str:
    """Escape rich's markup and the terminal's control characters."""
    return markup.escape(printable(text))


def percent(share: float | None) -> str:
    """Format a share between 0 and 1."""
    return "-" if share is None else f"{100 * share:.2f}%"


def print_difference(console: Console, difference: "Difference") -> None:
    """Print the values that differ side by side, the weights by layer, and the predictions."""
    one, two = (escape(str(ref)) for ref in difference.refs)
    for title, differing in (("record", difference.records), ("metric", difference.metrics)):
        if differing:
            table = Table(title, one, two, box=None, padding=(0, 2))
            for name, values in differing.items():
                table.add_row(escape(name), *(escape(_cell(value)) for value in values))
            console.print(table)
        else:
            console.print(f"Their {title}s are equal.")
    if difference.layers:
        table = Table("weights", "parameters", "l2", "relative l2", "cosine", box=None, padding=(0, 2))
        for layer in difference.layers:
            numbers = (layer.l2, layer.relative_l2, layer.cosine)
            table.add_row(escape(layer.layer), f"{layer.parameters:,}", *(f"{number:.4g}" for number in numbers))
        console.print(table)
    if difference.unmatched:
        names = ", ".join(difference.unmatched[:_NAMED]) + (", ..." if len(difference.unmatched) > _NAMED else "")
        count = _count(len(difference.unmatched), "tensor")
        console.print(f"Not compared, {count} that one of them lacks or has in another shape: {escape(names)}")
    found = difference.predictions
    if found is None:
        console.print(f"Predictions were not compared. {escape(str(difference.reason))}")
        return
    table = Table("predictions", "value", box=None, padding=(0, 2))
    table.add_row("test samples", f"{found.samples} of {escape(found.dataset)}")
    table.add_row("accuracies", ", ".join(percent(accuracy) for accuracy in found.accuracies))
    table.add_row("agreement", percent(found.agreement))
    for name, value in (("kappa", found.kappa), ("error consistency", found.error_consistency)):
        table.add_row(name, "undefined" if isnan(value) else f"{value:.4f}")
    console.print(table)


def difference_as_json(difference: "Difference") -> dict[str, Any]:
    """Return a difference as plain JSON; an undefined number is null."""
    values = {field.name: getattr(difference, field.name) for field in fields(difference)}
    return _without_nan(msgspec.to_builtins(values | {"refs": [str(ref) for ref in difference.refs]}))


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


def print_selection(selection: "Selection", *, zoo: str, format: Literal["table", "csv", "json", "ids"]) -> None:
    """Print a selection on standard output: a table of the factors that vary, all columns, or ids that load."""
    rows = _selection_rows(selection, zoo=zoo)
    if format == "ids":
        sys.stdout.writelines(f"{row['ref']}\n" for row in rows)
    elif format == "json":
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")  # which escapes all but ASCII
    elif format == "csv":
        writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: printable(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows)
    else:
        print("\n".join(_selection_table(selection, rows)))


def _selection_rows(selection: "Selection", *, zoo: str) -> list[dict[str, Any]]:
    """Return each checkpoint with its member's factors and its metrics. ``learning_rate`` is the factor, the peak."""
    members = {row["id"]: row for row in selection.members_table.to_pylist()}
    prefix, rows = zoo.rstrip("/") or "/", []
    prefix = f"./{prefix}" if prefix == DEFAULT_ZOO != zoo else prefix  # "zoo/" is a folder, not the default zoo
    for ref, size, metrics in zip(selection, selection.sizes, selection.epochs_table.to_pylist(), strict=True):
        member = members[metrics["id"]]
        row = {"ref": str(MemberRef(ref.member, prefix, ref.epoch))}
        row |= {column: member[column] for column in _MEMBER_COLUMNS}
        rows.append({**row, **{name: value for name, value in metrics.items() if name not in row}, "bytes": size})
    return rows


def _selection_table(selection: "Selection", rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return lines with the factors that vary, without seeds, and the metrics. They may be wider than a terminal."""
    varying = [name for name in _FACTORS if name not in SEEDS and len({row[name] for row in rows}) > 1]
    metrics = [name for name in _METRICS if any(row[name] is not None for row in rows)]
    lines = [["id", *varying, "epoch", *metrics]]
    for ref, row in zip(selection, rows, strict=True):
        factors = ["-" if row[name] is None else printable(str(row[name])) for name in varying]
        lines.append([str(replace(ref, zoo=None)), *factors, str(row["epoch"]), *(percent(row[m]) for m in metrics)])
    return [line.rstrip() for line in _align(lines)]


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Join the cells of each line, padded to the width of their columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
