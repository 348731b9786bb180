"""Compute the supervised loss: cross-entropy against soft targets. See `training.images.mixing` for the targets."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def soft_cross_entropy(logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]) -> Tensor:
    """Return the cross-entropy against soft targets, averaged over the batch.

    1 / batch * sum_i sum_c -targets_ic log softmax(logits_i)_c, in [0, inf). Smaller is better; the minimum is the
    entropy of the targets.

    Args:
        logits: One row an image.
        targets: Probabilities; each row sums to 1.

    Returns:
        The loss, a scalar, in float32.

    Source:
        timm's `SoftTargetCrossEntropy`.
    """
    return functional.cross_entropy(logits.float(), targets)
