"""``vitzoo merge``: several checkpoints as one model."""

import re
import warnings
from fnmatch import fnmatchcase
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitzoo.cli.console import make_console
from vitzoo.cli.display import Number, escape, percent, print_json, print_table
from vitzoo.cli.export import check_free, write_folder
from vitzoo.cli.options import JsonOption, RevisionOption, WhereOption
from vitzoo.data.known import check_data, parse_data
from vitzoo.errors import ConflictingArgumentsError, SelectionError, did_you_mean
from vitzoo.records.files import refuse_member_folder
from vitzoo.sources.locate import DEFAULT_ZOO
from vitzoo.zoo.zoo import Zoo

if TYPE_CHECKING:
    from vitzoo.analysis.merging import Merged
    from vitzoo.zoo.selection import Selection

_NAME = re.compile(r"(?:(?P<zoo>.+)/)?(?P<member>pt-[^/@]*(?:/ft-[^/@]*)?)(?:@(?P<epoch>\d+))?", re.ASCII)
_DATA = typer.Option(
    "--data", metavar="NAME=FOLDER", help="Folder of a data set, such as cifar100=./cifar100; may be repeated."
)


def merge(
    members: Annotated[
        list[str],
        typer.Argument(metavar="MEMBER...", help='Members or patterns of one zoo: "zoo/pt-4/ft-*", zoo/pt-0@3.'),
    ],
    *,
    to: Annotated[Path, typer.Option(help="A folder that does not exist yet, or is empty.")],
    where: WhereOption = "",
    method: Annotated[
        str | None,
        typer.Option(help="uniform, weighted, greedy, greedy-strict, stock, epochs or task-arithmetic."),
    ] = None,
    weights: Annotated[str | None, typer.Option(help='Weights by member and epoch, such as "1,2,1".')] = None,
    last: Annotated[int | None, typer.Option(help="Number of epochs of --method epochs.")] = None,
    scale: Annotated[float | None, typer.Option(help="Scale of the moves of --method task-arithmetic.")] = None,
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate", help="Print test accuracies of the result and of the members, also as ensemble."),
    ] = False,
    data: Annotated[list[str] | None, _DATA] = None,
    device: Annotated[str, typer.Option(help="Where models run, such as cuda.")] = "cpu",
    revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Merge checkpoints into one model, and write it as a folder for transformers."""
    from vitzoo.hub_http import quiet

    folders = parse_data(data or ())
    check_free(to)
    refuse_member_folder(to)
    with quiet(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        selection = _select(members, where, revision)
        check_data(folders, selection.members_table.column("dataset").to_pylist())
        from vitzoo.analysis.merging import merge as merge_models  # torch for greedy soups

        merged = merge_models(
            selection,
            method=method,
            weights=None if weights is None else _parse_weights(weights),
            last=last,
            scale=scale,
            data=folders,
            device=device,
        )
        accuracies = merged.compare(data=folders, device=device).to_dict() if evaluate else {}
        write_folder(to, merged.save_pretrained)
    own = [str(item.message) for item in caught if item.category is UserWarning]
    if as_json:
        print_json(_as_json(merged, accuracies, own, to))
    else:
        _print(merged, accuracies, own, to)


def _select(names: list[str], where: str, revision: str | None) -> "Selection":
    """Return the checkpoints of names and patterns, which are of one zoo."""
    parsed = []
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            raise SelectionError(f"{name} is not a member or a pattern", expected='such as "zoo/pt-4/ft-*"', value=name)
        parsed.append(match)
    zoos = dict.fromkeys(match["zoo"] or DEFAULT_ZOO for match in parsed)
    if len(zoos) > 1:
        raise ConflictingArgumentsError(f"Members of {len(zoos)} zoos: {', '.join(zoos)}", expected="one zoo")
    zoo = Zoo(next(iter(zoos)), revision=revision)
    known = [str(member) for member in zoo.catalogue.member_ids]
    by_epoch: dict[str | int, list[str]] = {}  # names first: a shell may have expanded a pattern that --where divides
    for match in parsed:
        pattern = match["member"]
        found = [member for member in known if member.count("/") == pattern.count("/") and fnmatchcase(member, pattern)]
        if not found:
            raise SelectionError(
                f"{zoo.source.name} has no member {pattern}", fix=did_you_mean(pattern, known), value=pattern
            )
        by_epoch.setdefault("last" if match["epoch"] is None else int(match["epoch"]), []).extend(found)
    return reduce(or_, (zoo.select(where, id=found, epoch=epoch) for epoch, found in by_epoch.items()))


def _parse_weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SelectionError(f"weights is {text}", expected='numbers, such as "1,2,1"', value=text) from None


def _as_json(merged: "Merged", accuracies: dict[Any, float], notes: list[str], to: Path) -> dict[str, Any]:
    details = merged.details.astype(object).where(merged.details.notna(), None).to_dict("records")
    shares = dict(zip(map(str, merged.ingredients), merged.shares, strict=True))
    return {
        "method": merged.method,
        "ingredients": shares,
        "details": details,
        "test_accuracy": accuracies or None,
        "notes": notes,
        "folder": str(to),
    }


def _print(merged: "Merged", accuracies: dict[Any, float], notes: list[str], to: Path) -> None:
    console = make_console(soft_wrap=True, highlight=False)
    if "tensor" not in merged.details:
        rows = [
            [Number(f"{cell:.4f}") if isinstance(cell, float) else str(cell) for cell in row]
            for row in merged.details.itertuples(index=False)
        ]
        print_table(console, list(merged.details.columns), rows)
    for name, accuracy in accuracies.items():
        console.print(f"{name:9} test {percent(accuracy)}")
    for note in notes:
        console.print(f"[yellow]note[/] {escape(note)}")
    console.print(
        f"{len(merged.ingredients)} of {len(merged.candidates)} checkpoints, {merged.method}: {escape(str(to))}"
    )
