"""What a member is trained to make small, and the accuracy of features that have no classes."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

_ROWS = 1024  # test features compared at once: bounds the memory of `knn_accuracy`


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


def knn_accuracy(
    train_features: Float[Tensor, "train dim"],
    train_labels: Int[Tensor, "train"],
    test_features: Float[Tensor, "test dim"],
    test_labels: Int[Tensor, "test"],
    *,
    neighbours: int,
) -> float:
    """Share of test features whose nearest training features, by cosine, vote for the right class.

    Every neighbour has one vote. Among the classes with most votes the one whose nearest neighbour is nearest wins.

    Args:
        train_features: one row an image.
        train_labels: class of each.
        test_features: one row an image.
        test_labels: class of each.
        neighbours: votes, from 1 to the number of training features.

    Returns:
        Accuracy in [0, 1]; larger is better.

    Raises:
        ValueError: a number of neighbours outside its range, or no test features.
    """
    if not 1 <= neighbours <= len(train_features):
        raise ValueError(f"neighbours is {neighbours}; expected 1 to {len(train_features)}, the training features")
    if len(test_features) == 0:
        raise ValueError("0 test features; expected at least 1: an accuracy over nothing is undefined")
    units = functional.normalize(train_features.float(), dim=1)
    order = torch.arange(neighbours, device=units.device)
    right = torch.zeros((), dtype=torch.int64, device=units.device)
    for features, labels in zip(test_features.split(_ROWS), test_labels.split(_ROWS), strict=True):
        nearest = (functional.normalize(features.float(), dim=1) @ units.T).topk(neighbours, dim=1).indices
        classes = train_labels[nearest]
        votes = (classes[:, :, None] == classes[:, None, :]).sum(2)  # for each neighbour, the votes of its class
        winner = (votes * neighbours - order).argmax(1, keepdim=True)
        right += (classes.gather(1, winner)[:, 0] == labels).sum()
    return right.item() / len(test_labels)
