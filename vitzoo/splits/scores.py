"""Score predictions about members, fold by fold, with intervals by bootstrap over families.

Members of one family resemble each other, so they are not independent observations. Resampling single members gives
intervals that are far too narrow, so whole families are resampled. See `vitzoo.splits.plan` for folds. A statistic is
any function of true and predicted values, such as those of `sklearn.metrics`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite, nan
from typing import Any

import numpy as np

from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.ids import MemberRef
from vitzoo.splits.folds import Fold

Statistic = Callable[..., float]

# Of simulated 95 % intervals of a mean, .505 held the truth with 2 groups, .72 with 3, .82 with 5, .88 with 12.
FEWEST_GROUPS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A statistic and how far it may be off.

    Args:
        estimate: The statistic of the whole sample.
        low: Lower end of the interval; nan where there are fewer than five groups, of which it would say too much.
        high: Upper end, likewise.
        groups: Groups that were resampled.
        resamples: How often.
        undefined: Resamples for which the statistic was NaN or infinite, which the interval leaves out. If they are
            many, do not trust it.
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
        checkpoints: Checkpoints of them: one each, but where truth is by checkpoint.
        groups: Families that they are of.
        score: The statistic.
        low: Lower end of its interval; nan for fewer than five families.
        high: Upper end, likewise.
        undefined: Resamples for which the statistic was NaN or infinite.
    """

    fold: str
    members: int
    checkpoints: int
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
            is not the mean of the folds'. None where a member is scored in two folds, as in train: its predictions are
            no independent ones.
    """

    folds: tuple[Score, ...]
    pooled: Score | None

    def rows(self) -> list[dict[str, Any]]:
        """A dict each, ``pooled`` last if it is there: what a data frame is made of."""
        return [asdict(score) for score in (*self.folds, self.pooled) if score is not None]


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
    families percentile intervals are too narrow: of 95 % ones of a mean, .88 hold the truth with twelve families and
    .82 with five. With fewer than five (`FEWEST_GROUPS`; .72 with three, .505 with two) there is none.

    Args:
        statistic: Function from the arrays to a number; NaN or infinite where it is not defined.
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
        >>> bootstrap_by_group(np.mean, np.array([1.0, 2.0, 3.0]), groups=["a", "a", "b"]).estimate
        2.0
    """
    data = [np.asarray(array) for array in arrays]
    lengths = {len(array) for array in [*data, groups]}
    if not data or len(lengths) != 1 or lengths == {0}:
        raise SelectionError(
            f"Arrays and groups have lengths {[len(array) for array in [*data, groups]]}",
            expected="equal ones, from 1",
            value=sorted(lengths),
        )
    if resamples < 1 or not 0 < level < 1:
        raise SelectionError(
            f"resamples is {resamples} and level {level}",
            expected="1 or more, and above 0 and below 1",
            value=resamples if resamples < 1 else level,
        )
    numbers: dict[Any, list[int]] = {}
    for i, group in enumerate(groups):
        numbers.setdefault(group, []).append(i)
    members = [np.array(found) for found in numbers.values()]
    estimate = float(statistic(*data))
    if len(members) < FEWEST_GROUPS:
        return Interval(estimate=estimate, low=nan, high=nan, groups=len(members), resamples=0, undefined=0)
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for i in range(resamples):
        chosen = np.concatenate([members[j] for j in generator.integers(len(members), size=len(members))])
        drawn[i] = statistic(*(array[chosen] for array in data))
    defined = drawn[np.isfinite(drawn)]
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
        statistic: Function from true and predicted values to a number, such as `sklearn.metrics.mean_absolute_error`.
        folds: The folds of one scheme.
        truth: The value of each member that is to be scored, or of each checkpoint (``pt-0/ft-0@4``, or such a
            reference with its zoo); what is not here (a parent, where children are asked about) is left out.
        predicted: By fold, the predicted value of each that is to be scored, under the same member or checkpoint; of
            others nothing is read.
        part: The part that is scored.
        resamples: As `bootstrap_by_group`.
        level: Likewise.
        seed: Likewise.

    Raises:
        SelectionError: Folds are of two schemes or of one name; a prediction is missing, a value is not finite, truth
            is of a member that was not split, or a part has no member to score.
        MemberIdError: A key is no member or checkpoint.

    Example:
        >>> folds = zoo.splits("by_parent")  # doctest: +SKIP
        >>> score_folds(r2_score, folds, truth=accuracies, predicted={"0": ..., ...}).pooled  # doctest: +SKIP
        Score(fold='pooled', members=128, checkpoints=128, groups=12, score=0.61, low=0.43, high=0.7, undefined=0)
    """

    def score(name: str, scored: list[_Scored]) -> Score:
        found = bootstrap_by_group(
            statistic,
            np.array([one.true for one in scored]),
            np.array([one.predicted for one in scored]),
            groups=[one.family for one in scored],
            resamples=resamples,
            level=level,
            seed=seed,
        )
        return Score(
            fold=name,
            members=len({one.ref.member for one in scored}),
            checkpoints=len(scored),
            groups=found.groups,
            score=found.estimate,
            low=found.low,
            high=found.high,
            undefined=found.undefined,
        )

    _check_folds(folds)
    values = _by_checkpoint(truth, "truth")
    for fold in folds:
        fold.check_knows(str(ref.member) for ref in values)
    by_fold = {fold.name: _scored(fold, part, truth=values, predicted=predicted) for fold in folds}
    pooled = [one for scored in by_fold.values() for one in scored]
    once = len({one.ref for one in pooled}) == len(pooled)
    return Scores(
        folds=tuple(score(name, scored) for name, scored in by_fold.items()),
        pooled=score("pooled", pooled) if once else None,
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    """A member or checkpoint, its family, its true and its predicted value."""

    ref: MemberRef
    family: str
    true: float
    predicted: float


def _check_folds(folds: Sequence[Fold]) -> None:
    schemes, names = (list(dict.fromkeys(getattr(fold, what) for fold in folds)) for what in ("scheme", "name"))
    if not folds:
        raise SelectionError("There are no folds to score", expected="one or more")
    if len(schemes) > 1 or len(names) < len(folds):
        raise SelectionError(
            f"There are {len(folds)} folds of {', '.join(schemes)} with {len(names)} names",
            expected="different folds of one scheme. Score each scheme by itself",
            value=schemes,
        )


def _by_checkpoint(values: Mapping[str, float], what: str) -> dict[MemberRef, float]:
    """The values by reference, without the zoo, which folds do not know."""
    found = {replace(MemberRef.parse(str(key)), zoo=None): value for key, value in values.items()}
    if len(found) < len(values):
        raise SelectionError(
            f"{what} names a member or checkpoint twice: {len(values)} keys are {len(found)} of them",
            fix="Name each once.",
            value=what,
        )
    return found


def _scored(
    fold: Fold, part: str, *, truth: Mapping[MemberRef, float], predicted: Mapping[str, Mapping[str, float]]
) -> list[_Scored]:
    """What is scored, by member, then by epoch."""
    if fold.name not in predicted:
        raise SelectionError(
            f'There are no predictions of fold "{fold.name}".{did_you_mean(fold.name, predicted)}', value=fold.name
        )
    guesses = _by_checkpoint(predicted[fold.name], f'The prediction of fold "{fold.name}"')
    places = {member: place for place, member in enumerate(fold.ids(part))}
    asked = [ref for ref in truth if str(ref.member) in places]
    scored = []
    for ref in sorted(asked, key=lambda ref: (places[str(ref.member)], -1 if ref.epoch is None else ref.epoch)):
        if ref not in guesses:
            raise SelectionError(
                f'Fold "{fold.name}" has no prediction of {ref}, which is in {part}. Predict it, or take it out of '
                "truth.",
                value=str(ref),
            )
        values = (truth[ref], guesses[ref])
        if any(value is None or not isfinite(value) for value in values):
            raise SelectionError(
                f'{ref} has true value {values[0]} and in fold "{fold.name}" predicted {values[1]}',
                expected="finite numbers. Predict it, or take it out of truth",
                value=str(ref),
            )
        scored.append(_Scored(ref, fold.families[str(ref.member)], float(values[0]), float(values[1])))
    if not scored:
        raise SelectionError(
            f'Fold "{fold.name}" has no member in {part} that truth has',
            fix="Give some, or leave the fold out.",
            value=fold.name,
        )
    return scored
