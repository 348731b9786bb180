"""Measure a card's matrix-product rate, and describe a batch that does not fit into its memory."""

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch

from training.images.loader import Batch
from training.objectives import training_loss
from training.objectives.contrastive import least_rows
from training.recipes.plan import PlannedMember
from vitzoo.models.vit import VitZooModel

_SIDE, _REPEATS = 8192, 10


@cache
def matrix_product_rate(precision: Literal["fp32", "bf16"]) -> float | None:
    """Measure the operations a second of a square matrix product on the current GPU, once a process.

    It waits for the device and takes .4 GB in bf16, so call it before a training and not during one.

    Args:
        precision: Precision of the factors.

    Returns:
        The rate of the fastest of ten products of side 8192; None where their memory is not free.
    """
    try:
        return _measure(torch.bfloat16 if precision == "bf16" else torch.float32)
    except torch.OutOfMemoryError:
        return None
    finally:
        torch.cuda.empty_cache()


def _measure(dtype: torch.dtype) -> float:
    left, right = (torch.randn(_SIDE, _SIDE, device="cuda", dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    milliseconds = []
    for _ in range(_REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.mm(left, right, out=product)
        end.record()
        end.synchronize()
        milliseconds.append(begin.elapsed_time(end))
    return 2 * _SIDE**3 / (min(milliseconds) / 1000)


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


def describe_out_of_memory(planned: PlannedMember, model: VitZooModel, *, ranks: int, accumulation: int) -> str:
    """Describe a batch that does not fit into a GPU's memory, and the option that makes it fit.

    Args:
        planned: Member of the training.
        model: Model on the GPU, with which smaller batches are tried.
        ranks: Processes that share the batch.
        accumulation: Parts of each rank's batch.
    """
    training = planned.training
    rows, least = training.batch_size // ranks // accumulation, least_rows(training)
    parts = count_fitting_parts(_forward_backward(model, planned), rows, least=least)
    free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
    problem = (
        f"{planned.id}: {rows} images at a time (batch size {training.batch_size}, {ranks} ranks, {accumulation} "
        f"parts) do not fit into the GPU's memory, of which {free / 2**30:.1f} of {total / 2**30:.1f} GiB are free"
    )
    if parts is None:
        return f"{problem}; {least} do not fit either. Stop other processes on the card, or use a larger card."
    if training.objective == "contrastive":
        return (
            f"{problem}; {rows // parts} fit. InfoNCE needs the whole batch at once: share it between {ranks * parts} "
            f"GPUs (accelerate launch --num_processes {ranks * parts})."
        )
    return f"{problem}; {rows // parts} fit: --accumulation {accumulation * parts}."


def _forward_backward(model: VitZooModel, planned: PlannedMember) -> Callable[[int], None]:
    """Return a function that takes a forward and backward pass over some blank images, and drops the gradients."""
    training, side, classes = planned.training, planned.architecture.image_size, planned.head.outputs

    def attempt(rows: int) -> None:
        pixels = torch.zeros((rows * training.views, 3, side, side), device=model.device)
        targets = torch.full((rows, classes), 1 / classes, device=model.device)
        batch = Batch(pixel_values=pixels, targets=targets if training.objective == "supervised" else None)
        try:
            training_loss(model, batch, training).backward()
        finally:
            model.zero_grad()

    return attempt
