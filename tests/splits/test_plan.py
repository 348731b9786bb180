"""Splits: deterministic, every declared group whole, sound ones without a leak, in any population and in real zoos."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from training.recipes.digits import digits
from training.recipes.plan import plan_members
from training.recipes.recipe import Recipe
from vitzoo import MemberId, Zoo
from vitzoo.errors import LeakError, SelectionError
from vitzoo.splits import plan
from vitzoo.splits.families import join_families
from vitzoo.splits.folds import Fold
from vitzoo.splits.leaks import assert_no_leaks
from vitzoo.splits.plan import STORED_FACTORS, plan_folds, plan_stored_folds
from vitzoo.splits.schemes import SCHEMES

Rows = list[dict[str, Any]]
SOUND = [name for name, scheme in SCHEMES.items() if scheme.sound]


def planned_rows(recipe: Recipe) -> tuple[Rows, Rows]:
    """The rows that a recipe will have, its weights named by what decides them."""
    members, epochs, last = [], [], {}
    for planned in plan_members(recipe):
        parent = planned.id.parent_id
        members.append(
            {
                "id": str(planned.id),
                "parent": None if parent is None else str(parent),
                "init_group": planned.init_group,
                "objective": planned.training.objective,
                "head_type": planned.head.type,
                "optimizer": planned.training.optimizer.name,
                "learning_rate": planned.training.optimizer.learning_rate,
                "replicate": planned.replicate,
            }
        )
        start = f"init {planned.seeds.init}" if parent is None else last[parent]
        last[planned.id] = f"{planned.id} trained"
        head = f"{planned.head} {planned.seeds.head}"
        epochs += [
            {"id": str(planned.id), "epoch": epoch, "weights_id": f"{backbone}, {head}", "backbone_id": backbone}
            for epoch, backbone in enumerate((start, last[planned.id]))
        ]
    return members, epochs


DIGITS = planned_rows(digits())


@st.composite
def populations(draw: st.DrawFn) -> tuple[Rows, Rows]:
    """Families of any size, some without their parent, some that share an init_group, a start, or odd weights."""
    members, epochs = [], []
    for parent in draw(st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True)):
        start = draw(st.sampled_from([f"own {parent}"] * 3 + ["a", "b"]))
        init_group = draw(st.sampled_from([f"init-{parent}"] * 3 + ["init-a", "init-b"]))
        objective = draw(st.sampled_from(["supervised", "contrastive"]))
        own = [None] if draw(st.integers(0, 3)) else []  # a parent may be gone
        for child in [*own, *draw(st.lists(st.integers(0, 99), max_size=3, unique=True))]:
            name = str(MemberId(parent, child))
            members.append(
                {
                    "id": name,
                    "parent": None if child is None else f"pt-{parent}",
                    "init_group": init_group,
                    "objective": objective if child is None else "supervised",
                    "head_type": draw(st.sampled_from(["linear", "mlp"])),
                    "optimizer": draw(st.sampled_from(["sgd", "adamw"])),
                    "learning_rate": draw(st.sampled_from([1e-3, 0.01, 0.1])),
                    "replicate": draw(st.integers(0, 2)),
                }
            )
            first = start if child is None else f"pt-{parent} last"
            for epoch, backbone in enumerate(
                (first, draw(st.sampled_from([f"{name} 1"] * 9 + ["odd"])), f"{name} last")
            ):
                epochs.append({"id": name, "epoch": epoch, "weights_id": f"{backbone} {name}", "backbone_id": backbone})
    return members, epochs


def plans(rows: tuple[Rows, Rows]) -> dict[tuple[str, str | None], list[Fold]]:
    """Every scheme and factor that the population is large enough for: not one fewer."""
    found = {}
    children = [row for row in rows[0] if row["parent"] is not None]
    families, init_groups = (join_families(*rows, by=by) for by in ("content", "init_group"))
    parted = {
        "by_parent": len(set(families.values())) > 1,
        "by_init_group": len(set(init_groups.values())) > 1,
        "leave_one_parent_out": len(set(families.values())) > 1,
        "random_members": len(rows[0]) > 1,
        "by_seed": len({row["replicate"] for row in children}) > 1,
    }
    for scheme in SCHEMES:
        for factor in STORED_FACTORS if scheme == "leave_one_factor_out" else (None,):
            try:
                found[scheme, factor] = plan_folds(scheme, *rows, factor=factor)
            except SelectionError:
                assert not parted.get(scheme)
                assert factor is None or not separates(rows, factor, families)
    return found


def separates(rows: tuple[Rows, Rows], factor: str, families: dict[str, str]) -> bool:
    """Whether two children of different families have different values of a factor, wherever shares fall."""
    of = {row["id"]: row for row in rows[0]}
    if factor == "objective":
        known = {name: of[row["parent"]][factor] for name, row in of.items() if row["parent"] in of}
    else:
        known = {name: row[factor] for name, row in of.items() if row["parent"] is not None}
    whole = all(len({known[name] for name in known if families[name] == family}) < 2 for family in families.values())
    return whole and len(set(known.values())) > 1


def sides(fold: Fold, names: Sequence[str]) -> set[str]:
    return {fold.parts[name] for name in names if name in fold.parts}


class TestAnyPopulation:
    """Whatever families, seeds and factors there are."""

    @settings(max_examples=40)
    @given(populations(), st.randoms(use_true_random=False))
    def test_the_order_of_rows_changes_nothing(self, rows: tuple[Rows, Rows], random: Any) -> None:
        shuffled = tuple(random.sample(table, len(table)) for table in rows)
        assert plans((shuffled[0], shuffled[1])) == plans(rows)
        assert join_families(*shuffled) == join_families(*rows)
        for fold in plan_stored_folds(*shuffled):
            assert list(fold.parts) == sorted(fold.parts, key=MemberId.parse)

    @settings(max_examples=40)
    @given(populations())
    def test_declared_groups_are_whole(self, rows: tuple[Rows, Rows]) -> None:
        members, epochs = rows
        for (scheme, _), folds in plans(rows).items():
            for fold in folds:
                assert {part for part, ids in fold.by_part().items() if ids} >= {"train", "test"}
                assert set(fold.groups) == set(fold.families) == {row["id"] for row in members}
                for group in set(fold.groups.values()):
                    assert len(sides(fold, [name for name, its in fold.groups.items() if its == group])) <= 1
                if scheme == "by_init_group":
                    for init in {row["init_group"] for row in members}:
                        assert len(sides(fold, [row["id"] for row in members if row["init_group"] == init])) == 1
                if SCHEMES[scheme].sound:
                    for row in members:
                        assert len(sides(fold, [row["id"], row["parent"] or row["id"]])) <= 1
                    for column in ("weights_id", "backbone_id"):
                        for value in {row[column] for row in epochs}:
                            assert len(sides(fold, [row["id"] for row in epochs if row[column] == value])) <= 1
                    assert_no_leaks(fold, members=members, epochs=epochs)

    @settings(max_examples=40)
    @given(populations())
    def test_every_member_is_tested_once(self, rows: tuple[Rows, Rows]) -> None:
        ids = {row["id"] for row in rows[0]}
        for (scheme, factor), folds in plans(rows).items():
            tested = [name for fold in folds for name in fold.ids("test")]
            assert len(tested) == len(set(tested)), (scheme, factor)
            if scheme in ("by_parent", "by_init_group", "leave_one_parent_out", "random_members"):
                assert set(tested) == ids
                assert all(set(fold.parts) == ids for fold in folds)

    @settings(max_examples=40)
    @given(populations())
    def test_a_factor_that_is_left_out_is_in_test_alone(self, rows: tuple[Rows, Rows]) -> None:
        of = {row["id"]: row for row in rows[0]}
        for (_, factor), folds in plans(rows).items():
            if factor is None:
                continue
            for fold in folds:
                left_out = fold.name.partition("/")[0]
                for name, part in fold.parts.items():
                    row = of[name] if factor != "objective" else of[of[name]["parent"] or name]  # which is there
                    assert (f"{factor}={row[factor]}" == left_out) == (part == "test")

    @settings(max_examples=40)
    @given(populations())
    def test_a_line_is_one_family(self, rows: tuple[Rows, Rows]) -> None:
        """With its parent or without it."""
        for by in ("parent", "content", "init_group"):
            families = join_families(*rows, by=by)
            lines = {(row["parent"] or row["id"], families[row["id"]]) for row in rows[0]}
            assert len(lines) == len(dict(lines))

    @settings(max_examples=40)
    @given(populations(), st.integers(2, 7), st.integers(0, 9))
    def test_the_number_of_folds(self, rows: tuple[Rows, Rows], folds: int, seed: int) -> None:
        groups = len(set(join_families(*rows).values()))
        assume(groups > 1)
        planned = plan_folds("by_parent", *rows, folds=folds, seed=seed)
        assert [fold.name for fold in planned] == [str(i) for i in range(min(folds, groups))]
        for fold in planned:
            assert list(fold.by_part()) == (["train", "val", "test"] if len(planned) > 2 else ["train", "test"])
        for one, other in zip(planned, [*planned[1:], planned[0]], strict=True):
            assert len(planned) == 2 or one.ids("val") == other.ids("test")


class TestDigits:
    """The recipe that everybody trains, by its plan alone."""

    def test_families(self) -> None:
        members, epochs = DIGITS
        families = join_families(members, epochs)
        assert len(families) == 141
        assert list(dict.fromkeys(families.values())) == [f"pt-{i}" for i in range(13) if i != 1]
        assert families["pt-1"] == families["pt-1/ft-3"] == "pt-0"  # one initialisation: epoch 0 is the same
        assert len(set(join_families(members, epochs, by="parent").values())) == 13
        assert join_families(members, epochs, by="init_group") == families

    def test_an_init_group_joins_what_shares_no_weights(self) -> None:
        rows = [{"id": f"pt-{i}", "parent": None, "init_group": f"init-{i // 2}"} for i in range(4)]
        assert list(join_families(rows, []).values()) == ["pt-0", "pt-1", "pt-2", "pt-3"]
        assert list(join_families(rows, [], by="init_group").values()) == ["pt-0", "pt-0", "pt-2", "pt-2"]
        assert list(join_families(rows[1:3], [], by="init_group").values()) == ["pt-1", "pt-2"]

    def test_siblings_are_kin_where_the_parent_is_gone(self) -> None:
        members = [row for row in DIGITS[0] if row["id"] != "pt-3"]
        assert {family for name, family in join_families(members, []).items() if "pt-3" in name} == {"pt-3/ft-0"}

    def test_objectives_are_spread(self) -> None:
        for scheme in ("by_parent", "by_init_group"):
            for fold in plan_folds(scheme, *DIGITS):
                assert {name for name in fold.ids("train") if name in ("pt-10", "pt-11", "pt-12")}
                assert len({fold.families[name] for name in fold.ids("test")}) in (2, 3)

    def test_leave_one_parent_out(self) -> None:
        folds = plan_folds("leave_one_parent_out", *DIGITS)
        assert [fold.name for fold in folds] == [f"pt-{i}" for i in range(13) if i != 1]
        assert [len(fold.ids("test")) for fold in folds] == [34, *[9] * 8, 17, 9, 9]
        assert all(len(fold.parts) == 141 and not fold.ids("val") for fold in folds)

    def test_leave_one_factor_out(self) -> None:
        folds = plan_folds("leave_one_factor_out", *DIGITS, factor="optimizer")
        assert [fold.name for fold in folds] == [f"optimizer={name}/{i}" for name in ("adamw", "sgd") for i in range(5)]
        by_parent = {fold.name: set(fold.ids("test")) for fold in plan_folds("by_parent", *DIGITS)}
        of = {row["id"]: row for row in DIGITS[0]}
        for fold in folds:
            tested = by_parent[fold.name[-1]]
            value = fold.name[10:-2]
            assert set(fold.ids("test")) == {name for name in tested if of[name]["optimizer"] == value}
            assert set(fold.ids("train")) == {
                name for name in of if name not in tested and of[name]["optimizer"] != value
            }
        rates = plan_folds("leave_one_factor_out", *DIGITS, factor="learning_rate")
        assert [fold.name.partition("/")[0] for fold in rates[::5]] == [
            f"learning_rate={rate}" for rate in ("0.001", "0.003", "0.005", "0.02")
        ]

    @pytest.mark.parametrize("column", ["objective", "pretraining_objective"])
    def test_the_objective_is_that_of_the_pre_training(self, column: str) -> None:
        members, epochs = DIGITS
        if column == "pretraining_objective":
            of = {row["id"]: row["objective"] for row in members}
            members = [row | {column: of[row["parent"] or row["id"]]} for row in members]
        contrastive, supervised = plan_folds("leave_one_factor_out", members, epochs, factor=column)
        assert (contrastive.name, supervised.name) == (f"{column}=contrastive", f"{column}=supervised")
        assert contrastive.ids("test") == supervised.ids("train")
        assert {MemberId.parse(name).parent for name in contrastive.ids("test")} == {10, 11, 12}
        assert len(contrastive.parts) == len(supervised.parts) == 141

    def test_an_objective_that_is_not_known(self) -> None:
        """Children of a parent that is gone are in no part where it is asked for, and no value of their own."""
        gone = ("pt-0", "pt-3", "pt-11")
        members = [row for row in DIGITS[0] if row["id"] not in gone]
        epochs = [row for row in DIGITS[1] if row["id"] not in gone]
        contrastive, supervised = plan_folds("leave_one_factor_out", members, epochs, factor="objective")
        assert (contrastive.name, supervised.name) == ("objective=contrastive", "objective=supervised")
        tested = {part: {MemberId.parse(name).parent for name in contrastive.ids(part)} for part in ("test", "train")}
        assert tested == {"test": {10, 12}, "train": {1, 2, 4, 5, 6, 7, 8, 9}}
        assert contrastive.by_part() == {"train": supervised.ids("test"), "test": supervised.ids("train")}
        recorded = [row | {"pretraining_objective": "supervised" if "pt-3" in row["id"] else None} for row in members]
        known = plan_folds("leave_one_factor_out", recorded, epochs, factor="objective")[0]
        assert set(known.ids("train")) - set(contrastive.ids("train")) == {f"pt-3/ft-{i}" for i in range(8)}
        assert {fold.name for fold in plan_folds("by_parent", members, epochs)} == set("01234")

    def test_a_parent_never_brings_what_is_left_out(self) -> None:
        """Families of one optimizer each: no crossing; a parent with the other one is in no part."""
        members = [
            {"id": f"pt-{i}{child}", "parent": f"pt-{i}" if child else None, "objective": "supervised"}
            | {"init_group": f"init-{i}", "optimizer": "sgd" if child and i < 2 else "adamw"}
            for i in range(4)
            for child in ("", "/ft-0")
        ]
        adamw, sgd = plan_folds("leave_one_factor_out", members, [], factor="optimizer")
        assert sgd.by_part() == {
            "train": ["pt-2", "pt-2/ft-0", "pt-3", "pt-3/ft-0"],
            "test": ["pt-0/ft-0", "pt-1/ft-0"],
        }
        assert adamw.by_part() == {"train": sgd.ids("test"), "test": sgd.ids("train")}

    def test_diagnostic_schemes_leak(self) -> None:
        for scheme, kept in {"random_members": "members", "by_seed": "replicates"}.items():
            assert not SCHEMES[scheme].sound
            assert kept in SCHEMES[scheme].keeps_whole
            for fold in plan_folds(scheme, *DIGITS):
                with pytest.raises(LeakError):
                    assert_no_leaks(fold, members=DIGITS[0], epochs=DIGITS[1])

    def test_by_seed(self) -> None:
        first, second = plan_folds("by_seed", *DIGITS)
        assert (first.name, second.name) == ("replicate=0", "replicate=1")
        assert (len(first.ids("test")), len(second.ids("test"))) == (104, 24)
        assert {name for name in first.ids("train") if "/" not in name} == {f"pt-{i}" for i in range(13)}

    def test_another_seed_is_another_division(self) -> None:
        assert plan_folds("by_parent", *DIGITS) == plan_folds("by_parent", *DIGITS, seed=0)
        tests = {str(plan_folds("by_parent", *DIGITS, seed=seed)[0].ids("test")) for seed in range(20)}
        assert len(tests) > 10

    def test_the_shares_are_frozen(self) -> None:
        """What is stored follows from the format: other shares would make every published zoo another one."""
        tested = [
            sorted({fold.families[name] for name in fold.ids("test")}, key=MemberId.parse)
            for fold in plan_folds("by_parent", *DIGITS)
        ]
        assert tested == [
            ["pt-3", "pt-8", "pt-12"],
            ["pt-0", "pt-4", "pt-11"],
            ["pt-9", "pt-10"],
            ["pt-2", "pt-5"],
            ["pt-6", "pt-7"],
        ]


class TestRequests:
    """What cannot be split, or not so."""

    @pytest.mark.parametrize(
        ("scheme", "options", "message"),
        [
            ("by_parents", {}, r'"by_parents" is no scheme of splits: expected one of by_parent, .*Nearest: by_parent'),
            ("by_parent", {"folds": 1}, "folds is 1; expected a whole number from 2"),
            ("by_parent", {"folds": True}, "folds is True; expected a whole number from 2"),
            ("by_parent", {"factor": "optimizer"}, 'factor="optimizer" has no meaning for by_parent: leave it out'),
            (
                "leave_one_factor_out",
                {},
                "factor is not given: expected one of head_type, optimizer, learning_rate, obj",
            ),
            ("leave_one_factor_out", {"factor": "optimiser"}, '"optimiser" is no factor: .* Nearest: optimizer'),
            *(
                (
                    "leave_one_factor_out",
                    {"factor": name},
                    f'"{name}" is no factor: expected one of head_type, .*compile',
                )
                for name in ("id", "gap", "final_test_accuracy")
            ),
            ("leave_one_factor_out", {"factor": "mixup"}, "its children have 1 values of mixup; expected 2 or more"),
        ],
    )
    def test_refused(self, scheme: str, options: dict[str, Any], message: str) -> None:
        members = [row | {"mixup": 0.0, "gap": 0.1, "final_test_accuracy": 0.5} for row in DIGITS[0]]
        with pytest.raises(SelectionError, match=message):
            plan_folds(scheme, members, DIGITS[1], **options)

    @pytest.mark.parametrize("folds", ["5", 2.5, None])
    def test_a_number_of_folds_that_is_none(self, folds: Any) -> None:
        """Outside of the tests nothing checks types."""
        check = getattr(plan, "_check_folds")  # noqa: B009
        with pytest.raises(SelectionError, match=f"folds is {folds!r}; expected a whole number from 2"):
            check(folds)

    @pytest.mark.parametrize("scheme", SOUND)
    def test_one_family(self, scheme: str) -> None:
        members = [row for row in DIGITS[0] if row["id"].startswith(("pt-0", "pt-1/", "pt-1"))][:34]
        members = [row for row in members if MemberId.parse(row["id"]).parent in (0, 1)]
        factor = "optimizer" if scheme == "leave_one_factor_out" else None
        with pytest.raises(
            SelectionError, match=f"This zoo cannot be split by {scheme}: .* expected 2 or more"
        ) as raised:
            plan_folds(scheme, members, DIGITS[1], factor=factor)
        assert raised.value.value == scheme  # type: ignore[attr-defined]
        assert {fold.scheme for fold in plan_stored_folds(members, DIGITS[1])} <= {"random_members", "by_seed"}

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_nobody(self, scheme: str) -> None:
        with pytest.raises(SelectionError):
            plan_folds(scheme, [], [], factor="optimizer" if scheme == "leave_one_factor_out" else None)
        assert plan_stored_folds([], []) == []

    def test_parents_alone(self) -> None:
        members = [row for row in DIGITS[0] if row["parent"] is None]
        assert {fold.scheme for fold in plan_stored_folds(members, [])} == {
            "by_parent",
            "by_init_group",
            "leave_one_parent_out",
            "random_members",
        }

    def test_a_fold_of_an_unknown_part(self) -> None:
        fold = plan_folds("by_parent", *DIGITS)[0]
        with pytest.raises(SelectionError, match=r'"tests" is no part of a fold: .* Nearest: test'):
            fold.ids("tests")

    def test_what_would_be_too_long_is_not_stored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plan, "_MOST_ROWS", 141 * 12 - 1)
        assert "leave_one_parent_out" not in {fold.scheme for fold in plan_stored_folds(*DIGITS)}
        monkeypatch.setattr(plan, "_MOST_ROWS", 141 * 12)
        assert "leave_one_parent_out" in {fold.scheme for fold in plan_stored_folds(*DIGITS)}


class TestZoo:
    """Of real members."""

    def test_splits(self, tiny_zoo: Path) -> None:
        """pt-0 and pt-1 start from one initialisation: two families are left."""
        zoo = Zoo(tiny_zoo)
        one, other = zoo.splits("by_parent")
        assert {tuple(sorted({fold.families[name] for name in fold.ids("test")})) for fold in (one, other)} == {
            ("pt-0",),
            ("pt-2",),
        }
        assert one.ids("train") == other.ids("test")
        assert len(one.parts) == 11
        for scheme in SOUND:
            factor = "objective" if scheme == "leave_one_factor_out" else None
            for fold in zoo.splits(scheme, factor=factor):
                zoo.assert_no_leaks(fold, init_groups="apart")
        for fold in zoo.splits("random_members"):
            with pytest.raises(LeakError):
                zoo.assert_no_leaks(fold)
        assert [fold.name for fold in zoo.splits("leave_one_factor_out", factor="head_width", folds=9)] == [
            f"head_width={width}/{share}" for width in ("8", "null") for share in (0, 1)
        ]

    def test_the_table_loads(self, tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets-cache"))
        rows = load_dataset(str(tiny_zoo / "metadata"), "splits")["train"].to_list()
        zoo = Zoo(tiny_zoo)
        assert list(dict.fromkeys(row["scheme"] for row in rows)) == list(SCHEMES)
        for scheme in SCHEMES:
            factors = ("head_type", "objective") if scheme == "leave_one_factor_out" else (None,)
            expected = [
                (fold.name, name, part)
                for factor in factors
                for fold in zoo.splits(scheme, factor=factor)
                for name, part in fold.parts.items()
            ]
            assert [(row["fold"], row["id"], row["part"]) for row in rows if row["scheme"] == scheme] == expected

    def test_a_selection_in_parts(self, tiny_zoo: Path) -> None:
        zoo = Zoo(tiny_zoo)
        chosen = zoo.select(head_type="mlp", epoch="all")
        for fold in zoo.splits("by_parent"):
            parts = fold.of(chosen)
            assert list(parts) == ["train", "test"]
            for part, its in parts.items():
                assert [ref for ref in chosen if fold.parts[str(ref.member)] == part] == list(its)
            assert sum(map(len, parts.values())) == len(chosen) == 4 * 3
            zoo.assert_no_leaks(parts)
        fold = zoo.splits("leave_one_factor_out", factor="head_type")[0]
        assert fold.of(chosen[:0]) == {"train": chosen[:0], "test": chosen[:0]}
        strange = replace(fold, groups={name: name for name in fold.groups if name != "pt-0/ft-3"})
        with pytest.raises(SelectionError, match=r"pt-0/ft-3 is none of the 10 members that fold .* Split the zoo"):
            strange.of(chosen)

    def test_folds_are_values(self) -> None:
        fold = plan_folds("by_parent", *DIGITS)[0]
        assert replace(fold) == fold
        assert fold != replace(fold, name="1")
