"""Run ``python -m training plan | prepare | run | member | status | bench | publish``; see `training.cli`."""

from training.environment import fix_environment

fix_environment()  # before anything imports torch

import typer  # noqa: E402

from training.cli.bench import bench  # noqa: E402
from training.cli.member import member  # noqa: E402
from training.cli.plan import plan  # noqa: E402
from training.cli.prepare import prepare  # noqa: E402
from training.cli.publish import publish  # noqa: E402
from training.cli.run import run  # noqa: E402
from training.cli.status import status  # noqa: E402
from vitzoo.cli import run_app  # noqa: E402
from vitzoo.cli.options import HELP_NAMES, examples  # noqa: E402

app = typer.Typer(
    help="Regenerate a zoo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP_NAMES,
)
_EXAMPLES = {
    plan: ["plan digits", "plan ./my.py --json"],
    prepare: ["prepare snippets --to texts"],
    run: [
        "run digits --out zoo",
        "run paper --out paper --dry-run --rate 9000",
        "run digits --out zoo --only 'pt-3/*'",
    ],
    member: ["member digits pt-3/ft-1 --out zoo"],
    status: ["status zoo", "status zoo --watch"],
    bench: ["bench --quick", "bench --only steps"],
    publish: ["publish zoo --to org/vit-zoo --dry-run", "publish zoo --to org/vit-zoo --license cc-by-4.0 --tag v1"],
}
for command, lines in _EXAMPLES.items():
    app.command(epilog=examples(*(f"python -m training {line}" for line in lines)))(command)

if __name__ == "__main__":
    run_app(app)
