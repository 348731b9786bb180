"""Contrasts: pairs of small designs are counted by hand; groups, nesting and unknown values follow the rules."""

from itertools import combinations, product
from math import comb, prod
from typing import Any

import pytest

from vitzoo.analysis.diversity.contrasts import Contrasts, find_contrasts

COLUMNS = ("head_type", "head_width", "optimizer", "learning_rate", "momentum", "init_seed", "head_seed", "replicate")
PARENTS = {
    "pt-0": {"init_group": "a", "objective": "supervised", "epochs": 9},
    "pt-1": {"init_group": "a", "objective": "supervised", "epochs": 9},
    "pt-2": {"init_group": "b", "objective": "supervised", "epochs": 9},
    "pt-3": {"init_group": "c", "objective": "contrastive", "epochs": 5},
}


def children(family: str, settings: list[dict[str, Any]], **shared: Any) -> list[dict[str, Any]]:
    """Return a row for each child of a parent, with the given settings."""
    parent = PARENTS[family]
    rows = []
    for number, values in enumerate(settings):
        own = {"init_group": parent["init_group"], "pretraining_objective": parent["objective"]}
        rows.append({"id": f"{family}/ft-{number}", "parent": family, **own, **shared, **values})
    return rows


def grid(**values: list[Any]) -> list[dict[str, Any]]:
    """Return all combinations of some columns' values."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def find(rows: list[dict[str, Any]], *columns: str, parents: Any = ()) -> Contrasts:
    return find_contrasts(rows, dict(parents), columns=columns)


def counts(found: Contrasts) -> dict[str, int]:
    return {contrast.name: len(contrast.pairs) for contrast in found.contrasts}


ADAMW = [{"optimizer": "adamw", "momentum": None, "learning_rate": rate} for rate in (1e-3, 3e-3)]
SGD = [{"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.1}]
HEADS = [{"head_type": "linear", "head_width": None}, {"head_type": "mlp", "head_width": 64}]
CELLS = [optimizer | head for optimizer in (*ADAMW, *SGD) for head in HEADS]  # 6 children
SEEDS = {"init_seed": 0, "head_seed": 100, "replicate": 0}


def test_learning_rates_are_nested_in_their_optimizer() -> None:
    found = find([*children("pt-0", CELLS, **SEEDS), *children("pt-2", CELLS, **SEEDS)], *COLUMNS)
    # A family has 3 settings by 2 heads. Each head has two AdamW by one SGD.
    assert counts(found) == {"head_type": 2 * 3, "optimizer": 2 * 2 * 2, "learning_rate": 2 * 2, "parent": 6}
    head, optimizer, rate = found.factors
    assert (head.name, head.columns, head.nested_in) == ("head_type", ("head_type", "head_width"), ())
    assert (optimizer.columns, optimizer.nested_in) == (("optimizer", "momentum"), ())
    assert (rate.columns, rate.nested_in, rate.scope) == (("learning_rate",), ("optimizer",), "within")
    assert [contrast.nested_in for contrast in found.contrasts] == [(), (), ("optimizer",), ()]
    assert found.left_out == {}
    assert found.constant == {"init_seed": 0, "head_seed": 100, "replicate": 0}
    (across,) = [contrast for contrast in found.contrasts if contrast.scope == "across"]
    assert across.pairs.tolist() == [[number, number + 6] for number in range(6)]


@pytest.mark.parametrize("sizes", [(2, 3), (3, 2, 2), (4, 2, 3)])
def test_pairs_of_a_crossed_design_are_counted_by_the_formula(sizes: tuple[int, ...]) -> None:
    names = ("head_type", "optimizer", "learning_rate")[: len(sizes)]
    cells = grid(**{name: list(range(size)) for name, size in zip(names, sizes, strict=True)})
    rows = [*children("pt-0", cells), *children("pt-2", cells), *children("pt-3", cells)]
    members = prod(sizes)
    expected = {name: 3 * members // size * comb(size, 2) for name, size in zip(names, sizes, strict=True)}
    found = find(rows, *names)
    assert counts(found) == {**expected, "parent": members, "parent and pretraining_objective": 2 * members}
    assert found.in_common.all()
    for contrast in found.contrasts[: len(names)]:
        for one, two in contrast.pairs:
            assert rows[one]["parent"] == rows[two]["parent"]
            assert [name for name in names if rows[one][name] != rows[two][name]] == [contrast.name]


def test_seeds_that_change_together_are_one_contrast() -> None:
    cells = [cell | {"head_seed": 100 + repeat, "replicate": repeat} for repeat in (0, 1) for cell in CELLS]
    found = find([*children("pt-0", cells), *children("pt-2", cells[:6])], *COLUMNS[:5], "head_seed", "replicate")
    assert counts(found)["seeds"] == 6
    (seeds,) = [factor for factor in found.factors if factor.is_seeds]
    assert (seeds.name, seeds.columns) == ("seeds", ("head_seed", "replicate"))
    # The second family has one replicate, so it has no pairs of seeds.
    assert found.in_common.tolist() == [True] * 12 + [False] * 6


def test_seeds_of_one_member_alone_are_ignored() -> None:
    cells = [cell | {"head_seed": number} for number, cell in enumerate(CELLS)]
    others = [cell | {"head_seed": 10 + number} for number, cell in enumerate(CELLS)]
    rows = [*children("pt-0", cells), *children("pt-2", others)]
    found = find(rows, *COLUMNS[:5], "head_seed")
    assert counts(found) == {"head_type": 6, "optimizer": 8, "learning_rate": 4, "parent": 6}
    seeds = found.factors[-1]
    assert seeds.nested_in == ("head_type", "optimizer", "learning_rate", "parent")


def test_contrasts_across_families_are_named_by_the_parents_factors() -> None:
    rows = [row for family in PARENTS for row in children(family, CELLS)]
    found = find(rows, *COLUMNS[:5])
    parents = {name: dict.fromkeys(COLUMNS) | row for name, row in PARENTS.items()}
    with_parents = find([row | {"epochs": 3} for row in rows], *COLUMNS[:5], "epochs", parents=parents)
    expected = {"parent, one initialisation": 6, "parent": 12, "parent and pretraining_objective": 18}
    assert {name: count for name, count in counts(found).items() if name.startswith("parent")} == expected
    assert counts(with_parents) == counts(found)
    outer = with_parents.factors[-1]
    assert (outer.scope, outer.columns) == ("across", ("pretraining_objective", "pretraining_epochs"))
    assert outer.values == ("supervised",) * 18 + ("contrastive",) * 6


def test_factor_of_parents_that_is_nested_in_another_does_not_repeat_it() -> None:
    rates = {"pt-0": 0.1, "pt-1": 0.2, "pt-2": 0.2, "pt-3": 0.3}
    parents = {name: {"learning_rate": rates[name], "head_type": "linear"} for name in PARENTS}
    rows = [row | {"learning_rate": 1} for family in PARENTS for row in children(family, HEADS)]
    found = find(rows, "head_type", "learning_rate", parents=parents)
    assert counts(found) == {
        "head_type": 4,
        "parent": 2,  # pt-1 and pt-2
        "parent and pretraining_learning_rate, one initialisation": 2,
        "parent and pretraining_learning_rate": 2,
        "parent and pretraining_objective": 6,
    }
    assert found.factors[-1].nested_in == ("pretraining_objective",)


def test_parents_are_compared_as_families_of_one() -> None:
    rows = [
        {"id": name, "parent": None, "pretraining_objective": row["objective"], **row} for name, row in PARENTS.items()
    ]
    found = find(rows, "epochs", "objective")
    assert counts(found) == {"parent, one initialisation": 1, "parent": 2, "parent and pretraining_objective": 3}
    assert not found.in_common.any()


def test_unknown_values_are_left_out_and_said() -> None:
    cells = grid(head_type=["linear", "mlp"], optimizer=["adamw", "sgd"], batch_size=[8, 16])
    cells = [cell | {"warmup": None} for cell in cells]
    cells[0]["batch_size"] = None  # nothing else tells which member has null
    rows = [*children("pt-0", cells), *children("pt-2", cells)]
    found = find(rows, "head_type", "optimizer", "batch_size", "warmup")
    # Of 4 pairs of each factor in a family, one has the unknown member.
    assert counts(found) == {"head_type": 6, "optimizer": 6, "batch_size": 6, "parent": 7}
    assert found.left_out == {
        "warmup": "null for all members",
        "pt-0/ft-0": "batch_size is unknown, so it is in no pair",
        "pt-2/ft-0": "batch_size is unknown, so it is in no pair",
    }
    assert found.factors[2].values[0] is None
    nan = [row | {"batch_size": float("nan") if row["batch_size"] is None else row["batch_size"]} for row in rows]
    assert counts(find(nan, "head_type", "optimizer", "batch_size", "warmup")) == counts(found)


def test_unknown_pre_training_is_in_no_pair_across_families() -> None:
    rows = [row for family in PARENTS for row in children(family, HEADS)]
    rows = [row | {"pretraining_objective": None} if row["parent"] == "pt-2" else row for row in rows]
    found = find(rows, "head_type")
    assert counts(found) == {"head_type": 4, "parent, one initialisation": 2, "parent and pretraining_objective": 4}
    assert found.left_out == {"pt-2": "pretraining_objective is unknown, so it is in no pair across families"}


def test_members_that_all_have_an_unknown_value_are_in_no_pair() -> None:
    cells = [cell | {"batch_size": None, "warmup": 1} for cell in HEADS]
    others = [cell | {"batch_size": 8, "warmup": None} for cell in HEADS]
    found = find([*children("pt-0", cells), *children("pt-2", others)], "head_type", "batch_size", "warmup")
    assert found.contrasts == ()
    assert len(found.left_out) == 6  # four members and two families
    assert not found.in_common.any()


def test_members_without_a_pair_have_no_contrast() -> None:
    alone = find(children("pt-0", CELLS[:1]), *COLUMNS[:5])
    assert (alone.factors, alone.contrasts) == ((), ())
    assert not alone.in_common.any()
    # Two members that differ in two crossed factors, beside a third: no two agree in all but the optimizer.
    cells = [
        {"optimizer": "adamw", "head_type": "linear"},
        {"optimizer": "sgd", "head_type": "mlp"},
        {"optimizer": "adamw", "head_type": "mlp"},
    ]
    found = find([*children("pt-0", cells[:2]), *children("pt-2", cells[2:])], "optimizer", "head_type")
    assert [factor.columns for factor in found.factors] == [("optimizer", "head_type")]
    assert counts(found) == {"optimizer": 1}


def test_order_of_members_changes_no_pair() -> None:
    rows = [row for family in PARENTS for row in children(family, CELLS)]
    named = {
        contrast.name: {frozenset((rows[one]["id"], rows[two]["id"])) for one, two in contrast.pairs}
        for contrast in find(rows, *COLUMNS[:5]).contrasts
    }
    for turned in (rows[::-1], [*rows[7:], *rows[:7]]):
        again = find(turned, *COLUMNS[:5]).contrasts
        assert named == {
            contrast.name: {frozenset((turned[one]["id"], turned[two]["id"])) for one, two in contrast.pairs}
            for contrast in again
        }
    assert all(len(pair) == 2 for pairs in named.values() for pair in pairs)
    assert all(one.isdisjoint(two) for one, two in combinations(named.values(), 2))
