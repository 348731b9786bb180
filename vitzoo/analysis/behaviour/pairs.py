"""Compare the answers of members, pair by pair.

Rows are members and columns are samples. Each function returns a symmetric ``[members, members]`` matrix of float64.
Agreement and kappa grow with the accuracy of both members, also if the members share nothing else. Show
`error_consistency` or `capa` beside them. A measure is NaN where it is undefined, as where both members are always
right.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float64, Integer

_BLOCK = 2**24  # probabilities at once


def agreement(predictions: Integer[np.ndarray, "members samples"]) -> Float64[np.ndarray, "members members"]:
    """Compute the share of samples with the same prediction, 0 to 1; larger is more alike."""
    count, samples = predictions.shape
    values = np.ones((count, count))
    for i in range(count - 1):
        equal = np.count_nonzero(predictions[i + 1 :] == predictions[i], axis=1) / samples
        values[i, i + 1 :] = values[i + 1 :, i] = equal
    return values


def kappa(
    predictions: Integer[np.ndarray, "members samples"], *, classes: int
) -> Float64[np.ndarray, "members members"]:
    """Compute Cohen's kappa of predictions: agreement above chance, up to 1; larger is more alike.

    Args:
        predictions: Classes from 0 to below ``classes``.
        classes: Number of classes.

    Source: Cohen 1960, A Coefficient of Agreement for Nominal Scales.
    """
    shares = np.stack([np.bincount(row, minlength=classes) for row in predictions]) / predictions.shape[1]
    return _above_chance(agreement(predictions), shares @ shares.T)


def error_consistency(correct: Bool[np.ndarray, "members samples"]) -> Float64[np.ndarray, "members members"]:
    """Compute Cohen's kappa of right and wrong answers, -1 to 1; larger means that the errors are on the same samples.

    Source: Geirhos, Meding and Wichmann 2020, Beyond Accuracy: Quantifying Trial-by-Trial Behaviour of CNNs and Humans
        by Measuring Error Consistency, section 2.
    """
    accuracy = correct.mean(axis=1)
    expected = np.outer(accuracy, accuracy) + np.outer(1 - accuracy, 1 - accuracy)
    return _above_chance(agreement(correct.astype(np.uint8)), expected)


def capa(
    logits: Float[np.ndarray, "members samples classes"], labels: Integer[np.ndarray, " samples"]
) -> Float64[np.ndarray, "members members"]:
    """Compute the chance-adjusted probabilistic agreement, up to 1; larger is more alike.

    It accounts for the accuracy of both members, and for which wrong class they predict. A member's value with itself
    is below 1 unless it is certain of each class.

    Args:
        logits: Outputs before the softmax.
        labels: True classes.

    Source: Goel et al. 2025, Great Models Think Alike and this Undermines AI Oversight, section 2.
    """
    classes = logits.shape[2]
    observed = _mean_products(logits, lambda probabilities: probabilities)
    right = np.concatenate([block[:, np.arange(len(truth)), truth] for block, truth in _blocks(logits, labels)], axis=1)
    accuracy = right.mean(axis=1, dtype=np.float64)  # the mean probability of the true class
    expected = np.outer(accuracy, accuracy) + np.outer(1 - accuracy, 1 - accuracy) / (classes - 1)
    return _above_chance(observed, expected)


def hellinger(logits: Float[np.ndarray, "members samples classes"]) -> Float64[np.ndarray, "members members"]:
    """Compute the mean squared Hellinger distance of the predicted probabilities, 0 to 1; larger is less alike."""
    products = _mean_products(logits, np.sqrt)
    own = products.diagonal()  # 1 but for rounding, which cancels: equal members have 0
    values = np.clip((own[:, None] + own) / 2 - products, 0, None)
    np.fill_diagonal(values, 0.0)
    return values


def krippendorff(predictions: Integer[np.ndarray, "members samples"], *, classes: int) -> float:
    """Compute Krippendorff's alpha of all members together: agreement above chance, up to 1; NaN for one class alone.

    Args:
        predictions: Classes from 0 to below ``classes``, of two or more members.
        classes: Number of classes.

    Source: Krippendorff 2004, Content Analysis, chapter 11, for nominal values without gaps.
    """
    count, samples = predictions.shape
    by_sample = np.zeros((samples, classes))
    for row in predictions:
        by_sample[np.arange(samples), row] += 1
    total = count * samples
    unlike = (count**2 - (by_sample**2).sum(axis=1)).sum() / ((count - 1) * total)
    by_chance = (total**2 - (by_sample.sum(axis=0) ** 2).sum()) / (total * (total - 1))
    return float(1 - unlike / by_chance) if by_chance else float("nan")


def softmax(logits: Float[np.ndarray, "*shape classes"]) -> Float[np.ndarray, "*shape classes"]:
    """Compute probabilities over the last axis, in the logits' precision."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def _above_chance(
    observed: Float64[np.ndarray, "members members"], expected: Float64[np.ndarray, "members members"]
) -> Float64[np.ndarray, "members members"]:
    """Return (observed - expected) / (1 - expected), NaN where chance alone explains all."""
    room = np.where(expected < 1, 1 - expected, np.nan)
    return (observed - expected) / room


def _blocks(logits: np.ndarray, labels: np.ndarray):
    """Yield the probabilities of some samples, with their labels."""
    step = max(1, _BLOCK // (logits.shape[0] * logits.shape[2]))
    for start in range(0, logits.shape[1], step):
        yield softmax(logits[:, start : start + step]), labels[start : start + step]


def _mean_products(
    logits: Float[np.ndarray, "members samples classes"], change: Callable[[np.ndarray], np.ndarray]
) -> Float64[np.ndarray, "members members"]:
    """Return the mean over samples of the products of two members' probabilities, summed over classes."""
    sums = np.zeros((len(logits), len(logits)))
    for probabilities, _ in _blocks(logits, np.empty(logits.shape[1])):
        flat = change(probabilities).reshape(len(logits), -1)
        sums += flat @ flat.T
    return sums / logits.shape[1]
