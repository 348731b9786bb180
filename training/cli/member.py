"""``python -m training member``: train one member in this process."""

import os
from typing import Annotated

import typer
from rich.console import Console

from training.cli.options import RecipeArgument, TrainingOptions, expand_options, load_recipe
from training.cli.signals import exit_on_signals
from training.lease import BEAT, EXPIRY
from vitzoo.cli.display import escape

_PATIENCE = EXPIRY + 2 * BEAT  # seconds; the lease of a machine that died ends in that time


@expand_options
def member(
    recipe: RecipeArgument,
    member_id: Annotated[str, typer.Argument(metavar="MEMBER", help="A member of the recipe, such as pt-3/ft-1.")],
    *,
    options: TrainingOptions,
) -> None:
    """Train one member, whose parent must be done; for ``accelerate launch`` and job arrays."""
    from transformers.utils.logging import disable_progress_bar

    from training.member.execution import prepare_process
    from training.member.record import describe_divergence
    from training.member.report import MemberDisplay
    from training.member.train import train_member
    from training.recipes.plan import plan_member
    from training.workspace import Workspace
    from vitzoo.ids import MemberId

    disable_progress_bar()
    loaded = load_recipe(recipe)
    execution = options.execution(loaded)
    prepare_process(execution)
    planned = plan_member(loaded, MemberId.parse(member_id))
    workspace = Workspace(options.out, loaded)
    is_main = os.environ.get("RANK", "0") == "0"
    console = Console(stderr=True, quiet=not is_main)
    with exit_on_signals(console), MemberDisplay(planned, console) as display:
        record = train_member(workspace, planned, execution=execution, report=display, patience=_PATIENCE)
    if record.status == "diverged":
        console.print(f"{planned.id} diverged: {describe_divergence(record)}", markup=False, soft_wrap=True)
    else:
        console.print(f"{planned.id} is done in {escape(str(options.out))}.", soft_wrap=True)
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()  # else torch warns at exit
