"""The command line: ``vitzoo tree | show | select | verify | download | import | export``.

Each command calls the library and prints its result. See `vitzoo.cli.commands` for most of them.
"""

import typer
from rich.console import Console

from vitzoo.cli import import_
from vitzoo.cli.commands import download, select, show, tree, verify
from vitzoo.cli.display import escape
from vitzoo.cli.export import export
from vitzoo.errors import VitZooError

app = typer.Typer(
    help="Read, check, import and export a population of vision transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (tree, show, select, verify, download, export):
    app.command()(command)
app.add_typer(import_.app, name="import")


def run_app(command: typer.Typer) -> None:
    """Run a command line. A VitZooError becomes one line on standard error and exit status 1."""
    try:
        command()
    except VitZooError as error:
        Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(1) from None


def main() -> None:
    """Run the ``vitzoo`` command."""
    run_app(app)
