"""The command line: ``vitzoo tree | show | diff | select | verify | download | report | merge | import | export``.

Each command calls the library and prints its result. See `vitzoo.cli.commands` for most of them.
"""

from typing import Annotated

import typer

import vitzoo
from vitzoo.cli import import_
from vitzoo.cli.commands import diff, download, select, show, tree, verify
from vitzoo.cli.console import run_app
from vitzoo.cli.export import export
from vitzoo.cli.merge import merge
from vitzoo.cli.report import report

__all__ = ["app", "main", "run_app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (tree, show, diff, select, verify, download, report, merge, export):
    app.command()(command)
app.add_typer(import_.app, name="import")


@app.callback(invoke_without_command=True)
def _read_options(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> None:
    """Read, check, import and export a population of transformers."""
    if version:
        typer.echo(f"vitzoo {vitzoo.__version__}")
        raise typer.Exit


def main() -> None:
    """Run the ``vitzoo`` command."""
    run_app(app)
