"""Scores against hand-computed cases, scipy, and simulated families of known truth."""

from dataclasses import astuple, replace
from itertools import product
from math import isnan, nan
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, r2_score

from vitzoo import MemberRef
from vitzoo.errors import MemberIdError, SelectionError
from vitzoo.splits.folds import Fold
from vitzoo.splits.scores import FEWEST_GROUPS, bootstrap_by_group, score_folds


def r2(true: np.ndarray, predicted: np.ndarray) -> float:
    return nan if np.ptp(true) == 0 else r2_score(true, predicted)


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


def mean(values: np.ndarray) -> float:
    return float(values.mean())


class TestBootstrap:
    """Intervals by resampling families."""

    def test_interval_is_that_computed_by_hand(self) -> None:
        """The mean counts the draws of the one family with mean 5: 0 to 3 in 99 % of the resamples."""
        values, groups = array(-1, 1, -2, 2, 0, 0, -3, 3, 4, 6), list("aabbccddee")
        wide = bootstrap_by_group(mean, values, groups=groups, resamples=2000)
        assert (wide.estimate, wide.low, wide.high) == (1.0, 0.0, 3.0)
        assert (wide.groups, wide.resamples, wide.undefined) == (5, 2000, 0)
        narrow = bootstrap_by_group(mean, values, groups=groups, resamples=2000, level=0.2)
        assert (narrow.low, narrow.high) == (1.0, 1.0)

    def test_groups_of_one_give_scipy_s_interval(self) -> None:
        values = np.random.default_rng(0).normal(size=40)
        interval = bootstrap_by_group(mean, values, groups=np.arange(40), resamples=4000)
        oracle = stats.bootstrap(
            (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
        ).confidence_interval
        assert [interval.low, interval.high] == pytest.approx([oracle.low, oracle.high], abs=0.02)

    def test_interval_depends_on_the_seed_alone(self) -> None:
        values, groups = np.arange(10.0), list("aabbccddee")
        interval = bootstrap_by_group(mean, values, groups=groups, resamples=50)
        assert interval == bootstrap_by_group(mean, values, groups=groups, resamples=50)
        assert interval != bootstrap_by_group(mean, values, groups=groups, resamples=50, seed=1)

    @pytest.mark.parametrize("count", range(1, FEWEST_GROUPS))
    def test_few_families_have_no_interval(self, count: int) -> None:
        values = np.arange(2.0 * count)
        found = bootstrap_by_group(mean, values, groups=np.arange(2 * count) // 2)
        assert (found.estimate, found.groups, found.resamples) == (values.mean(), count, 0)
        assert isnan(found.low)
        assert isnan(found.high)

    def test_undefined_resamples_are_counted(self) -> None:
        """Without the one family that differs, in .8^5 of the resamples, R^2 is undefined."""
        values = array(0, 0, 0, 0, 1)
        found = bootstrap_by_group(r2, values, values, groups=range(5), resamples=1000)
        assert 280 < found.undefined < 380
        assert (found.low, found.estimate, found.high) == (1.0, 1.0, 1.0)
        never = bootstrap_by_group(lambda values: nan, values, groups=range(5), resamples=10)
        assert never.undefined == 10
        assert isnan(never.low)

    def test_families_are_drawn_whole(self) -> None:
        sizes: set[tuple[int, ...]] = set()

        def record(values: np.ndarray) -> float:
            sizes.add(tuple(int((values == family).sum()) for family in range(5)))
            return 0.0

        bootstrap_by_group(record, array(0, 1, 1, 2, 2, 2, 3, 4), groups=list("abbcccde"), resamples=4000)
        possible = {
            (a, 2 * b, 3 * c, d, 5 - a - b - c - d) for a, b, c, d in product(range(6), repeat=4) if a + b + c + d <= 5
        }
        assert sizes <= possible
        assert len(sizes) > len(possible) - 10

    @pytest.mark.slow
    def test_families_cover_the_truth_and_members_do_not(self) -> None:
        families, children, trials, covered, narrower, naively_covered = 50, 8, 100, 0, 0, 0
        for trial in range(trials):
            generator = np.random.default_rng([7, trial])
            effects = generator.normal(size=families)
            values = (effects[:, None] + 0.3 * generator.normal(size=(families, children))).ravel()
            whole = bootstrap_by_group(mean, values, groups=np.repeat(np.arange(families), children), resamples=150)
            naive = bootstrap_by_group(mean, values, groups=np.arange(values.size), resamples=50)
            covered += whole.low <= 0 <= whole.high
            naively_covered += naive.low <= 0 <= naive.high
            narrower += naive.high - naive.low < whole.high - whole.low
        assert 0.9 < covered / trials < 0.98
        assert naively_covered / trials < 0.65
        assert narrower == trials

    @pytest.mark.parametrize(
        ("arrays", "groups", "options", "value"),
        [
            ((array(1, 2),), ["a"], {}, [2, 1]),
            ((array(),), [], {}, [0, 0]),
            ((), ["a"], {}, [1]),
            ((array(1, 2),), ["a", "b"], {"resamples": 0}, 0),
            ((array(1, 2),), ["a", "b"], {"level": 95.0}, 95.0),
        ],
    )
    def test_lengths_and_options_out_of_range_are_refused(
        self, arrays: Any, groups: Any, options: Any, value: object
    ) -> None:
        with pytest.raises(SelectionError) as raised:
            bootstrap_by_group(mean, *arrays, groups=groups, **options)
        assert raised.value.value == value


def folds() -> list[Fold]:
    """Make two folds of six families of a parent and two children. Each family is in test once."""
    families = {f"pt-{i}{child}": f"pt-{i}" for i in range(6) for child in ("", "/ft-0", "/ft-1")}
    return [
        Fold(
            scheme="by_parent",
            name=str(fold),
            parts={name: "test" if family in tested else "train" for name, family in families.items()},
            groups=families,
            families=families,
        )
        for fold, tested in enumerate([("pt-0", "pt-1", "pt-2", "pt-4", "pt-5"), ("pt-3",)])
    ]


TRUTH = {f"pt-{i}/ft-{j}": float(i + j) for i in range(6) for j in range(2)}


class TestFolds:
    """Scores by fold, and of all."""

    def test_scores_are_those_computed_by_hand(self) -> None:
        predicted = {
            "0": {name: value + 1 for name, value in TRUTH.items()},
            "1": {name: value - (2 if name.endswith("1") else 0) for name, value in TRUTH.items()},
        }
        found = score_folds(mean_absolute_error, folds(), truth=TRUTH, predicted=predicted, resamples=500)
        first, second = found.folds
        assert (first.fold, first.members, first.groups, first.estimate, first.low, first.high) == ("0", 10, 5, 1, 1, 1)
        assert (second.fold, second.members, second.groups, second.estimate) == ("1", 2, 1, 1.0)
        assert isnan(second.low)
        assert found.pooled is not None
        pooled = found.pooled
        assert (pooled.members, pooled.checkpoints, pooled.groups, pooled.estimate) == (12, 12, 6, 1)
        assert [row["fold"] for row in found.rows()] == ["0", "1", "pooled"]
        assert " ".join(found.rows()[0]) == "estimate low high groups resamples undefined fold members checkpoints"

    def test_pooled_is_not_the_mean_of_folds(self) -> None:
        """Errors of 1 in family 3 are small compared with the spread of all folds."""
        predicted = {"0": TRUTH, "1": {name: value + 1 for name, value in TRUTH.items()}}
        found = score_folds(r2, folds(), truth=TRUTH, predicted=predicted, resamples=50)
        assert [score.estimate for score in found.folds] == [1.0, -3.0]
        spread = float(((np.array(list(TRUTH.values())) - 3) ** 2).sum())
        assert found.pooled is not None
        assert found.pooled.estimate == pytest.approx(1 - 2 / spread)
        assert found.pooled.low <= found.pooled.estimate <= found.pooled.high

    def test_pooled_is_none_if_a_member_is_scored_twice(self) -> None:
        predicted = {"0": TRUTH, "1": TRUTH}
        found = score_folds(r2, folds(), truth=TRUTH, predicted=predicted, part="train", resamples=5)
        assert [score.members for score in found.folds] == [2, 10]
        assert found.pooled is not None  # each is in one train part
        turned = [*folds(), replace(folds()[0], name="2")]
        again = score_folds(r2, turned, truth=TRUTH, predicted=predicted | {"2": TRUTH}, resamples=5)
        assert again.pooled is None  # ten members would count twice
        assert [row["fold"] for row in again.rows()] == ["0", "1", "2"]

    @pytest.mark.parametrize("zoo", ["", "/a/zoo/", "org/name/"])
    def test_checkpoints_are_scored_and_families_resampled(self, zoo: str) -> None:
        truth = {f"{name}@{epoch}": value * epoch for name, value in TRUTH.items() for epoch in (4, 2)}
        predicted = {f"{zoo}{name}": value + 1 for name, value in truth.items()}
        found = score_folds(
            mean_absolute_error, folds(), truth=truth, predicted={"0": predicted, "1": predicted}, resamples=20
        )
        assert found.pooled is not None
        for score, expected in zip((*found.folds, found.pooled), ((10, 20, 5), (2, 4, 1), (12, 24, 6)), strict=True):
            assert (score.members, score.checkpoints, score.groups, score.estimate) == (*expected, 1.0)
        refs = {MemberRef.parse(name): value for name, value in truth.items()}
        scores = score_folds(r2, folds(), truth=truth, predicted={"0": predicted, "1": predicted}, resamples=20)
        again = score_folds(
            r2,
            folds(),
            truth={f"{zoo}{ref}": value for ref, value in reversed(refs.items())},
            predicted={"0": {str(ref): value + 1 for ref, value in refs.items()}, "1": predicted},
            resamples=20,
        )
        assert astuple(scores) == astuple(again)  # since Python 3.13, dataclasses with NaN are unequal

    @pytest.mark.parametrize(
        ("truth", "predicted", "value"),
        [
            (TRUTH, {"0": TRUTH}, "1"),
            (TRUTH, {"0": {}, "1": TRUTH}, "pt-0/ft-0"),
            (TRUTH, {"0": TRUTH | {"pt-1/ft-0": nan}, "1": TRUTH}, "pt-1/ft-0"),
            ({"pt-0": 1.0}, {"0": {"pt-0": 1.0}, "1": {}}, "1"),  # which has no member in test that truth has
            (TRUTH | {"pt-9": 1.0}, {"0": TRUTH, "1": TRUTH}, "pt-9"),
            ({"pt-0@2": 1.0}, {"0": {"pt-0": 1.0}, "1": {}}, "pt-0@2"),
            (TRUTH | {"zoo/pt-0/ft-0": 1.0}, {"0": TRUTH, "1": TRUTH}, "truth"),  # which names a member twice
        ],
    )
    def test_wrong_truth_or_prediction_is_refused(self, truth: Any, predicted: Any, value: str) -> None:
        with pytest.raises(SelectionError) as raised:
            score_folds(r2, folds(), truth=truth, predicted=predicted, resamples=2)
        assert raised.value.value == value

    def test_folds_of_several_schemes_are_refused(self) -> None:
        mixed = [folds()[0], replace(folds()[1], scheme="random_members")]
        for chosen, schemes in (
            ([], []),
            ([*folds(), *folds()], ["by_parent"]),
            (mixed, ["by_parent", "random_members"]),
        ):
            with pytest.raises(SelectionError) as raised:
                score_folds(r2, chosen, truth=TRUTH, predicted={"0": TRUTH, "1": TRUTH}, resamples=2)
            assert raised.value.value == schemes
        with pytest.raises(MemberIdError) as malformed:
            score_folds(r2, folds(), truth={"pt-x": 1.0}, predicted={"0": TRUTH, "1": TRUTH}, resamples=2)
        assert malformed.value.text == "pt-x"
