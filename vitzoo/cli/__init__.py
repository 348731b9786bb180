"""The command line ``vitzoo``. Each command calls the library and prints its result.

See `vitzoo.cli.commands` for most of the commands, and the module of the same name for each other one.
"""

from typing import Annotated

import typer

import vitzoo
from vitzoo.cli import import_
from vitzoo.cli.commands import diff, download, select, show, tree, verify
from vitzoo.cli.console import run_app
from vitzoo.cli.env import env
from vitzoo.cli.export import export
from vitzoo.cli.merge import merge
from vitzoo.cli.options import HELP_NAMES, examples
from vitzoo.cli.report import report

__all__ = ["app", "main", "run_app"]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, context_settings=HELP_NAMES)
app.command(
    epilog=examples(
        "vitzoo tree",
        "vitzoo tree org/vit-zoo --depth 1",
        "vitzoo tree zoo --where 'head_type=mlp' --sort=-final_val_accuracy",
    )
)(tree)
app.command(epilog=examples("vitzoo show zoo/pt-12/ft-3", "vitzoo show zoo/pt-12/ft-3@3 --evaluate"))(show)
app.command(epilog=examples("vitzoo diff zoo/pt-12/ft-3 zoo/pt-12/ft-4", "vitzoo diff zoo/pt-0@1 zoo/pt-0@4 --json"))(
    diff
)
app.command(
    epilog=examples(
        "vitzoo select zoo --where 'head_type=mlp,optimizer=adamw|sgd,min_test_accuracy=.8'",
        "vitzoo select zoo --epochs every-4 --quiet",
        "vitzoo select zoo --epochs all --csv > checkpoints.csv",
    )
)(select)
app.command(
    epilog=examples(
        "vitzoo verify zoo",
        "vitzoo verify org/vit-zoo --digest sha256:... --epochs last",
        "vitzoo verify zoo --evaluate 5",
    )
)(verify)
app.command(
    epilog=examples(
        "vitzoo download org/vit-zoo --dry-run",
        "vitzoo download org/vit-zoo --where 'parent=pt-4' --epochs 0,8 --to ./copy",
    )
)(download)
app.command(
    epilog=examples(
        "vitzoo report zoo --to report",
        "vitzoo report zoo --to tables --tables-only",
        "vitzoo report zoo --to full --with all",
    )
)(report)
app.command(
    epilog=examples(
        "vitzoo merge 'zoo/pt-4/ft-*' --where head_type=linear --method greedy --to soup",
        "vitzoo merge zoo/pt-4/ft-0 --method epochs --last 3 --to averaged",
    )
)(merge)
app.command(
    epilog=examples("vitzoo export zoo/pt-12/ft-3 out --to timm", "vitzoo export zoo/pt-12/ft-3@3 out --to onnx")
)(export)
app.command(epilog=examples("vitzoo env", "vitzoo env --json"))(env)
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
