"""Compute the training loss of a batch by the objective of its recipe: cross-entropy, InfoNCE, or masked tokens.

See `training.images.autoencoder` for masked patches, `training.images.distillation` for a teacher's targets,
`training.images.mixing` for soft targets, and `vitzoo.models.evaluation` for the metrics of a trained member.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from training.batch import Batch
from training.images.autoencoder import masked_patches_loss
from training.images.distillation import distillation_loss
from training.ranks import Ranks
from training.recipes.training import Training


def training_loss(model: nn.Module, batch: Batch, training: Training, *, ranks: Ranks | None = None) -> Tensor:
    """Return the objective on a batch: a scalar in float32, with a gradient.

    Only the forward pass runs in the recipe's precision. A supervised loss is the mean over this rank's rows of
    sum_c -targets_c log softmax(logits)_c, in [0, inf): smaller is better, and the minimum is the entropy of the
    targets. Losses of masked tokens and patches and of distillation are of this rank's rows, too. A contrastive one is
    the mean over the global batch, since every image is a negative of every other.

    Args:
        model: Model to train, or the `training.pretext.Pretext` around it.
        batch: This rank's rows of the global batch.
        training: Objective and precision.
        ranks: Processes that have the other rows.

    Source:
        timm's `SoftTargetCrossEntropy`; `info_nce`.
    """
    inputs = batch.inputs if batch.positions is None else {**batch.inputs, "positions": batch.positions}
    device = next(iter(batch.inputs.values())).device
    with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16"):
        output = model(**inputs)
    if training.objective == "distillation":
        return distillation_loss(output)
    outputs = output.logits
    if training.objective == "autoencoding":
        return masked_patches_loss(outputs, **batch.inputs)
    if batch.positions is not None and batch.targets is not None:
        return masked_cross_entropy(outputs, batch.targets, masks_per_row=batch.masks_per_row)
    if batch.targets is not None:
        return functional.cross_entropy(outputs.float(), batch.targets)
    ranks = ranks or Ranks()
    embeddings = ranks.gather_with_gradient(outputs.float())
    if ranks.count > 1 and training.views > 1:  # all first views, then all second ones
        embeddings = embeddings.unflatten(0, (ranks.count, training.views, -1)).transpose(0, 1).flatten(0, 2)
    return info_nce(embeddings, temperature=training.temperature or 0.0)


def masked_cross_entropy(
    logits: Float[Tensor, "rows masks tokens"], targets: Int64[Tensor, "rows masks"], *, masks_per_row: float
) -> Tensor:
    """Return the cross-entropy of masked tokens in nats: a scalar in float32, in [0, inf). Smaller is better.

    Args:
        logits: Scores of every token at each masked place.
        targets: True tokens; -100 where a row has fewer places.
        masks_per_row: Mean number of masked tokens in a row of the global batch. The sum over these rows is divided by
            it and by the rows, so that equal parts of a batch average to the mean over its masked tokens.

    Source: Devlin et al. 2019, section 3.1.
    """
    total = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
    return total / (masks_per_row * len(targets))


def info_nce(embeddings: Float[Tensor, "views dim"], *, temperature: float) -> Tensor:
    """Return SimCLR's normalised, temperature-scaled cross-entropy over 2N views, view i paired with view i + N.

    1 / 2N * sum_i -log(exp(s_i,p(i) / t) / sum_{k != i} exp(s_ik / t)), p(i) the pair of i, s the cosine similarity;
    in [0, inf). Smaller is better; log(2N - 1) is chance.

    Args:
        embeddings: First views of at least 2 images, then their second views in the same order.
        temperature: Temperature t, above 0.

    Returns:
        The loss, a scalar, in float32.

    Source:
        Chen et al., "A simple framework for contrastive learning of visual representations", 2020, equation 1.
    """
    views = len(embeddings)
    if views < 4 or views % 2:
        raise ValueError(
            f"{views} views; expected an even number from 4 on, two views of each image. One pair has no "
            "negatives: give a batch of at least 2 images"
        )
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; expected a number above 0, such as 0.07")
    units = functional.normalize(embeddings.float(), dim=1)
    similarities = (units @ units.T / temperature).fill_diagonal_(-math.inf)
    return functional.cross_entropy(similarities, torch.arange(views, device=units.device).roll(views // 2))


def least_rows(training: Training) -> int:
    """Return the smallest batch of the objective; other batches are multiples of it."""
    return 1 if training.objective != "contrastive" else 2 if training.views == 2 else 4
