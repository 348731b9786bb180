"""Build the site: ``python -m docs.site [--zoo zoo] [--to build/site]``."""

import shutil
from pathlib import Path
from typing import Annotated

import typer
from sphinx.cmd.build import main as run_sphinx

from docs.site.outputs import load_outputs
from docs.site.pages import ROOT, write_pages


def build(
    *,
    zoo: Annotated[Path, typer.Option(help="The digits zoo, which the guides use.")] = ROOT / "zoo",
    text_zoo: Annotated[Path, typer.Option(help="The zoo of language models, if there is one.")] = ROOT / "text-zoo",
    to: Annotated[Path, typer.Option(help="Folder of the site.")] = ROOT / "build/site",
    work: Annotated[Path, typer.Option(help="Folder for outputs, sources and caches.")] = ROOT / "build/docs",
) -> None:
    """Run the guides, write the pages and call Sphinx. Its warnings are errors."""
    outputs = load_outputs(work / "outputs", zoo=zoo, text_zoo=text_zoo)
    write_pages(work / "source", outputs=outputs, pictures=work / "outputs")
    shutil.rmtree(to, ignore_errors=True)
    options = ["-c", str(Path(__file__).parent), "-d", str(work / "doctrees"), "-b", "html", "-W", "--keep-going", "-q"]
    status = run_sphinx([*options, str(work / "source"), str(to)])
    if status:
        raise typer.Exit(status)
    print(f"The site is in {to}. Open {to / 'index.html'}.")


if __name__ == "__main__":
    typer.run(build)
