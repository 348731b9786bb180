"""The command line: ``vitzoo tree | show | select | verify | download | import | export``.

Each command is a file, and prints what a function of the library returns; how it looks is `vitzoo.cli.display`'s
business.
"""

import typer
from rich.console import Console

from vitzoo.cli import import_
from vitzoo.cli.display import escape
from vitzoo.cli.download import download
from vitzoo.cli.export import export
from vitzoo.cli.select import select
from vitzoo.cli.show import show
from vitzoo.cli.tree import tree
from vitzoo.cli.verify import verify
from vitzoo.errors import VitZooError

app = typer.Typer(
    help="A population of vision transformers: look at it, check it, take it in and out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (tree, show, select, verify, download, export):
    app.command()(command)
app.add_typer(import_.app, name="import")


def run_app(command: typer.Typer) -> None:
    """Run a command line; an error of ours is one line on standard error and exit status 1."""
    try:
        command()
    except VitZooError as error:
        Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(1) from None


def main() -> None:
    """The ``vitzoo`` command."""
    run_app(app)
