"""What a member is trained to make small. The figures of a trained one are `vitzoo.models.evaluation`'s."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def soft_cross_entropy(logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]) -> Tensor:
    """Cross-entropy against soft targets, averaged over the batch.

    1 / batch * sum_i sum_c -targets_ic log softmax(logits_i)_c, in [0, inf): smaller is better, and the least is the
    entropy of the targets.

    Args:
        logits: one row an image.
        targets: probabilities, each row summing to 1.

    Returns:
        The loss, a scalar, in float32.

    Source:
        timm's `SoftTargetCrossEntropy`.
    """
    return functional.cross_entropy(logits.float(), targets)


def info_nce(embeddings: Float[Tensor, "views dim"], *, temperature: float) -> Tensor:
    """SimCLR's normalised, temperature-scaled cross-entropy over 2N views, view i paired with view i + N.

    1 / 2N * sum_i -log(exp(s_i,p(i) / t) / sum_{k != i} exp(s_ik / t)), p(i) the pair of i, s the cosine similarity;
    in [0, inf), smaller is better, and log(2N - 1) is chance.

    Args:
        embeddings: first views of N images, then their second views in the same order.
        temperature: t, above 0.

    Returns:
        The loss, a scalar, in float32.

    Raises:
        ValueError: fewer than two pairs, an odd number of views, or a temperature that is not above 0.

    Source:
        Chen et al., "A simple framework for contrastive learning of visual representations", 2020, equation 1.
    """
    views = len(embeddings)
    if views < 4 or views % 2:
        raise ValueError(
            f"{views} views; expected an even number from 4 on, two views of each image: one pair alone has no "
            "negatives, so give a batch of at least 2 images"
        )
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; expected a number above 0, such as 0.07")
    units = functional.normalize(embeddings.float(), dim=1)
    similarities = (units @ units.T / temperature).fill_diagonal_(-math.inf)
    return functional.cross_entropy(similarities, torch.arange(views, device=units.device).roll(views // 2))
