"""Compute the training loss of a batch by the objective of its recipe.

See `contrastive.py` for InfoNCE, `training.images.mixing` for soft targets, and `vitzoo.models.evaluation` for the
metrics of a trained member.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from training.images.loader import Batch
from training.objectives.contrastive import global_views, info_nce
from training.ranks import Ranks
from training.recipes.training import Training


def training_loss(model: nn.Module, batch: Batch, training: Training, *, ranks: Ranks | None = None) -> Tensor:
    """Return the objective on a batch: a scalar in float32, with a gradient.

    Only the forward pass runs in the recipe's precision. A supervised loss is the mean over this rank's rows. A
    contrastive one is the mean over the global batch, since every image is a negative of every other.

    Args:
        model: Model to train.
        batch: This rank's rows of the global batch.
        training: Objective and precision.
        ranks: Processes that have the other rows.
    """
    pixels = batch.pixel_values
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=training.precision == "bf16"):
        outputs = model(pixel_values=pixels).logits
    if batch.targets is not None:
        return soft_cross_entropy(outputs, batch.targets)
    return info_nce(global_views(outputs.float(), training, ranks or Ranks()), temperature=training.temperature or 0.0)


def soft_cross_entropy(logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]) -> Tensor:
    """Return the mean cross-entropy against soft targets, whose rows sum to 1: a scalar in float32.

    1 / batch * sum_i sum_c -targets_ic log softmax(logits_i)_c, in [0, inf). Smaller is better; the minimum is the
    entropy of the targets.

    Source:
        timm's `SoftTargetCrossEntropy`.
    """
    return functional.cross_entropy(logits.float(), targets)
