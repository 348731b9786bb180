"""Resampled means equal loops over single draws, and intervals have the coverage that decisions.md reports."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from vitzoo.analysis.resampling import bootstrap_pairs, draw_counts, family_means, multi_bootstrap, multi_bootstrap_each
from vitzoo.errors import SelectionError


def test_pairs_weigh_as_often_as_both_families_were_drawn() -> None:
    generator = np.random.default_rng(0)
    families = [(one, two) for one in range(6) for two in range(one, 6) for _ in range(2)]
    values = generator.normal(size=len(families))
    interval = bootstrap_pairs(values, families, resamples=50, seed=3)
    means = []
    for counts in draw_counts(6, 50, np.random.default_rng(3)):
        weights = [counts[one] if one == two else counts[one] * counts[two] for one, two in families]
        means.append(np.average(values, weights=weights))
    assert interval.estimate == pytest.approx(values.mean(), abs=1e-12)
    assert_allclose([interval.low, interval.high], np.quantile(means, [0.025, 0.975]), rtol=0, atol=1e-12)
    assert (interval.groups, interval.resamples, interval.undefined) == (6, 50, 0)


def test_nan_pairs_are_left_out_and_few_families_have_no_interval() -> None:
    interval = bootstrap_pairs(np.array([1.0, np.nan, 3.0]), [("a", "b"), ("a", "c"), ("b", "c")])
    assert interval.estimate == 2.0
    assert np.isnan(interval.low)
    assert interval.groups == 3
    with pytest.raises(SelectionError) as caught:
        bootstrap_pairs(np.array([np.nan]), [("a", "b")])
    assert caught.value.problem == "No pair has a value"


def test_multi_bootstrap_equals_the_loop_of_the_published_method() -> None:
    """For each draw: the mean over drawn families of the mean over their members of the accuracy on drawn samples."""
    generator = np.random.default_rng(1)
    scores = (generator.random((7, 40)) < 0.7).astype(float)
    families = ["a", "a", "b", "c", "c", "c", "d"]
    found = multi_bootstrap(scores, families, resamples=30, seed=5)
    again = np.random.default_rng(5)
    drawn_families = draw_counts(4, 30, again)
    drawn_samples = draw_counts(40, 30, again)
    for value, by_family, by_sample in zip(found, drawn_families, drawn_samples, strict=True):
        chosen = np.repeat(np.arange(40), by_sample)
        means = {name: np.mean([scores[i, chosen].mean() for i in range(7) if families[i] == name]) for name in "abcd"}
        expected = np.mean([means["abcd"[place]] for place in np.repeat(np.arange(4), by_family)])
        assert value == pytest.approx(expected, abs=1e-12)


def test_several_statistics_share_their_samples_and_no_family() -> None:
    generator = np.random.default_rng(4)
    one, two = (generator.random((count, 30)) for count in (5, 6))
    found = multi_bootstrap_each([one, two], resamples=20, seed=7)
    again = np.random.default_rng(7)
    families = [draw_counts(count, 20, again) / count for count in (5, 6)]
    samples = draw_counts(30, 20, again) / 30
    for means, drawn, values in zip((one, two), families, found, strict=True):
        assert_allclose(values, [f @ means @ s for f, s in zip(drawn, samples, strict=True)], rtol=0, atol=1e-12)
    scores = generator.random((4, 30))
    means = family_means(scores, ["b", "a", "b", "c"])
    assert_allclose(means, [(scores[0] + scores[2]) / 2, scores[1], scores[3]])


def test_samples_in_parts_have_the_same_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = (np.random.default_rng(2).random((6, 50)) < 0.5).astype(float)
    whole = multi_bootstrap(scores, range(6), resamples=400)
    monkeypatch.setattr("vitzoo.analysis.resampling._SAMPLES_AT_ONCE", 50 * 7)
    assert_allclose(multi_bootstrap(scores, range(6), resamples=400), whole, rtol=0, atol=1e-12)


def coverage(families: int, *, trials: int = 300) -> float:
    """Simulate pairs whose value is the sum of two families' effects, and count intervals that contain the truth, 0."""
    generator, covered = np.random.default_rng(families), 0
    places = [(one, two) for one in range(families) for two in range(one)]
    for _ in range(trials):
        effects = generator.normal(size=families)
        values = np.array([effects[one] + effects[two] for one, two in places]) + generator.normal(size=len(places))
        interval = bootstrap_pairs(values, places, resamples=300)
        covered += interval.low <= 0 <= interval.high
    return covered / trials


def test_intervals_of_pairs_cover_the_truth() -> None:
    assert coverage(12) >= 0.85
    assert coverage(40, trials=150) >= 0.90
