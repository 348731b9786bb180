"""``python -m training publish``: a zoo folder to the Hub."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vitzoo.cli.display import escape


def publish(
    zoo: Annotated[Path, typer.Argument(help="The zoo folder.")],
    *,
    to: Annotated[str, typer.Option("--to", metavar="ORG/NAME", help="The model repo.")],
    metadata_to: Annotated[
        str | None,
        typer.Option("--metadata-to", metavar="ORG/NAME", help="The dataset repo.", show_default="<to>-metadata"),
    ] = None,
    epochs: Annotated[
        str, typer.Option(help="Weights beside the final ones: all, last (none), every-10 or 0,10,20.")
    ] = "all",
    private: Annotated[bool, typer.Option("--private", help="Make the repos private.")] = False,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Tag both repos, such as v1.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; no network, no token.")] = False,
) -> None:
    """Publish a zoo to the Hugging Face Hub (HF_TOKEN or hf auth login). Ended at any moment, it can be run again."""
    from training.publish.plan import plan_publication
    from vitzoo.records.epochs import Epochs
    from vitzoo.sources.folder import FolderSource

    out, console = Console(), Console(stderr=True)
    publication = plan_publication(FolderSource(zoo), to=to, metadata_to=metadata_to, epochs=Epochs(epochs), tag=tag)
    for line in publication.describe():
        out.print(escape(line), soft_wrap=True)
    if dry_run:
        for file in publication.files:
            out.print(f"{file.size:>12,}  {escape(file.path)}", soft_wrap=True, highlight=False)
        out.print("Nothing was verified, and nothing sent: publishing verifies all of it first.", soft_wrap=True)
        return
    from training.publish.push import publish as push

    try:
        published = push(publication, private=private)
    except KeyboardInterrupt:
        console.print("Interrupted. What was sent is kept; the same command goes on from there.")
        raise typer.Exit(130) from None
    what = f"{published.commits} commits" if published.commits else "already published, nothing was sent"
    out.print(f"{what}; sizes and hashes on the Hub are the manifest's.")
    if published.left_alone:
        out.print(f"{published.left_alone} files in {escape(to)} are not of this zoo any more; they were left alone.")
    for url, commit in ((published.url, published.commit), (published.metadata_url, published.metadata_commit)):
        out.print(f"{escape(url)}/tree/{commit}", soft_wrap=True, highlight=False)
    out.print(f"prove it with: vitzoo verify {escape(to)} --digest {published.digest}", soft_wrap=True, highlight=False)
