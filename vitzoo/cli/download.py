"""``vitzoo download``: members of a Hub zoo."""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from vitzoo.cli.display import escape
from vitzoo.cli.options import DigestOption, RevisionOption, WhereOption, ZooArgument
from vitzoo.progress import ByteProgress, in_bytes
from vitzoo.records.epochs import Epochs
from vitzoo.zoo.zoo import Zoo


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
    from vitzoo.hub_http import quiet
    from vitzoo.sources.download import find_weights, plan_download, run_download

    console, chosen = Console(stderr=True, soft_wrap=True, highlight=False), Epochs(epochs)
    try:
        with quiet(), ByteProgress("downloading", console=console) as progress:
            opened = Zoo(zoo, revision=revision, digest=digest)
            members = opened.select(where).ids if where else opened.source.member_ids()
            planned = plan_download(opened.source, find_weights(opened.source, members=members, epochs=chosen), to=to)
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
