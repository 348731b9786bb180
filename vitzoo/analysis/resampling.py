"""Compute intervals of statistics of pairs and of accuracies, by resampling families and samples.

Members of one family resemble each other, and a pair shares its members with other pairs. So whole families are drawn.
See `vitzoo.splits.scores` for statistics of single members.
"""

from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float64, Int

from vitzoo.errors import SelectionError
from vitzoo.splits.scores import FEWEST_GROUPS, Interval, interval_of

_SAMPLES_AT_ONCE = 2**22  # drawn counts of samples that are held at once


def bootstrap_pairs(
    values: Float[np.ndarray, " pairs"],
    families: Sequence[tuple[Hashable, Hashable]],
    *,
    resamples: int = 4000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute the mean of a measure of pairs, with a percentile interval over families.

    Families are drawn with replacement. A pair of families f and g that were drawn c_f and c_g times weighs c_f c_g,
    and a pair inside a family c_f.

    Args:
        values: Measure of each pair. NaN values are left out.
        families: Families of each pair's two members.
        resamples: Number of draws, from 1.
        level: Share of intervals that contain the truth, above 0 and below 1.
        seed: Seed of the draws.

    Raises:
        SelectionError: Lengths differ, or there is no pair with a value.

    Source: Davison and Hinkley 1997, Bootstrap Methods and Their Application, section 3.8 (resampling of clusters).
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(families):
        raise SelectionError(f"{len(values)} values of {len(families)} pairs", expected="as many", value=len(values))
    known = ~np.isnan(values)
    if not known.any():
        raise SelectionError("No pair has a value", expected="one or more", value=len(values))
    names = {name: number for number, name in enumerate(dict.fromkeys(name for pair in families for name in pair))}
    places = np.array([(names[one], names[two]) for one, two in families])[known]
    sums, counts = np.zeros((2, len(names), len(names)))
    np.add.at(sums, tuple(places.T), values[known])
    np.add.at(counts, tuple(places.T), 1)
    estimate = float(values[known].mean())
    if len(names) < FEWEST_GROUPS:
        return interval_of(estimate, np.empty(0), groups=len(names), level=level)
    drawn = _draw_families(len(names), resamples, seed)
    with np.errstate(invalid="ignore"):
        means = _weighted(sums, drawn) / _weighted(counts, drawn)
    return interval_of(estimate, means, groups=len(names), level=level)


def resample_pairs(
    sums: Sequence[Float64[np.ndarray, "families families"]], *, resamples: int = 4000, seed: int = 0
) -> Float64[np.ndarray, "sums resamples"]:
    """Draw families as `bootstrap_pairs`, the same for all sums, and return the weighted total of each sum.

    Args:
        sums: Sums over the pairs of each two families, in one direction or half in each.
        resamples: Number of draws.
        seed: Seed of the draws.
    """
    drawn = _draw_families(len(sums[0]), resamples, seed)
    return np.stack([_weighted(matrix, drawn) for matrix in sums])


def _weighted(
    matrix: Float64[np.ndarray, "families families"], drawn: Int[np.ndarray, "resamples families"]
) -> Float64[np.ndarray, " resamples"]:
    inside = matrix.diagonal()
    return ((drawn @ (matrix - np.diag(inside))) * drawn).sum(axis=1) + drawn @ inside


def multi_bootstrap(
    scores: Float[np.ndarray, "members samples"],
    families: Sequence[Hashable],
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> Float64[np.ndarray, " resamples"]:
    """Draw families and samples together, and return the mean score of each draw.

    Each family counts equally, whatever its number of members. For a difference of two groups of the same families,
    give the difference of their scores, averaged by family: families and samples are then the same on both sides.

    Args:
        scores: Score of each member on each sample, such as 1 where it is right and 0 elsewhere.
        families: Family of each member.
        resamples: Number of draws.
        seed: Seed of the draws.

    Source: Sellam et al. 2022, The MultiBERTs: BERT Reproductions for Robustness Analysis, section 3.
    """
    return multi_bootstrap_each([family_means(scores, families)], resamples=resamples, seed=seed)[0]


def multi_bootstrap_each(
    means: Sequence[Float[np.ndarray, "_ samples"]], *, resamples: int = 4000, seed: int = 0
) -> Float64[np.ndarray, "statistics resamples"]:
    """Draw as `multi_bootstrap` for several statistics of the same samples.

    The drawn samples are the same for all statistics, and the drawn families are not. So the difference of two
    statistics is resampled correctly if they share no family.

    Args:
        means: Mean score of each family on each sample, ``[families, samples]``, for each statistic.
        resamples: Number of draws.
        seed: Seed of the draws.
    """
    generator, samples = np.random.default_rng(seed), means[0].shape[1]
    families = [draw_counts(len(own), resamples, generator) / len(own) for own in means]
    stacked = np.concatenate(means).T
    ends = np.cumsum([len(own) for own in means])
    results, at_once = np.empty((len(means), resamples)), max(1, _SAMPLES_AT_ONCE // samples)
    for start in range(0, resamples, at_once):
        stop = min(start + at_once, resamples)
        drawn_samples = draw_counts(samples, stop - start, generator) / samples
        by_family = drawn_samples @ stacked
        for place, (drawn, end) in enumerate(zip(families, ends, strict=True)):
            own = by_family[:, end - drawn.shape[1] : end]
            results[place, start:stop] = (own * drawn[start:stop]).sum(axis=1)
    return results


def family_means(
    scores: Float[np.ndarray, "members samples"], families: Sequence[Hashable]
) -> Float64[np.ndarray, "families samples"]:
    """Compute the mean score of each family's members on each sample, families in order of appearance."""
    names = {name: number for number, name in enumerate(dict.fromkeys(families))}
    places = np.array([names[family] for family in families])
    means = np.zeros((len(names), scores.shape[1]))
    np.add.at(means, places, scores)
    return means / np.bincount(places)[:, None]


@lru_cache(maxsize=8)
def _draw_families(count: int, resamples: int, seed: int) -> Int[np.ndarray, "resamples count"]:
    drawn = draw_counts(count, resamples, np.random.default_rng(seed))
    drawn.flags.writeable = False
    return drawn


def draw_counts(count: int, resamples: int, generator: np.random.Generator) -> Int[np.ndarray, "resamples count"]:
    """Draw from a number of things with replacement, as many as there are, and return how often each was drawn."""
    return generator.multinomial(count, np.full(count, 1 / count), size=resamples)
