"""Measures of how well predicted values agree with true ones. `vitzoo.splits.scores` takes them by fold; numpy only."""

from collections.abc import Sequence
from math import nan

import numpy as np
from jaxtyping import Real

Numbers = Real[np.ndarray, " members"] | Sequence[float]


def r2(true: Numbers, predicted: Numbers) -> float:
    """Coefficient of determination: 1 - sum (true - predicted)^2 / sum (true - mean of true)^2.

    Range: up to 1, larger is better; 0 for always the mean of the true values, below that where it is worse.

    Returns:
        nan where all true values are equal.
    """
    true, predicted = _as_floats(true, predicted)
    total = float(((true - true.mean()) ** 2).sum()) if len(true) else 0.0
    if total == 0 or (true == true[0]).all():  # of equal values rounding may leave a little
        return nan
    return 1 - float(((true - predicted) ** 2).sum()) / total


def mean_absolute_error(true: Numbers, predicted: Numbers) -> float:
    """Mean of abs(true - predicted), in the unit of the values: 0 and up, smaller is better."""
    true, predicted = _as_floats(true, predicted)
    return float(np.abs(true - predicted).mean())


def kendall_tau(true: Numbers, predicted: Numbers) -> float:
    """Kendall's tau-b, agreement of two rankings: (C - D) / sqrt((pairs - ties of true) (pairs - ties of predicted)).

    C and D count the pairs in the same and in the opposite order. Range: -1 to 1, larger is better. It takes memory of
    the square of the members: for many thousands give `scipy.stats.kendalltau` as statistic.

    Returns:
        nan where all values of one side are equal, or one is nan.

    Source: Kendall 1945, The treatment of ties in ranking problems.
    """
    true, predicted = _as_floats(true, predicted)
    larger, above, below = true[:, None] > true, predicted[:, None] > predicted, predicted[:, None] < predicted
    pairs, guessed = (int(np.count_nonzero(which)) for which in (larger, above))  # of a tie neither is larger
    if pairs == 0 or guessed == 0 or np.isnan(true).any() or np.isnan(predicted).any():
        return nan
    return int(np.count_nonzero(larger & above) - np.count_nonzero(larger & below)) / (pairs * guessed) ** 0.5


def _as_floats(*values: Numbers) -> list[np.ndarray]:
    return [np.asarray(one, np.float64) for one in values]
