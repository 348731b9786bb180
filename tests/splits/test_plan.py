"""Splits: deterministic, with whole groups, and without leaks in sound schemes, for any population and real zoos."""

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
from vitzoo.splits.folds import Fold
from vitzoo.splits.leaks import assert_no_leaks, join_families
from vitzoo.splits.plan import STORED_FACTORS, plan_folds, plan_stored_folds
from vitzoo.splits.schemes import SCHEMES

Rows = list[dict[str, Any]]
SOUND = [name for name, scheme in SCHEMES.items() if scheme.sound]


def planned_rows(recipe: Recipe) -> tuple[Rows, Rows]:
    """Return the rows that a recipe will have, with digests that name the origin of the weights."""
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
    """Draw families of any size, some without their parent, some with a common init_group, start, or odd weights."""
    members, epochs = [], []
    for parent in draw(st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True)):
        start = draw(st.sampled_from([f"own {parent}"] * 3 + ["a", "b"]))
        init_group = draw(st.sampled_from([f"init-{parent}"] * 3 + ["init-a", "init-b"]))
        objective = draw(st.sampled_from(["supervised", "contrastive"]))
        own = [None] if draw(st.integers(0, 3)) else []  # the zoo may lack a parent
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
    """Plan every scheme and factor, and check that only populations that are too small are refused."""
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
    """Return whether two children of different families have different values of a factor, for any shares."""
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
    """Any families, seeds and factors."""

    @settings(max_examples=25)
    @given(populations(), st.randoms(use_true_random=False))
    def test_folds_ignore_the_order_of_rows(self, rows: tuple[Rows, Rows], random: Any) -> None:
        shuffled = tuple(random.sample(table, len(table)) for table in rows)
        assert plans((shuffled[0], shuffled[1])) == plans(rows)
        assert join_families(*shuffled) == join_families(*rows)
        for fold in plan_stored_folds(*shuffled):
            assert list(fold.parts) == sorted(fold.parts, key=MemberId.parse)

    @settings(max_examples=40)
    @given(populations())
    def test_groups_are_whole_and_members_tested_once(self, rows: tuple[Rows, Rows]) -> None:
        members, epochs = rows
        ids = {row["id"] for row in members}
        for (scheme, factor), folds in plans(rows).items():
            tested = [name for fold in folds for name in fold.ids("test")]
            assert len(tested) == len(set(tested)), (scheme, factor)
            if scheme in ("by_parent", "by_init_group", "leave_one_parent_out", "random_members"):
                assert set(tested) == ids
                assert all(set(fold.parts) == ids for fold in folds)
            for fold in folds:
                assert {part for part, names in fold.by_part().items() if names} >= {"train", "test"}
                assert set(fold.groups) == set(fold.families) == ids
                for group in set(fold.groups.values()):
                    assert len(sides(fold, [name for name, own in fold.groups.items() if own == group])) <= 1
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

    @settings(max_examples=50)
    @given(populations(), st.integers(2, 4))
    def test_inner_folds_keep_families_and_stay_in_train(self, rows: tuple[Rows, Rows], folds: int) -> None:
        for (scheme, _), planned in plans(rows).items():
            for fold in planned:
                train = fold.ids("train")
                whole = fold.groups if scheme == "by_init_group" else fold.families
                if len({whole[member] for member in train}) < folds:
                    with pytest.raises(SelectionError):
                        fold.inner(folds)
                    continue
                inner = fold.inner(folds)
                assert len(inner) == folds
                assert sorted(member for item in inner for member in item.ids("val")) == sorted(train)
                for item in inner:
                    assert item.scheme == scheme
                    assert list(item.parts) == train
                    assert_no_leaks(item, members=rows[0], epochs=rows[1])

    @settings(max_examples=40)
    @given(populations())
    def test_left_out_value_is_in_test_alone(self, rows: tuple[Rows, Rows]) -> None:
        of = {row["id"]: row for row in rows[0]}
        for (_, factor), folds in plans(rows).items():
            if factor is None:
                continue
            for fold in folds:
                left_out = fold.name.partition("/")[0]
                for name, part in fold.parts.items():
                    row = of[name] if factor != "objective" else of[of[name]["parent"] or name]  # which exists
                    assert (f"{factor}={row[factor]}" == left_out) == (part == "test")

    @settings(max_examples=25)
    @given(populations(), st.integers(2, 7), st.integers(0, 9))
    def test_number_of_folds_is_at_most_that_of_groups(self, rows: tuple[Rows, Rows], folds: int, seed: int) -> None:
        groups = len(set(join_families(*rows).values()))
        assume(groups > 1)
        planned = plan_folds("by_parent", *rows, folds=folds, seed=seed)
        assert [fold.name for fold in planned] == [str(i) for i in range(min(folds, groups))]
        for fold in planned:
            assert list(fold.by_part()) == (["train", "val", "test"] if len(planned) > 2 else ["train", "test"])
        for fold, after in zip(planned, [*planned[1:], planned[0]], strict=True):
            assert len(planned) == 2 or fold.ids("val") == after.ids("test")


class TestDigits:
    """The digits recipe, by its plan alone."""

    def test_families_share_initialisations(self) -> None:
        members, epochs = DIGITS
        families = join_families(members, epochs)
        assert len(families) == 141
        assert list(dict.fromkeys(families.values())) == [f"pt-{i}" for i in range(13) if i != 1]
        assert families["pt-1"] == families["pt-1/ft-3"] == "pt-0"  # one initialisation: epoch 0 is the same
        assert join_families(members, epochs, by="init_group") == families

    def test_init_group_joins_members_without_common_weights(self) -> None:
        rows = [{"id": f"pt-{i}", "parent": None, "init_group": f"init-{i // 2}"} for i in range(4)]
        assert list(join_families(rows, []).values()) == ["pt-0", "pt-1", "pt-2", "pt-3"]
        assert list(join_families(rows, [], by="init_group").values()) == ["pt-0", "pt-0", "pt-2", "pt-2"]
        assert list(join_families(rows[1:3], [], by="init_group").values()) == ["pt-1", "pt-2"]

    def test_siblings_without_their_parent_are_one_family(self) -> None:
        members = [row for row in DIGITS[0] if row["id"] != "pt-3"]
        assert {family for name, family in join_families(members, []).items() if "pt-3" in name} == {"pt-3/ft-0"}

    def test_objectives_are_spread_over_shares(self) -> None:
        for scheme in ("by_parent", "by_init_group"):
            for fold in plan_folds(scheme, *DIGITS):
                assert {name for name in fold.ids("train") if name in ("pt-10", "pt-11", "pt-12")}
                assert len({fold.families[name] for name in fold.ids("test")}) in (2, 3)

    def test_leave_one_parent_out_tests_each_family(self) -> None:
        folds = plan_folds("leave_one_parent_out", *DIGITS)
        assert [fold.name for fold in folds] == [f"pt-{i}" for i in range(13) if i != 1]
        assert [len(fold.ids("test")) for fold in folds] == [34, *[9] * 8, 17, 9, 9]
        assert all(len(fold.parts) == 141 and not fold.ids("val") for fold in folds)

    def test_inner_folds_spread_families_and_objectives(self) -> None:
        fold = plan_folds("leave_one_parent_out", *DIGITS)[3]
        inner = fold.inner()
        assert [item.name for item in inner] == ["pt-4/inner-0", "pt-4/inner-1", "pt-4/inner-2"]
        tested = [list(dict.fromkeys(item.families[name] for name in item.ids("val"))) for item in inner]
        assert tested == [
            ["pt-0", "pt-5", "pt-8", "pt-11"],
            ["pt-2", "pt-6", "pt-9", "pt-12"],
            ["pt-3", "pt-7", "pt-10"],
        ]
        assert inner[0].inner(2)[1].ids("val")[0] == "pt-3"
        assert "pt-4" not in inner[0].parts

    def test_inner_folds_keep_init_groups(self) -> None:
        """Every two neighbours share an init_group but no weights."""
        ids = [f"pt-{number}" for number in range(8)]
        members = [
            {"id": name, "parent": None, "init_group": f"group-{number // 2}", "objective": "supervised"}
            for number, name in enumerate(ids)
        ]
        by_group, by_parent = (
            plan_folds(scheme, members, [], folds=2)[0].inner(2) for scheme in ("by_init_group", "by_parent")
        )
        for item in by_group:
            assert_no_leaks(item, members=members, epochs=[], init_groups="apart")
        assert [len(item.ids("val")) for item in (*by_group, *by_parent)] == [2, 2, 2, 2]

    @pytest.mark.parametrize("folds", [-1, 0, 1, 12])
    def test_number_of_inner_folds_is_at_most_that_of_families(self, folds: int) -> None:
        with pytest.raises(SelectionError) as raised:
            plan_folds("leave_one_parent_out", *DIGITS)[0].inner(folds)
        assert raised.value.value == folds

    def test_leave_one_factor_out_crosses_values_with_families(self) -> None:
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
    def test_objective_means_the_pre_training_s(self, column: str) -> None:
        members, epochs = DIGITS
        if column == "pretraining_objective":
            of = {row["id"]: row["objective"] for row in members}
            members = [row | {column: of[row["parent"] or row["id"]]} for row in members]
        contrastive, supervised = plan_folds("leave_one_factor_out", members, epochs, factor=column)
        assert (contrastive.name, supervised.name) == (f"{column}=contrastive", f"{column}=supervised")
        assert contrastive.ids("test") == supervised.ids("train")
        assert {MemberId.parse(name).parent for name in contrastive.ids("test")} == {10, 11, 12}
        assert len(contrastive.parts) == len(supervised.parts) == 141

    def test_children_of_unknown_objective_are_in_no_part(self) -> None:
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

    def test_parent_with_the_left_out_value_is_in_no_part(self) -> None:
        """Families of one optimizer each are not crossed with shares."""
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

    def test_by_seed_tests_each_replicate(self) -> None:
        first, second = plan_folds("by_seed", *DIGITS)
        assert (first.name, second.name) == ("replicate=0", "replicate=1")
        assert (len(first.ids("test")), len(second.ids("test"))) == (104, 24)
        assert {name for name in first.ids("train") if "/" not in name} == {f"pt-{i}" for i in range(13)}

    def test_seed_changes_the_division(self) -> None:
        assert plan_folds("by_parent", *DIGITS) == plan_folds("by_parent", *DIGITS, seed=0)
        tests = {str(plan_folds("by_parent", *DIGITS, seed=seed)[0].ids("test")) for seed in range(20)}
        assert len(tests) > 10

    def test_shares_are_frozen(self) -> None:
        """Other shares would change the stored table of every published zoo."""
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
    """Requests that are refused."""

    @pytest.mark.parametrize(
        ("scheme", "options", "value"),
        [
            ("by_parents", {}, "by_parents"),
            ("by_parent", {"folds": 1}, 1),
            ("by_parent", {"factor": "optimizer"}, "optimizer"),
            ("leave_one_factor_out", {}, None),
            ("leave_one_factor_out", {"factor": "optimiser"}, "optimiser"),
            ("leave_one_factor_out", {"factor": "gap"}, "gap"),
            ("leave_one_factor_out", {"factor": "mixup"}, "leave_one_factor_out"),  # which has one value
        ],
    )
    def test_unknown_scheme_factor_or_number_is_refused(self, scheme: str, options: Any, value: object) -> None:
        members = [row | {"mixup": 0.0, "gap": 0.1} for row in DIGITS[0]]
        with pytest.raises(SelectionError) as raised:
            plan_folds(scheme, members, DIGITS[1], **options)
        assert raised.value.value == value
        assert raised.value.expected or raised.value.fix

    @pytest.mark.parametrize("scheme", SOUND)
    def test_one_family_is_refused(self, scheme: str) -> None:
        members = [row for row in DIGITS[0] if MemberId.parse(row["id"]).parent in (0, 1)]
        factor = "optimizer" if scheme == "leave_one_factor_out" else None
        with pytest.raises(SelectionError) as raised:
            plan_folds(scheme, members, DIGITS[1], factor=factor)
        assert (raised.value.value, raised.value.expected) == (scheme, "2 or more")
        assert {fold.scheme for fold in plan_stored_folds(members, DIGITS[1])} <= {"random_members", "by_seed"}

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_zoo_without_members_is_refused(self, scheme: str) -> None:
        with pytest.raises(SelectionError):
            plan_folds(scheme, [], [], factor="optimizer" if scheme == "leave_one_factor_out" else None)
        assert plan_stored_folds([], []) == []

    def test_parents_without_children_have_no_folds_of_factors(self) -> None:
        members = [row for row in DIGITS[0] if row["parent"] is None]
        assert {fold.scheme for fold in plan_stored_folds(members, [])} == {
            "by_parent",
            "by_init_group",
            "leave_one_parent_out",
            "random_members",
        }

    def test_unknown_part_is_refused(self) -> None:
        with pytest.raises(SelectionError) as raised:
            plan_folds("by_parent", *DIGITS)[0].ids("tests")
        assert (raised.value.value, raised.value.fix) == ("tests", "Nearest: test.")

    def test_scheme_with_too_many_rows_is_not_stored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plan, "_MOST_ROWS", 141 * 12 - 1)
        assert "leave_one_parent_out" not in {fold.scheme for fold in plan_stored_folds(*DIGITS)}
        monkeypatch.setattr(plan, "_MOST_ROWS", 141 * 12)
        assert "leave_one_parent_out" in {fold.scheme for fold in plan_stored_folds(*DIGITS)}


class TestZoo:
    """Real members."""

    def test_splits_have_no_leaks(self, tiny_zoo: Path) -> None:
        """pt-0 and pt-1 start from one initialisation, so there are two families."""
        zoo = Zoo(tiny_zoo)
        first, second = zoo.splits("by_parent")
        tested = [{fold.families[name] for name in fold.ids("test")} for fold in (first, second)]
        assert tested in ([{"pt-0"}, {"pt-2"}], [{"pt-2"}, {"pt-0"}])
        assert first.ids("train") == second.ids("test")
        assert len(first.parts) == 11
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

    def test_stored_table_has_the_default_folds(
        self, tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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

    def test_fold_divides_a_selection(self, tiny_zoo: Path) -> None:
        zoo = Zoo(tiny_zoo)
        chosen = zoo.select(head_type="mlp", epoch="all")
        for fold in zoo.splits("by_parent"):
            parts = fold.of(chosen)
            assert list(parts) == ["train", "test"]
            for part, checkpoints in parts.items():
                assert [ref for ref in chosen if fold.parts[str(ref.member)] == part] == list(checkpoints)
            assert sum(map(len, parts.values())) == len(chosen) == 4 * 3
            zoo.assert_no_leaks(parts)
        fold = zoo.splits("leave_one_factor_out", factor="head_type")[0]
        assert fold.of(chosen[:0]) == {"train": chosen[:0], "test": chosen[:0]}
        strange = replace(fold, groups={name: name for name in fold.groups if name != "pt-0/ft-3"})
        with pytest.raises(SelectionError) as raised:
            strange.of(chosen)
        assert raised.value.value == "pt-0/ft-3"
