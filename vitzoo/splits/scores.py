"""Score predictions about members, fold by fold, with intervals by bootstrap over families.

Members of one family resemble each other, so they are not independent observations. Resampling single members gives
intervals that are far too narrow, so whole families are resampled. See `vitzoo.splits.plan` for folds. A statistic is
any function of true and predicted values, such as one of `sklearn.metrics`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite, nan
from typing import Any, NamedTuple

import numpy as np

from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown
from vitzoo.splits.folds import Fold

Statistic = Callable[..., float]

# Of simulated 95 % intervals of a mean, .505 contained the truth with 2 groups, .72 with 3, .82 with 5, .88 with 12.
FEWEST_GROUPS = 5


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Interval(Shown):
    """A statistic with its interval.

    Args:
        estimate: The statistic of the whole sample.
        low: Lower end of the interval; NaN for fewer than `FEWEST_GROUPS` groups.
        high: Upper end of the interval.
        groups: Number of resampled groups.
        resamples: Number of resamples.
        undefined: Number of resamples whose statistic was NaN or infinite. The interval ignores them; if they are many,
            do not trust it.
    """

    estimate: float
    low: float
    high: float
    groups: int
    resamples: int
    undefined: int


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Score(Interval):
    """The score of the predictions for one part, with its interval.

    Args:
        fold: The fold's name; ``pooled`` for the members of all folds.
        members: Number of scored members.
        checkpoints: Number of their scored checkpoints; one a member unless the truth names checkpoints.
    """

    fold: str
    members: int
    checkpoints: int


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Scores(Shown):
    """A statistic by fold, and of all folds together.

    Args:
        folds: The score of each fold, in their order.
        pooled: The score of all predictions together. A statistic that compares with the mean, such as R^2, is not the
            mean of the folds' here. None if a member is scored in two folds, because its predictions are dependent.
    """

    folds: tuple[Score, ...]
    pooled: Score | None

    def _facts(self) -> dict[str, Any]:
        pooled = self.pooled
        interval = None if pooled is None else f"{pooled.estimate:.4g} [{pooled.low:.4g}, {pooled.high:.4g}]"
        return {"folds": len(self.folds), "pooled": interval}

    def _table_rows(self) -> list[dict[str, Any]]:
        return self.rows()

    def rows(self) -> list[dict[str, Any]]:
        """Return the scores as dicts, such as a data frame takes, ``pooled`` last."""
        return [asdict(score) for score in (*self.folds, self.pooled) if score is not None]


def bootstrap_by_group(
    statistic: Statistic,
    *arrays: np.ndarray,
    groups: Sequence[Any] | np.ndarray,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute a percentile interval by resampling whole groups with replacement.

    It shows how the statistic varies with the tested families, not with the families of the training. With few
    families, percentile intervals are too narrow: of 95 % intervals of a mean, .88 contain the truth with twelve
    families, and .82 with five. Fewer than `FEWEST_GROUPS` families have no interval.

    Args:
        statistic: Function from the arrays to a number; NaN or infinite if it is undefined.
        *arrays: Equally long, with one observation each along the first axis.
        groups: Each observation's group.
        resamples: Number of resamples, from 1.
        level: Share of intervals that contain the truth, above 0 and below 1.
        seed: Seed of the resamples.

    Raises:
        SelectionError: Lengths differ, there is no observation, or ``resamples`` or ``level`` are out of range.

    Source: Davison and Hinkley 1997, Bootstrap Methods and Their Application, section 3.8 (resampling of clusters) and
        equation 5.18 (percentile limits).

    Example:
        >>> bootstrap_by_group(np.mean, np.array([1.0, 2.0, 3.0]), groups=["a", "a", "b"]).estimate
        2.0
    """
    data = [np.asarray(array) for array in arrays]
    lengths = [len(array) for array in [*data, groups]]
    if not data or len(set(lengths)) != 1 or lengths[0] == 0:
        raise SelectionError(
            f"Arrays and groups have lengths {lengths}", expected="equal lengths, from 1", value=lengths
        )
    check_resampling(resamples, level)
    numbers: dict[Any, list[int]] = {}
    for i, group in enumerate(groups):
        numbers.setdefault(group, []).append(i)
    members = [np.array(rows) for rows in numbers.values()]
    estimate = float(statistic(*data))
    if len(members) < FEWEST_GROUPS:
        return interval_of(estimate, np.empty(0), groups=len(members), level=level)
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for i in range(resamples):
        chosen = np.concatenate([members[j] for j in generator.integers(len(members), size=len(members))])
        drawn[i] = statistic(*(array[chosen] for array in data))
    return interval_of(estimate, drawn, groups=len(members), level=level)


def check_resampling(resamples: int, level: float) -> None:
    """Raise SelectionError if the number of resamples or the level is out of range."""
    if resamples < 1 or not 0 < level < 1:
        raise SelectionError(
            f"resamples is {resamples} and level {level}",
            expected="1 or more, and above 0 and below 1",
            value=resamples if resamples < 1 else level,
        )


def interval_of(estimate: float, drawn: np.ndarray, *, groups: int, level: float) -> Interval:
    """Return a statistic with the percentile interval of its resamples; NaN and infinite ones are left out."""
    defined = drawn[np.isfinite(drawn)]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if len(defined) else (nan, nan)
    return Interval(
        estimate=estimate,
        low=float(low),
        high=float(high),
        groups=groups,
        resamples=len(drawn),
        undefined=len(drawn) - len(defined),
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
        truth: The value of each scored member, or of each checkpoint (``pt-0/ft-0@4``, also with its zoo).
        predicted: By fold, the predicted value of each member or checkpoint; values of others are ignored.
        part: The scored part.
        resamples: As `bootstrap_by_group`.
        level: As `bootstrap_by_group`.
        seed: As `bootstrap_by_group`.

    Raises:
        SelectionError: Folds are of two schemes or have one name; a prediction is missing, a value is not finite, a
            member of ``truth`` was not split, or a part has no member to score.
        MemberIdError: A key is not a member or checkpoint.
    """

    def score(name: str, scored: list[_Scored]) -> Score:
        interval = bootstrap_by_group(
            statistic,
            np.array([item.true for item in scored]),
            np.array([item.predicted for item in scored]),
            groups=[item.family for item in scored],
            resamples=resamples,
            level=level,
            seed=seed,
        )
        members = {item.ref.member for item in scored}
        return Score(fold=name, members=len(members), checkpoints=len(scored), **asdict(interval))

    _check_folds(folds)
    values = _by_checkpoint(truth, "truth")
    for fold in folds:
        fold.check_knows(str(ref.member) for ref in values)
    by_fold = {fold.name: _scored(fold, part, truth=values, predicted=predicted) for fold in folds}
    pooled = [item for scored in by_fold.values() for item in scored]
    is_disjoint = len({item.ref for item in pooled}) == len(pooled)
    return Scores(
        folds=tuple(score(name, scored) for name, scored in by_fold.items()),
        pooled=score("pooled", pooled) if is_disjoint else None,
    )


class _Scored(NamedTuple):
    ref: MemberRef
    family: str
    true: float
    predicted: float


def _check_folds(folds: Sequence[Fold]) -> None:
    schemes, names = {fold.scheme for fold in folds}, {fold.name for fold in folds}
    if len(schemes) != 1 or len(names) < len(folds):
        raise SelectionError(
            f"There are {len(folds)} folds of {', '.join(sorted(schemes)) or 'no scheme'} with {len(names)} names",
            expected="different folds of one scheme",
            fix="Score each scheme by itself.",
            value=sorted(schemes),
        )


def _by_checkpoint(values: Mapping[str, float], what: str) -> dict[MemberRef, float]:
    """Return the values by reference without the zoo, which folds do not know."""
    by_ref = {replace(MemberRef.parse(str(key)), zoo=None): value for key, value in values.items()}
    if len(by_ref) < len(values):
        raise SelectionError(
            f"{what} names a member or checkpoint twice: {len(values)} keys are {len(by_ref)} checkpoints",
            fix="Name each once.",
            value=what,
        )
    return by_ref


def _scored(
    fold: Fold, part: str, *, truth: Mapping[MemberRef, float], predicted: Mapping[str, Mapping[str, float]]
) -> list[_Scored]:
    """Pair true and predicted values of a fold, by member, then by epoch."""
    if fold.name not in predicted:
        raise SelectionError(
            f'There are no predictions of fold "{fold.name}"',
            fix=did_you_mean(fold.name, predicted),
            value=fold.name,
        )
    guesses = _by_checkpoint(predicted[fold.name], f'The prediction of fold "{fold.name}"')
    places = {member: place for place, member in enumerate(fold.ids(part))}
    refs = [ref for ref in truth if str(ref.member) in places]
    scored = []
    for ref in sorted(refs, key=lambda ref: (places[str(ref.member)], -1 if ref.epoch is None else ref.epoch)):
        true, guess = truth[ref], guesses.get(ref)
        if guess is None or not isfinite(guess) or not isfinite(true):
            raise SelectionError(
                f'{ref}, which is in {part} of fold "{fold.name}", has true value {true} and predicted value {guess}',
                expected="finite numbers",
                fix="Predict it, or remove it from truth.",
                value=str(ref),
            )
        scored.append(_Scored(ref, fold.families[str(ref.member)], float(true), float(guess)))
    if not scored:
        raise SelectionError(
            f'Fold "{fold.name}" has no member in {part} that truth has',
            fix="Add such members to truth, or leave the fold out.",
            value=fold.name,
        )
    return scored
