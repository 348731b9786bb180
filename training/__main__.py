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

app = typer.Typer(help="Regenerate a zoo.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (plan, prepare, run, member, status, bench, publish):
    app.command()(command)

if __name__ == "__main__":
    run_app(app)
