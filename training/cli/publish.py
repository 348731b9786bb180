"""``python -m training publish``: publish a zoo folder to the Hub, once or while it is trained."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vitzoo.cli.console import make_console
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
    license: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Licence, such as cc-by-4.0; kept in zoo.json.", show_default="none"),
    ] = None,
    cite: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="BibTeX of the zoo, for the card; kept in zoo.json.", dir_okay=False),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures for the card, of vitzoo report --pictures.", file_okay=False),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Publish again and again while members are trained in the folder.")
    ] = False,
    run: Annotated[str | None, typer.Option(hidden=True)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent; no network, no token.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="For --dry-run: list every file.")] = False,
) -> None:
    """Publish a zoo to the Hugging Face Hub (HF_TOKEN or hf auth login). After any interruption, run it again."""
    from training.publish.plan import Publication, keep_terms, plan_publication, read_text
    from vitzoo.records.epochs import Epochs
    from vitzoo.sources.folder import FolderSource

    out, console = make_console(), make_console(stderr=True)
    terms = {"license": license, "citation": None if cite is None else read_text(cite)}

    def plan() -> Publication:
        source = FolderSource(zoo)
        return plan_publication(
            source, to=to, metadata_to=metadata_to, epochs=Epochs(epochs), tag=tag, pictures=pictures, **terms
        )

    if dry_run:
        publication = plan()
        files = [f"{file.size:>12,}  {file.path}" for file in publication.files] if verbose else []
        for line in (*publication.describe(), *files):
            out.print(escape(line), soft_wrap=True, highlight=False)
        hint = "" if verbose else " --verbose lists every file."
        out.print(f"Nothing was verified or sent. Publishing verifies all of it first.{hint}", soft_wrap=True)
        return
    from training.publish.follow import follow as follow_training
    from training.publish.push import publish as push
    from training.publish.remote import AGAIN
    from vitzoo.hub_http import limit_waiting
    from vitzoo.progress import ByteProgress

    limit_waiting()
    keep_terms(FolderSource(zoo), **terms)
    try:
        if follow:
            no_bars = Console(quiet=True)
            published = follow_training(
                FolderSource(zoo),
                lambda: push(plan(), private=private, progress=ByteProgress("publishing", console=no_bars)),
                run=run,
                say=partial(print, flush=True),  # the log is read while it is written
            )
        else:
            publication = plan()
            for line in publication.describe():
                out.print(escape(line), soft_wrap=True)
            published = push(publication, private=private)
    except KeyboardInterrupt:
        console.print(f"Interrupted. {AGAIN}")
        raise typer.Exit(130) from None
    if published is None:
        out.print("No member was finished, so nothing was published.")
        return
    what = f"{published.commits} commits" if published.commits else "already published, nothing was sent"
    out.print(f"{what}; the Hub lists every file with the manifest's size and hash.", soft_wrap=True)
    if published.left_alone:
        out.print(f"{published.left_alone} files in {escape(to)} are not in this zoo; they were left alone.")
    for url, commit in ((published.url, published.commit), (published.metadata_url, published.metadata_commit)):
        out.print(f"{escape(url)}/tree/{commit}", soft_wrap=True, highlight=False)
    out.print(f"prove it with: vitzoo verify {escape(to)} --digest {published.digest}", soft_wrap=True, highlight=False)
