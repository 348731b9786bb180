"""``vitzoo report``: a page about a zoo, with pictures."""

from pathlib import Path
from typing import Annotated

import typer

from vitzoo.cli.console import make_console
from vitzoo.cli.display import end_interrupted, escape
from vitzoo.cli.options import DigestOption, RevisionOption, WhereOption, ZooArgument
from vitzoo.data.known import check_data, parse_data
from vitzoo.progress import in_bytes
from vitzoo.zoo.zoo import Zoo

_DATA = typer.Option(
    "--data", metavar="NAME=FOLDER", help="Folder of a data set, such as cifar100=./cifar100; may be repeated."
)
_WITH = typer.Option(
    "--with",
    metavar="SECTIONS",
    help="Sections that take longer: merging,paths,prediction,alignment, or all.",
)


def report(
    zoo: ZooArgument = "zoo",
    *,
    to: Annotated[Path, typer.Option(help="A folder that is new, empty, or an earlier report.")],
    where: WhereOption = "",
    tables_only: Annotated[bool, typer.Option("--tables-only", help="Read no weights, and run no model.")] = False,
    include: Annotated[str, _WITH] = "",
    data: Annotated[list[str] | None, _DATA] = None,
    pictures: Annotated[bool, typer.Option("--pictures", help="Also write each picture as a PNG file.")] = False,
    device: Annotated[str, typer.Option(help="Where models run, such as cuda.")] = "cpu",
    revision: RevisionOption = None,
    digest: DigestOption = None,
) -> None:
    """Write one page that opens offline: family tree, accuracies, curves, distances, features and all members."""
    from vitzoo.hub_http import quiet
    from vitzoo.report.sections import OPTIONAL  # torch and altair
    from vitzoo.report.write import write_report

    console, errors = (make_console(stderr=stderr, soft_wrap=True, highlight=False) for stderr in (False, True))
    folders = parse_data(data or ())
    with quiet():
        opened = Zoo(zoo, revision=revision, digest=digest)
        if folders:
            check_data(folders, [member.record.dataset for member in opened])
        try:
            written = write_report(
                opened,
                to,
                where=where,
                tables_only=tables_only,
                include=tuple(OPTIONAL) if include == "all" else tuple(filter(None, include.split(","))),
                data=folders,
                device=device,
                pictures=pictures,
                say=lambda line: errors.print(escape(line)),
            )
        except KeyboardInterrupt:
            end_interrupted(errors, "Outputs of models in the cache")
    console.print(f"{escape(str(written.path))}: {in_bytes(written.bytes)}, in {written.seconds:.1f} s")
