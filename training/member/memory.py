"""What to say when a batch does not fit into a GPU's memory: how much of it would."""

from collections.abc import Callable

import torch
from torch import nn

from training.images.loader import Batch
from training.member.step import training_loss
from training.recipes.training import Training


def what_fits(attempt: Callable[[int], None], rows: int) -> int:
    """The largest half, quarter, ... of a batch that does not run out of memory; 0 where not even one row does.

    Args:
        attempt: Tries so many rows; raises `torch.OutOfMemoryError` where they do not fit.
        rows: The number that did not fit.
    """
    while rows > 1:
        rows //= 2
        torch.cuda.empty_cache()
        try:
            attempt(rows)
        except torch.OutOfMemoryError:
            continue
        return rows
    return 0


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


def explain(member: object, training: Training, *, ranks: int, accumulation: int, fits: int) -> str:
    """What to say to whom ran out of memory.

    Args:
        member: Whose training it was.
        training: With the global batch.
        ranks: Processes that share the batch.
        accumulation: Parts that each rank's share was cut into.
        fits: Images of a part that do fit, from `what_fits`.
    """
    rows = training.batch_size // ranks // accumulation
    free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
    said = (
        f"{member}: {rows} images at a time (batch size {training.batch_size}, {ranks} ranks, {accumulation} parts) do "
        f"not fit into the GPU's memory, of which {free / 2**30:.1f} of {total / 2**30:.1f} GiB are free"
    )
    if not fits:
        return f"{said}; not even 2 do. End what else is on the card, or take a larger one."
    if training.objective == "contrastive":
        return (
            f"{said}; {fits} would. InfoNCE needs the whole batch at once: share it between "
            f"{-(-training.batch_size // fits)} GPUs (accelerate launch --num_processes)."
        )
    return f"{said}; {fits} would: --accumulation {-(-training.batch_size // ranks // fits)}."
