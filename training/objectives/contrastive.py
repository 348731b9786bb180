"""Compute the contrastive loss: InfoNCE over the views of the global batch."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from training.ranks import Ranks
from training.recipes.training import Training


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


def global_views(
    outputs: Float[Tensor, "views dim"], training: Training, ranks: Ranks
) -> Float[Tensor, "all_views dim"]:
    """Gather the embeddings of the global batch, with gradients: all first views, then all second ones."""
    gathered = ranks.gather_with_gradient(outputs)
    if ranks.count == 1 or training.views == 1:
        return gathered
    return gathered.unflatten(0, (ranks.count, training.views, -1)).transpose(0, 1).flatten(0, 2)


def least_rows(training: Training) -> int:
    """Return the smallest batch of the objective; other batches are multiples of it."""
    return 1 if training.objective == "supervised" else 2 if training.views == 2 else 4
