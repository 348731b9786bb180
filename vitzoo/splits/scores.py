"""Scores of predictions about members, fold by fold, with intervals by bootstrap over families.

Members of one family resemble each other, so they are no independent observations: resampling single members gives
intervals that are far too narrow. Whole families are resampled instead. Folds come from `vitzoo.splits.plan`; numpy
only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, nan
from typing import Any

import numpy as np
from jaxtyping import Float

from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.splits.folds import Fold

Statistic = Callable[..., float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A statistic and how far it may be off.

    Args:
        estimate: The statistic of the whole sample.
        low: Lower end of the interval; nan where there are fewer than two groups: nothing is known then.
        high: Upper end, likewise.
        groups: Groups that were resampled.
        resamples: How often.
        undefined: Resamples that the statistic was not defined for, which the interval leaves out: where they are many,
            do not trust it.
    """

    estimate: float
    low: float
    high: float
    groups: int
    resamples: int
    undefined: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """How good the predictions for a part are.

    Args:
        fold: The fold's name; ``pooled`` for the members of all folds.
        members: Members scored.
        groups: Families that they are of.
        score: The statistic.
        low: Lower end of its interval; nan for one family.
        high: Upper end, likewise.
        undefined: Resamples that it was not defined for.
    """

    fold: str
    members: int
    groups: int
    score: float
    low: float
    high: float
    undefined: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """A statistic by fold, and over all folds together.

    Args:
        folds: Of each fold, in their order.
        pooled: Of all out-of-fold predictions together. For a statistic such as R^2, which compares with the mean, it
            is not the mean of the folds'.
    """

    folds: tuple[Score, ...]
    pooled: Score

    def rows(self) -> list[dict[str, Any]]:
        """A dict each, ``pooled`` last: what a data frame is made of."""
        return [asdict(score) for score in (*self.folds, self.pooled)]


def bootstrap_by_group(
    statistic: Statistic,
    *arrays: np.ndarray,
    groups: Sequence[Any] | np.ndarray,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A percentile interval by resampling whole groups with replacement.

    It says how the statistic varies with the families that were tested, not with those that were trained on. Of few
    families (below 20 or so) percentile intervals are too narrow still.

    Args:
        statistic: A number from the arrays; nan where it is not defined.
        *arrays: Equally long, an observation each along the first axis.
        groups: Each observation's group.
        resamples: From 1.
        level: Share of intervals that are to hold the truth, above 0 and below 1.
        seed: Of the resamples.

    Raises:
        SelectionError: Lengths differ, there is no observation, or ``resamples`` or ``level`` are out of range.

    Source: Davison and Hinkley 1997, Bootstrap Methods and Their Application, section 3.8 (resampling of clusters) and
        equation 5.18 (percentile limits).

    Example:
        >>> bootstrap_by_group(np.mean, np.array([1.0, 2.0, 3.0]), groups=["a", "a", "b"], resamples=100).estimate
        2.0
    """
    data = [np.asarray(array) for array in arrays]
    lengths = {len(array) for array in [*data, groups]}
    if not data or len(lengths) != 1 or lengths == {0}:
        raise SelectionError(
            f"Arrays and groups have lengths {[len(array) for array in [*data, groups]]}; expected equal ones, from 1.",
            value=sorted(lengths),
        )
    if resamples < 1 or not 0 < level < 1:
        raise SelectionError(
            f"resamples is {resamples} and level {level}; expected 1 or more, and above 0 and below 1.",
            value=resamples if resamples < 1 else level,
        )
    numbers: dict[Any, list[int]] = {}
    for i, group in enumerate(groups):
        numbers.setdefault(group, []).append(i)
    members = [np.array(found) for found in numbers.values()]
    estimate = float(statistic(*data))
    if len(members) < 2:
        return Interval(estimate=estimate, low=nan, high=nan, groups=len(members), resamples=0, undefined=0)
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for i in range(resamples):
        chosen = np.concatenate([members[j] for j in generator.integers(len(members), size=len(members))])
        drawn[i] = statistic(*(array[chosen] for array in data))
    defined = drawn[~np.isnan(drawn)]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if len(defined) else (nan, nan)
    return Interval(
        estimate=estimate,
        low=float(low),
        high=float(high),
        groups=len(members),
        resamples=resamples,
        undefined=resamples - len(defined),
    )


def score_folds(
    statistic: Statistic,
    folds: Sequence[Fold],
    *,
    truth: Mapping[str, float],
    predicted: Mapping[str, Mapping[str, float]],
    part: str = "test",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Score predictions on a part of each fold, and on all folds together.

    Args:
        statistic: A number from true and predicted values, such as `r2`.
        folds: The folds of one scheme.
        truth: The value of each member that is to be scored; a member that is not here (a parent, where children are
            asked about) is left out.
        predicted: By fold, the predicted value of each of its members that is to be scored; of others nothing is read.
        part: The part that is scored.
        resamples: As `bootstrap_by_group`.
        level: Likewise.
        seed: Likewise.

    Raises:
        SelectionError: A prediction is missing, a value is not finite, or a part has no member to score.

    Example:
        >>> folds = zoo.splits("by_parent")  # doctest: +SKIP
        >>> score_folds(r2, folds, truth=accuracies, predicted={"0": ..., ...}).pooled  # doctest: +SKIP
        Score(fold='pooled', members=128, groups=12, score=0.61, low=0.43, high=0.7, undefined=0)
    """

    def score(name: str, scored: list[tuple[str, str, float, float]]) -> Score:
        found = bootstrap_by_group(
            statistic,
            np.array([true for _, _, true, _ in scored]),
            np.array([guess for _, _, _, guess in scored]),
            groups=[family for _, family, _, _ in scored],
            resamples=resamples,
            level=level,
            seed=seed,
        )
        return Score(
            fold=name,
            members=len(scored),
            groups=found.groups,
            score=found.estimate,
            low=found.low,
            high=found.high,
            undefined=found.undefined,
        )

    by_fold = {fold.name: _scored(fold, part, truth=truth, predicted=predicted) for fold in folds}
    if not by_fold:
        raise SelectionError("There are no folds to score; expected one or more.", value=None)
    return Scores(
        folds=tuple(score(name, scored) for name, scored in by_fold.items()),
        pooled=score("pooled", [one for scored in by_fold.values() for one in scored]),
    )


def _scored(
    fold: Fold, part: str, *, truth: Mapping[str, float], predicted: Mapping[str, Mapping[str, float]]
) -> list[tuple[str, str, float, float]]:
    """Member, family, true and predicted value of each member that is scored."""
    if fold.name not in predicted:
        raise SelectionError(
            f'There are no predictions of fold "{fold.name}".{did_you_mean(fold.name, predicted)}', value=fold.name
        )
    guesses = predicted[fold.name]
    scored = []
    for member in fold.ids(part):
        if member not in truth:
            continue
        if member not in guesses:
            raise SelectionError(
                f'Fold "{fold.name}" has no prediction of {member}, which is in {part}. Predict it, or take it out of '
                "truth.",
                value=member,
            )
        values = (truth[member], guesses[member])
        if any(value is None or not isfinite(value) for value in values):
            raise SelectionError(
                f'{member} has true value {values[0]} and in fold "{fold.name}" predicted {values[1]}; expected finite '
                "numbers. Predict it, or take it out of truth.",
                value=member,
            )
        scored.append((member, fold.families[member], float(values[0]), float(values[1])))
    if not scored:
        raise SelectionError(
            f'Fold "{fold.name}" has no member in {part} that truth has. Give some, or leave the fold out.',
            value=fold.name,
        )
    return scored


def r2(true: Float[np.ndarray, " members"], predicted: Float[np.ndarray, " members"]) -> float:
    """Coefficient of determination: 1 - sum (true - predicted)^2 / sum (true - mean of true)^2.

    Range: up to 1, larger is better; 0 for always the mean of the true values, below that where it is worse.

    Returns:
        nan where all true values are equal.
    """
    total = float(((true - true.mean()) ** 2).sum())
    return nan if total == 0 else 1 - float(((true - predicted) ** 2).sum()) / total


def mean_absolute_error(true: Float[np.ndarray, " members"], predicted: Float[np.ndarray, " members"]) -> float:
    """Mean of abs(true - predicted), in the unit of the values: 0 and up, smaller is better."""
    return float(np.abs(true - predicted).mean())


def kendall_tau(true: Float[np.ndarray, " members"], predicted: Float[np.ndarray, " members"]) -> float:
    """Kendall's tau-b, agreement of two rankings: (C - D) / sqrt((pairs - ties of true) (pairs - ties of predicted)).

    C and D count the pairs in the same and in the opposite order. Range: -1 to 1, larger is better. It takes memory of
    the square of the members: for many thousands give `scipy.stats.kendalltau` as statistic.

    Returns:
        nan where all values of one side are equal.

    Source: Kendall 1945, The treatment of ties in ranking problems.
    """
    signs, guessed = (np.sign(values[:, None] - values[None, :]) for values in (true, predicted))
    scale = float(np.sqrt((signs**2).sum() * (guessed**2).sum()))
    return nan if scale == 0 else float((signs * guessed).sum()) / scale
