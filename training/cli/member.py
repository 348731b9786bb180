"""``python -m training member``: train one member in this process."""

import os
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from training.cli.options import RecipeArgument, TrainingOptions, expand_options, load_recipe
from training.cli.signals import exit_on_signals
from training.lease import BEAT, EXPIRY
from vitzoo.cli.console import make_console
from vitzoo.errors import printable

if TYPE_CHECKING:
    from vitzoo.records import MemberRecord

_PATIENCE = EXPIRY + 2 * BEAT  # seconds; the lease of a machine that died ends in that time


@expand_options
def member(
    recipe: RecipeArgument,
    member_id: Annotated[str, typer.Argument(metavar="MEMBER", help="A member of the recipe, such as pt-3/ft-1.")],
    *,
    options: TrainingOptions,
) -> None:
    """Train one member, whose parent must be done; for accelerate launch and job arrays."""
    from training.member.execution import check_inputs, prepare_process
    from training.member.record import parent_record
    from training.recipes.plan import plan_member
    from training.workspace import Workspace, check_folder, finished_members
    from vitzoo.ids import MemberId

    loaded = load_recipe(recipe)
    execution = options.execution(loaded)
    planned = plan_member(loaded, MemberId.parse(member_id))
    check_folder(options.out, loaded)
    is_main = os.environ.get("RANK", "0") == "0"
    console = make_console(stderr=True, quiet=not is_main)
    if is_new := not finished_members(options.out, [planned]):
        check_inputs([planned], execution)  # these refuse before the imports, which take seconds
    workspace = Workspace(options.out, loaded)
    if is_new:
        parent_record(workspace, planned)
    elif os.environ.get("WORLD_SIZE", "1") == "1":  # several ranks agree on it in `train_member`
        workspace.discard(planned.id)
        _print_end(workspace.catalogue.member_record(planned.id), options, console)
        return

    from transformers.utils.logging import disable_progress_bar

    from training.member.train import train_member
    from training.population.progress import Progress

    disable_progress_bar()
    prepare_process(execution)
    with exit_on_signals(console), Progress([planned], done=set(), console=console) as progress:
        report = partial(progress.report, planned.id)
        record = train_member(workspace, planned, execution=execution, report=report, patience=_PATIENCE)
    _print_end(record, options, console)
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()  # else torch warns at exit


def _print_end(record: "MemberRecord", options: TrainingOptions, console: Console) -> None:
    from training.member.record import describe_divergence

    text = f"{record.id} is done in {options.out}."
    if record.status == "diverged":
        text = f"{record.id} diverged: {describe_divergence(record)}"
    console.print(printable(text), markup=False, soft_wrap=True)
