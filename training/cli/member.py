"""``python -m training member``: one member, in this process."""

import os
from typing import Annotated

import typer
from rich.console import Console

from training.cli.ending import ends_in_order
from training.cli.options import (
    AccumulationOption,
    CompileOption,
    DataOption,
    DeterministicOption,
    KeepOption,
    LoaderWorkersOption,
    OutOption,
    RecipeArgument,
    TrackOption,
    execution_of,
    load_recipe,
)
from training.lease import BEAT, EXPIRY
from vitzoo.cli.display import escape

_PATIENCE = EXPIRY + 2 * BEAT  # seconds; a machine that died may have left it held


def member(
    recipe: RecipeArgument,
    member_id: Annotated[str, typer.Argument(metavar="MEMBER", help="A member of the recipe, such as pt-3/ft-1.")],
    *,
    out: OutOption,
    compile_mode: CompileOption = None,
    deterministic: DeterministicOption = False,
    accumulation: AccumulationOption = 1,
    loader_workers: LoaderWorkersOption = None,
    keep: KeepOption = "all",
    track: TrackOption = None,
    data: DataOption = None,
) -> None:
    """Train one member, whose parent must be done; for ``accelerate launch`` and job arrays."""
    from transformers.utils.logging import disable_progress_bar

    from training.member.execution import prepare_process
    from training.member.record import describe_divergence
    from training.member.report import MemberDisplay
    from training.member.train import train_member
    from training.recipes.plan import plan_member, plan_members
    from training.workspace import Workspace
    from vitzoo.ids import MemberId
    from vitzoo.images.known import check_data

    disable_progress_bar()
    execution = execution_of(
        compile_mode, deterministic=deterministic, accumulation=accumulation, loader_workers=loader_workers, keep=keep,
        track=track, data=data,
    )  # fmt: skip
    prepare_process(execution)
    chosen = load_recipe(recipe)
    planned = plan_member(chosen, MemberId.parse(member_id))
    check_data(execution.data, [one.training.dataset.name for one in plan_members(chosen)])
    workspace = Workspace(out, chosen)
    is_main = os.environ.get("RANK", "0") == "0"
    console = Console(stderr=True, quiet=not is_main)
    with ends_in_order(console), MemberDisplay(planned, console) as display:
        record = train_member(workspace, planned, execution=execution, report=display, patience=_PATIENCE)
    if record.status == "diverged":
        console.print(f"{planned.id} diverged: {describe_divergence(record)}", markup=False, soft_wrap=True)
    else:
        console.print(f"{planned.id} is done in {escape(str(out))}.", soft_wrap=True)
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()  # which would otherwise be complained about
