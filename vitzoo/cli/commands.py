"""The commands that read a zoo: ``vitzoo tree | show | diff | select | verify | download``.

See `vitzoo.cli.display` for the formatting, and `vitzoo.cli.export` and `vitzoo.cli.import_` for the other commands.
"""

import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vitzoo.cli import display
from vitzoo.cli.console import make_console
from vitzoo.cli.display import escape
from vitzoo.cli.options import (
    DataOption,
    DigestOption,
    IdsOption,
    JsonOption,
    MemberArgument,
    RevisionOption,
    WhereOption,
    ZooArgument,
    open_member,
)
from vitzoo.data.known import check_data, parse_data
from vitzoo.ids import MemberId, MemberRef
from vitzoo.progress import ByteProgress, in_bytes
from vitzoo.records.epochs import Epochs
from vitzoo.zoo.zoo import Zoo

if TYPE_CHECKING:
    from vitzoo.verification.evaluations import Comparison
    from vitzoo.verification.verify import Verification
    from vitzoo.zoo.member import Member


def tree(
    zoo: ZooArgument = "zoo",
    *,
    where: WhereOption = "",
    depth: Annotated[int, typer.Option(min=1, max=2, help="1 for parents alone, 2 for their children too.")] = 2,
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column that orders siblings; --sort=-COLUMN for the largest first.")
    ] = "id",
    as_json: JsonOption = False,
    quiet: IdsOption = False,
) -> None:
    """Print the family tree with accuracies on the test data.

    With --where, it has the members that match, and their parents.
    """
    opened = Zoo(zoo)
    rows = display.member_rows(opened, where=where, depth=depth, sort=sort)
    if as_json:
        display.print_json(rows)
    elif quiet:
        prefix = display.id_prefix(zoo)
        sys.stdout.writelines(f"{MemberRef(MemberId.parse(row['id']), prefix)}\n" for row in rows)
    else:
        display.print_tree(make_console(), opened, [MemberId.parse(row["id"]) for row in rows])


def show(
    name: MemberArgument,
    *,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Evaluate the member on its test data again.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a member's lineage, factors and metrics. With an epoch, as in pt-0@3, mark it."""
    ref, member = open_member(name)
    folders = parse_data(data or ())
    check_data(folders, [member.record.dataset])
    if ref.epoch is not None and ref.epoch not in member.epochs:
        raise member.catalogue.no_epoch(ref.member, ref.epoch)
    comparison = None
    if evaluate:
        from vitzoo.verification.evaluations import compare_with_record

        comparison = compare_with_record(member, epoch=ref.epoch, data=folders)
    if as_json:
        display.print_json(
            {
                "record": member.record,
                "metrics": member.metrics,
                "evaluated": comparison and display.comparison_as_json(comparison),
            }
        )
    else:
        _print_member(ref, member, comparison)
    if comparison is not None and not comparison.exact:
        raise typer.Exit(1)


def _print_member(ref: MemberRef, member: "Member", comparison: "Comparison | None") -> None:
    console, record = make_console(), member.record
    console.print(f"[bold]{escape(str(ref))}[/]  {escape(record.status)}, {record.num_parameters:,} parameters")
    parent = member.id.parent_id
    has_parent = parent is None or parent in member.catalogue.member_ids
    family = [] if parent is None else [f"parent {parent}{'' if has_parent else ' (not in this folder)'}"]
    family += [f"{len(member.children)} children"] if member.children else []
    console.print(", ".join(family) or "no relatives")
    end = {"diverged_step": record.diverged_step, "last_good_epoch": record.last_good_epoch}
    factors = [(factor, str(value)) for factor, value in (member.factors | end).items() if value is not None]
    display.print_table(console, ["factor", "value"], factors)
    display.print_metrics(console, member, marked=ref.epoch)
    if comparison is not None:
        console.print(f"\n{display.describe_comparison(comparison)}", soft_wrap=True)


def diff(
    first: MemberArgument,
    second: MemberArgument,
    *,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two members, at any epoch: records, weights by layer, and predictions on test data that they share."""
    from vitzoo.hub_http import quiet

    folders = parse_data(data or ())
    with quiet():
        (one, member), (two, other) = open_member(first), open_member(second)
        check_data(folders, [member.record.dataset, other.record.dataset])
        from vitzoo.analysis.diff import diff as compare  # torch

        difference = compare(member, other, epochs=(one.epoch, two.epoch), data=folders)
    if as_json:
        display.print_json(display.difference_as_json(difference))
    else:
        display.print_difference(make_console(), difference)


def select(
    zoo: ZooArgument = "zoo",
    *,
    where: WhereOption = "",
    epochs: Annotated[str, typer.Option(help='Epochs: "last", "all", "every-10" or "0,10".')] = "last",
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with every value.")] = False,
    quiet: IdsOption = False,
    revision: RevisionOption = None,
    digest: DigestOption = None,
) -> None:
    """Print the checkpoints that match all conditions, and their size."""
    from vitzoo.hub_http import quiet as quiet_http

    with quiet_http():
        selection = Zoo(zoo, revision=revision, digest=digest).select(where, epoch=epochs)
    rows = display.selection_rows(selection, zoo=zoo)
    try:
        if as_json:
            display.print_json(rows)
        elif as_csv:
            display.print_csv(rows)
        elif quiet:
            sys.stdout.writelines(f"{row['ref']}\n" for row in rows)
        else:
            display.print_selection(make_console(), selection, rows)
        sys.stdout.flush()
    except BrokenPipeError:  # "| head" has read enough, which is not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(128 + signal.SIGPIPE) from None
    make_console(stderr=True, soft_wrap=True, highlight=False).print(display.describe_selection(selection))


def verify(
    zoo: ZooArgument = "zoo",
    *,
    digest: DigestOption = None,
    evaluate: Annotated[int, typer.Option(min=0, help="Number of members to evaluate again on test data.")] = 0,
    data: DataOption = None,
    where: WhereOption = "",
    epochs: Annotated[str, typer.Option(help='Weights to check: "all", "last", "every-10" or "0,10".')] = "all",
    revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for every problem of a zoo's files, records, weights and tables. Exit with status 1 if there is one."""
    from vitzoo.hub_http import quiet

    chosen, folders = Epochs(epochs), parse_data(data or ())
    with quiet(), ByteProgress("verifying") as progress:
        opened = Zoo(zoo, revision=revision, digest=digest)
        if folders:
            check_data(folders, [member.record.dataset for member in opened])
        members = opened.select(where, status="any").ids if where else None
        from vitzoo.verification.verify import verify_zoo  # imports torch, while the progress is shown

        result = verify_zoo(
            opened,
            members=members,
            epochs=chosen,
            evaluate=evaluate,
            data=folders,
            report=progress.update,
            step=progress.step,
        )
    if as_json:
        display.print_json(display.verification_as_json(result))
    else:
        _print_verification(opened, result, chosen)
    if result.problems:
        raise typer.Exit(1)


def _print_verification(opened: Zoo, result: "Verification", epochs: Epochs) -> None:
    console = make_console(soft_wrap=True, highlight=False)
    recipe = escape(str(opened.recipe.get("name", "custom")))
    console.print(
        f"[bold]{escape(opened.source.name)}[/]  recipe {recipe}: read {result.files} files of {result.members} "
        f"members, weights of epochs: {epochs}, {in_bytes(result.bytes)}"
    )
    if result.copied is not None:
        console.print(
            f"A partial copy of {escape(result.copied.repo)}, with {len(result.copied.weights)} weights files. "
            "The others were not looked for."
        )
    for comparison in result.evaluations:
        console.print(display.describe_comparison(comparison))
    display.print_problems(console, result.problems)
    if result.unlisted is not None:
        console.print(f"Files that the manifest does not name were not looked for: {escape(result.unlisted)}")
    console.print(display.describe_trust(result))


def download(
    zoo: ZooArgument,
    *,
    where: WhereOption = "",
    epochs: Annotated[str, typer.Option(help='Weights to download: "last", "all", "every-10" or "0,10".')] = "last",
    to: Annotated[str | None, typer.Option(help="A folder that becomes a zoo; the cache by default.")] = None,
    revision: RevisionOption = None,
    digest: DigestOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the size.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the folder.")] = False,
) -> None:
    """Download members of a Hub zoo and check every file's hash. After an interruption the same command resumes."""
    from vitzoo.hub_http import quiet as quiet_http
    from vitzoo.sources.download import find_weights, plan_download, run_download

    console, chosen = make_console(stderr=True, soft_wrap=True, highlight=False, quiet=quiet), Epochs(epochs)
    try:
        with quiet_http(), ByteProgress("downloading", console=console) as progress:
            opened = Zoo(zoo, revision=revision, digest=digest)
            members = opened.select(where).ids if where else opened.source.member_ids()
            planned = plan_download(opened.source, find_weights(opened.source, members=members, epochs=chosen), to=to)
            progress.say(
                f"{escape(opened.source.name)} at {planned.source.commit[:12]}: {len(members)} members, epochs "
                f"{epochs}, {len(planned.files)} files of {in_bytes(planned.bytes)}, {in_bytes(planned.missing)} of "
                "them missing here."
            )
            if dry_run:
                return
            run_download(planned, report=progress.update)
    except KeyboardInterrupt:
        display.end_interrupted(console, "Downloaded files")
    if quiet:
        print(planned.target)
    console.print(f"All are in {escape(str(planned.target))}, with the hashes of the manifest.")
