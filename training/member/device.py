"""Measure a device's matrix-product rate, and describe a batch that does not fit into a GPU's memory."""

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import nn

from training.batch import Inputs
from training.objectives import least_rows, training_loss
from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError


@cache
def matrix_product_rate(device: Literal["cuda", "cpu"], precision: Literal["fp32", "bf16"]) -> float | None:
    """Measure the operations a second of square matrix products, once a process.

    It waits for the device and takes .4 GB of a GPU in bf16, so call it before a training and not during one.

    Args:
        device: Kind of device; the products have side 8192 on a GPU and 1024 on a CPU.
        precision: Precision of the factors.

    Returns:
        The rate of the fastest of ten products; None if the GPU's memory is full.
    """
    from torch.utils.benchmark import Timer

    side = 8192 if device == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        values = {"torch": torch, "left": left, "right": right, "product": torch.empty_like(left)}
        timer = Timer("torch.mm(left, right, out=product)", globals=values, num_threads=torch.get_num_threads())
        return 2 * side**3 / min(timer.timeit(3).mean for _ in range(10))
    except torch.OutOfMemoryError:
        return None
    finally:
        torch.cuda.empty_cache()


def count_fitting_parts(attempt: Callable[[int], None], rows: int, *, least: int = 1) -> int | None:
    """Return the smallest number of equal parts of a batch that fit into memory, one at a time.

    Args:
        attempt: Function of a number of rows that raises `torch.OutOfMemoryError` where they do not fit.
        rows: Rows of the batch, which did not fit as a whole.
        least: Smallest number of rows for the objective.

    Returns:
        The number of parts, which divides the batch; None where no part fits.
    """
    for parts in range(2, rows // least + 1):
        if rows % parts or rows // parts % least:
            continue
        torch.cuda.empty_cache()
        try:
            with torch.compiler.set_stance("force_eager"):  # compiling each size would take minutes
                attempt(rows // parts)
        except torch.OutOfMemoryError:
            continue
        return parts
    return None


def out_of_memory_error(
    planned: PlannedMember,
    model: nn.Module,
    inputs: Inputs,
    *,
    device: torch.device,
    ranks: int,
    accumulation: int,
    members_per_gpu: int = 1,
) -> TrainingError:
    """Return the error of a batch that does not fit into a GPU's memory, with the option that makes it fit.

    Args:
        planned: Member of the training.
        model: Model on the GPU, with which smaller batches are tried.
        inputs: Data of the member.
        device: The GPU.
        ranks: Processes that share the batch.
        accumulation: Parts of each rank's batch.
        members_per_gpu: Members that share the GPU.
    """
    training = planned.training

    def attempt(rows: int) -> None:
        try:
            training_loss(model, inputs.example(rows, device=device), training).backward()
        finally:
            model.zero_grad()

    rows, least = training.batch_size // ranks // accumulation, least_rows(training)
    parts = count_fitting_parts(attempt, rows, least=least)
    free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
    if parts is None:
        expected, fix = f"fewer; {least} do not fit either", make_room(members_per_gpu)
    elif training.objective in ("contrastive", "distillation"):
        expected = f"at most {rows // parts}, which fit"
        name = "InfoNCE" if training.objective == "contrastive" else "Distillation"
        fix = (
            f"{name} needs the whole batch at once: share it between {ranks * parts} GPUs (accelerate launch "
            f"--num_processes {ranks * parts})."
        )
    else:
        expected, fix = f"at most {rows // parts}, which fit", f"Add --accumulation {accumulation * parts}."
    if parts is not None and members_per_gpu > 1:
        fix = f"{make_room(members_per_gpu)} Or: {fix}"
    return TrainingError(
        f"{planned.id}: {rows} {training.dataset.unit} at a time (batch size {training.batch_size}, {ranks} ranks, "
        f"{accumulation} parts) do not fit into the GPU's memory, of which {free / 2**30:.1f} of "
        f"{total / 2**30:.1f} GiB are free",
        expected=expected,
        fix=fix,
    )


def make_room(members_per_gpu: int) -> str:
    """Return the fix of a full GPU, for a number of members that share it."""
    if members_per_gpu > 1:
        return f"{members_per_gpu} members share the GPU: train fewer at a time (--members-per-gpu)."
    return "Stop other processes on the card, or use a larger card."
