"""Accuracies by factor: means and intervals of made scores equal other bootstraps of the same families."""

from typing import Any

import numpy as np
import pytest

from vitzoo.analysis.diversity.accuracies import Scores, compare_accuracies
from vitzoo.analysis.diversity.contrasts import Contrasts, find_contrasts
from vitzoo.splits.scores import bootstrap_by_group

FAMILIES = [f"pt-{number}" for number in range(12) for _ in range(2)]


def found(objective_of_half: str = "contrastive") -> Contrasts:
    """Find the contrasts of 12 families, with a child of each optimizer."""
    rows: list[dict[str, Any]] = [
        {
            "id": f"{family}/ft-{place % 2}",
            "parent": family,
            "init_group": family,
            "pretraining_objective": "supervised" if place < 12 else objective_of_half,
            "optimizer": ("adamw", "sgd")[place % 2],
        }
        for place, family in enumerate(FAMILIES)
    ]
    return find_contrasts(rows, {}, columns=("optimizer",))


def by_key(rows: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {(row["factor"], row["value"]): row for row in rows}


def test_intervals_of_recorded_accuracies_resample_families() -> None:
    values = np.random.default_rng(0).random((24, 1))
    accuracy, differences = compare_accuracies(
        Scores(part="val", resampled="families", values=values), found(), FAMILIES
    )
    rows = by_key(accuracy)
    means = values.reshape(12, 2).mean(axis=1)
    expected = bootstrap_by_group(np.mean, means, groups=range(12), resamples=4000, seed=1)
    row = rows["", ""]
    assert row["mean"] == pytest.approx(means.mean(), abs=1e-12)
    assert [row["low"], row["high"]] == pytest.approx([expected.low, expected.high], abs=0.01)
    gains = values.reshape(12, 2) @ [1, -1]
    expected = bootstrap_by_group(np.mean, gains, groups=range(12), resamples=4000, seed=1)
    optimizer, objective = differences
    assert optimizer["difference"] == pytest.approx(gains.mean(), abs=1e-12)
    assert [optimizer["low"], optimizer["high"]] == pytest.approx([expected.low, expected.high], abs=0.015)
    assert (optimizer["value"], optimizer["other"], optimizer["pairs"]) == ("adamw", "sgd", 12)

    def gap(values: np.ndarray, is_contrastive: np.ndarray) -> float:
        return values[is_contrastive].mean() - values[~is_contrastive].mean()

    assert objective["difference"] == pytest.approx(gap(means, np.arange(12) >= 6), abs=1e-12)
    generator, drawn = np.random.default_rng(2), []
    for _ in range(4000):
        places = np.concatenate([generator.integers(0, 6, 6), generator.integers(6, 12, 6)])
        drawn.append(gap(means[places], places >= 6))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert [objective["low"], objective["high"]] == pytest.approx([low, high], abs=0.02)
    assert (objective["families"], objective["pairs"]) == (12, 0)


def test_samples_widen_the_interval() -> None:
    generator = np.random.default_rng(3)
    chances = np.repeat(generator.uniform(0.4, 0.9, 12), 2)
    scores = (generator.random((24, 40)) < chances[:, None]).astype(float)
    samples = Scores(part="test", resampled="families and samples", values=scores)
    recorded = Scores(part="test", resampled="families", values=scores.mean(axis=1, keepdims=True))
    both, families = (by_key(compare_accuracies(own, found(), FAMILIES)[0])["", ""] for own in (samples, recorded))
    assert both["mean"] == pytest.approx(families["mean"], abs=1e-12)
    assert both["high"] - both["low"] > 1.01 * (families["high"] - families["low"])


def test_members_without_accuracy_and_values_without_members_are_left_out() -> None:
    values = np.random.default_rng(4).random((24, 1))
    values[1::2] = np.nan  # SGD
    accuracy, differences = compare_accuracies(
        Scores(part="val", resampled="families", values=values), found(), FAMILIES
    )
    assert by_key(accuracy).keys() == {
        ("", ""),
        ("optimizer", "adamw"),
        ("pretraining_objective", "contrastive"),
        ("pretraining_objective", "supervised"),
    }
    assert [row["members"] for row in accuracy] == [12, 12, 6, 6]
    assert [row["factor"] for row in differences] == ["pretraining_objective"]
    nothing = Scores(part="val", resampled="families", values=np.full((24, 1), np.nan))
    assert compare_accuracies(nothing, found(), FAMILIES) == ([], [])


def test_values_of_families_that_share_an_initialisation_have_no_interval() -> None:
    values = np.random.default_rng(5).random((24, 1))
    joined = ["pt-0" if family == "pt-11" else family for family in FAMILIES]
    _, (_, objective) = compare_accuracies(Scores(part="val", resampled="families", values=values), found(), joined)
    assert np.isnan(objective["low"])
    assert objective["families"] == 11
