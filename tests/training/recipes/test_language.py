"""The populations of language models: their members, families, costs and what is left to be filled in."""

from collections import Counter

import pytest

from training.recipes import load_recipe, read_recipe
from training.recipes.cost import estimate
from training.recipes.language import Pins, bert_medium, language, language_as_released, pin
from training.recipes.plan import plan_members
from vitzoo.records.fields import FieldError

COMMIT, WEIGHTS, TOKENIZER = "a" * 40, "b" * 64, "c" * 64
PINS = Pins(
    commit=COMMIT,
    weights_sha256=WEIGHTS,
    tokenizer_sha256=TOKENIZER,
    train_rows={"Skylion007/openwebtext": 600_000, "nyu-mll/glue": 46_900},
)


def test_language_has_the_authors_forty_in_two_families() -> None:
    planned = plan_members(language())
    assert len(planned) == 40
    groups = Counter(member.init_group for member in planned)
    assert groups == {"google-bert/bert-base-cased@main": 30, "init-42": 10}
    parents = [member for member in planned if member.id.is_parent]
    grid = [(one.training.optimizer.learning_rate, one.training.optimizer.weight_decay) for one in parents]
    assert grid == [(rate, decay) for rate in (1e-4, 5e-5, 3e-5, 1e-4) for decay in (1e-4, 1e-2)]
    children = [member for member in planned if not member.id.is_parent]
    assert {member.head.widths for member in children} == {(512, 256)}
    assert len({member.training.optimizer for member in children}) == 4
    assert {member.num_parameters for member in parents} == {108_340_804}


def test_plan_says_that_continued_parents_are_one_family_and_what_is_missing() -> None:
    family, missing = read_recipe("language").notes
    assert family.startswith("pt-0, pt-1, pt-2, pt-3, pt-4, pt-5 start from google-bert/bert-base-cased")
    assert "24 children are one family" in family
    assert "commit and sha256 of google-bert/bert-base-cased" in missing
    assert read_recipe("bert_medium").notes == read_recipe("paper").notes == ()


def test_as_released_has_no_lineage() -> None:
    planned = plan_members(language_as_released())
    assert [member.training.objective for member in planned] == ["masked"] * 6 + ["supervised"] * 4
    assert all(member.start is not None and member.id.is_parent for member in planned)
    assert {member.training.schedule.name for member in planned} == {"constant"}


def test_bert_medium_has_ten_families() -> None:
    planned = plan_members(bert_medium())
    assert len(planned) == 250
    assert set(Counter(member.init_group for member in planned).values()) == {25}
    assert round(planned[0].num_parameters, -6) == 43_000_000


def test_costs_are_in_tokens() -> None:
    cost = estimate(plan_members(language()), throughput=500_000)
    assert 6 < (cost.groups["masked parents"].hours or 0) < 17
    assert round(cost.groups["masked parents"].bytes / 1e9) == 38
    assert round(cost.groups["children"].bytes / 1e9) == 84
    assert any("at 500,000 tokens/s" in line for line in cost.describe())


@pytest.mark.parametrize("name", ["language", "language_as_released", "bert_medium"])
def test_pins_fill_a_recipe(name: str) -> None:
    recipe = load_recipe(name)
    pinned = pin(recipe, PINS)
    assert len(plan_members(pinned)) == len(plan_members(recipe))
    for parent, before in zip(pinned.parents, recipe.parents, strict=True):
        assert parent.training.dataset.n_train in PINS.train_rows.values()
        assert (parent.start is None) == (before.start is None)
        assert parent.start is None or (parent.start.commit, parent.start.sha256) == (COMMIT, WEIGHTS)
        shares = [one.training.schedule.warmup_steps / one.training.steps for one in (parent, before)]
        assert shares[0] == pytest.approx(shares[1], abs=1e-4)
    tokenizer = pinned.tokenizer
    assert tokenizer is not None
    assert (tokenizer.commit, tokenizer.sha256) == ((COMMIT, TOKENIZER) if tokenizer.repo else (None, None))
    with pytest.raises(FieldError, match="train_rows"):
        pin(recipe, Pins(train_rows={"openwebtext": 5}))
