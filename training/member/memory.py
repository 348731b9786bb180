"""What to say when a batch does not fit into a GPU's memory: how much of it would, and the option that makes it so."""

from collections.abc import Callable

import torch
from torch import nn

from training.images.loader import Batch
from training.member.step import training_loss
from training.recipes.training import Training


def what_fits(attempt: Callable[[int], None], rows: int, *, least: int = 1) -> int | None:
    """How many equal parts of a batch fit into memory, one at a time.

    Args:
        attempt: Tries so many rows; raises `torch.OutOfMemoryError` where they do not fit.
        rows: The batch, which did not fit as a whole.
        least: Rows that the objective needs at least.

    Returns:
        The smallest number of parts that divides the batch and fits; None where there is none.
    """
    for parts in range(2, rows // least + 1):
        if rows % parts or rows // parts % least:
            continue
        torch.cuda.empty_cache()
        try:
            with torch.compiler.set_stance("force_eager"):  # a compilation for each size would take minutes
                attempt(rows // parts)
        except torch.OutOfMemoryError:
            continue
        return parts
    return None


def least_rows(training: Training) -> int:
    """Images that the objective takes at least, and in multiples of which it takes them."""
    return 1 if training.objective == "supervised" else 2 if training.views == 2 else 4


def try_rows(model: nn.Module, training: Training, *, image_size: int, classes: int) -> Callable[[int], None]:
    """A forward and backward pass over so many blank images, as `what_fits` takes it; gradients are dropped."""
    device = next(model.parameters()).device

    def attempt(rows: int) -> None:
        pixels = torch.zeros((rows * training.views, 3, image_size, image_size), device=device)
        targets = torch.full((rows, classes), 1 / classes, device=device)
        batch = Batch(pixel_values=pixels, targets=targets if training.objective == "supervised" else None)
        try:
            training_loss(model, batch, training).backward()
        finally:
            model.zero_grad()

    return attempt


def explain(member: object, training: Training, *, ranks: int, accumulation: int, parts: int | None) -> str:
    """What to say to whom ran out of memory.

    Args:
        member: Whose training it was.
        training: With the global batch.
        ranks: Processes that share the batch.
        accumulation: Parts that each rank's share was cut into.
        parts: Into how many each of these has to be cut to fit, from `what_fits`.
    """
    rows = training.batch_size // ranks // accumulation
    free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
    said = (
        f"{member}: {rows} images at a time (batch size {training.batch_size}, {ranks} ranks, {accumulation} parts) do "
        f"not fit into the GPU's memory, of which {free / 2**30:.1f} of {total / 2**30:.1f} GiB are free"
    )
    if parts is None:
        return f"{said}; not even {least_rows(training)} would. End what else is on the card, or take a larger one."
    if training.objective == "contrastive":
        return (
            f"{said}; {rows // parts} would. InfoNCE needs the whole batch at once: share it between {ranks * parts} "
            f"GPUs (accelerate launch --num_processes {ranks * parts})."
        )
    return f"{said}; {rows // parts} would: --accumulation {accumulation * parts}."
