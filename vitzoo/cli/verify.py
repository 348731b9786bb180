"""``vitzoo verify``: all that is wrong with a zoo."""

from typing import Annotated

import typer
from rich.console import Console

from vitzoo.cli.display import describe_trust, escape, print_comparisons, print_problems
from vitzoo.cli.options import DataOption, DigestOption, RevisionOption, WhereOption, ZooArgument
from vitzoo.images.known import check_data, parse_data
from vitzoo.progress import ByteProgress
from vitzoo.records.epochs import Epochs
from vitzoo.zoo.zoo import Zoo


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
