"""Scores of lineage: hand-computed shares, scikit-learn's adjusted Rand index, all permutations of a random guess."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from vitzoo import Zoo
from vitzoo.analysis.lineage_score import LineageScore, Truth, find_truth, score_forest
from vitzoo.errors import SelectionError

PARENTS = np.array([-1, 0, 0, -1, 3, 3])


def truth(parents: np.ndarray = PARENTS, trees: str = "aaabbb", families: str = "aaabbb") -> Truth:
    names = tuple(f"m{row}" for row in range(len(parents)))
    return Truth(names=names, parents=parents, trees=tuple(trees), families=tuple(families))


def score(parents: list[int], clusters: list[int], *, blocks: str = "", of: Truth | None = None) -> LineageScore:
    of = of or truth()
    return score_forest(
        np.array(parents),
        np.array(clusters),
        np.zeros(len(parents), bool),
        truth=of,
        blocks=list(blocks or " " * len(parents)),
    )


def test_edges_and_roots_are_shares_of_the_recorded_ones() -> None:
    found = score([-1, 0, 1, 4, -1, 4], [0, 0, 0, 1, 1, 1])
    rows = found.table.set_index("measure")
    assert rows.loc["edges", ["right", "total", "guessed"]].tolist() == [1, 4, 4]
    assert rows.loc["roots", ["right", "total", "guessed"]].tolist() == [1, 2, 2]
    assert (found["edges"], found["roots"], found["adjusted_rand"]) == (0.25, 0.5, 1.0)
    assert np.isnan(found.table[["low", "high"]].to_numpy()).all()  # two families have no interval
    assert found.by_family.to_dict("list") == {
        "family": ["a", "b"],
        "trees": ["a", "b"],
        "edges_right": [1, 0],
        "edges": [2, 2],
        "roots_right": [1, 0],
        "roots": [1, 1],
    }
    assert found.merged == ()
    assert repr(found) == "LineageScore(edges=1/4, roots=1/2, adjusted_rand=1, families=2)"
    assert "<table" in found._repr_html_()


def test_a_tie_is_not_a_guessed_root() -> None:
    found = score_forest(
        np.full(6, -1),
        np.arange(6),
        np.array([True, False, False, False, False, False]),
        truth=truth(),
        blocks=[""] * 6,
    )
    assert found.table.set_index("measure").loc["roots", ["right", "total", "guessed"]].tolist() == [1, 2, 5]


@pytest.mark.parametrize("blocks", [pytest.param("      ", marks=pytest.mark.slow), "rccrcc", "aaabbb", "abcdef"])
def test_random_is_the_mean_over_all_permutations_inside_blocks(blocks: str) -> None:
    parents, clusters = np.array([-1, 0, -1, 2, 2, 0]), np.array([0, 0, 1, 1, 1, 0])
    scores = []
    for order in permutations(range(6)):
        if any(blocks[row] != blocks[place] for row, place in enumerate(order)):
            continue
        moved, labels = np.full(6, -1), np.empty(6, int)
        for row, place in enumerate(order):
            moved[place] = order[parents[row]] if parents[row] >= 0 else -1
            labels[place] = clusters[row]
        found = score(moved.tolist(), labels.tolist())
        scores.append([found[name] for name in ("edges", "roots", "adjusted_rand")])
    found = score(parents.tolist(), clusters.tolist(), blocks=blocks)
    np.testing.assert_allclose(found.table["random"].tolist(), np.mean(scores, axis=0), atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_rand_equals_scikit_learn_s(seed: int) -> None:
    generator = np.random.default_rng(seed)
    trees, clusters = generator.integers(4, size=(2, 30))
    of = truth(np.full(30, -1), "".join(map(str, trees)), "".join(map(str, trees)))
    found = score([-1] * 30, clusters.tolist(), of=of)
    assert found["adjusted_rand"] == pytest.approx(adjusted_rand_score(trees, clusters), abs=1e-12)
    assert np.isnan(found["edges"])


def test_intervals_resample_families() -> None:
    """Six families of a root and 4 children. All edges of half of the families are right."""
    parents = np.array([-1 if row % 5 == 0 else row // 5 * 5 for row in range(30)])
    letters = "".join(letter * 5 for letter in "abcdef")
    guessed = np.where(np.arange(30) < 15, parents, np.where(parents >= 0, (parents + 5) % 30, -1))
    merged = [min(row // 5, 4) for row in range(30)]  # families e and f are one cluster
    found = score(guessed.tolist(), merged, of=truth(parents, letters, letters))
    rows = found.table.set_index("measure")
    assert rows["families"].tolist() == [6, 6, 6]
    generator = np.random.default_rng(1)
    drawn = generator.multinomial(6, np.full(6, 1 / 6), size=20_000)
    share = drawn[:, :3].sum(axis=1) / 6
    assert rows.loc["edges", ["low", "high"]].tolist() == pytest.approx(np.quantile(share, [0.025, 0.975]).tolist())
    assert rows.loc["roots", ["estimate", "low", "high"]].tolist() == [1, 1, 1]
    inside, all_pairs = (
        10 * drawn.sum(axis=1),
        10 * 6 + 25 * sum(drawn[:, i] * drawn[:, j] for i in range(6) for j in range(i)),
    )
    guess = inside + 25 * drawn[:, 4] * drawn[:, 5]
    by_chance = np.minimum(inside * guess / all_pairs, 0.999 * inside)  # all draws are of one family in 1 of 7,776
    rand = (inside - by_chance) / ((inside + guess) / 2 - by_chance)
    low, high = np.quantile(rand, [0.025, 0.975])
    assert rows.loc["adjusted_rand", "low"] == pytest.approx(low, abs=0.02)
    assert rows.loc["adjusted_rand", "high"] == pytest.approx(high, abs=0.02)
    assert found.merged == (("e", "f"),)


def test_truth_is_the_last_selected_epoch_before(tiny_zoo: Path) -> None:
    selection = Zoo(tiny_zoo).select(epoch=[0, 1, 2])
    found = find_truth(selection)
    above = {
        name: found.names[parent] if parent >= 0 else ""
        for name, parent in zip(found.names, found.parents, strict=True)
    }
    assert above["pt-0@0"] == ""
    assert above["pt-0@1"] == "pt-0@0"
    assert above["pt-0@2"] == "pt-0@1"
    assert above["pt-0/ft-0@0"] == "pt-0@2"
    assert above["pt-0/ft-0@1"] == "pt-0/ft-0@0"
    by_tree = dict(zip(found.names, zip(found.trees, found.families, strict=True), strict=True))
    assert by_tree["pt-1/ft-0@1"] == ("pt-1", "pt-0")  # they share an initialisation
    assert by_tree["pt-2/ft-0@1"] == ("pt-2", "pt-2")
    hidden = find_truth(Zoo(tiny_zoo).select(stage="finetuning"))
    assert set(hidden.parents.tolist()) == {-1}


def test_a_checkpoint_that_is_selected_twice_is_refused(tiny_zoo: Path) -> None:
    selection = Zoo(tiny_zoo).select(stage="pretraining")
    with pytest.raises(SelectionError) as raised:
        find_truth(selection.with_refs([selection[0], selection[0]]))
    assert raised.value.value == 2
