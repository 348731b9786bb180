"""Verification's reading of a recipe is the trainer's."""

from dataclasses import replace

import pytest

from tests.tiny import tiny
from training.member.record import planned_fields
from training.member.step import learning_rate
from training.recipes.digits import digits
from training.recipes.paper import paper
from training.recipes.plan import plan_members
from training.recipes.recipe import Recipe
from training.recipes.snippets import snippets
from vitzoo.ids import MemberId
from vitzoo.records.json_files import as_json
from vitzoo.verification.plan import plan_member


@pytest.mark.parametrize("recipe", [tiny(), digits(), paper(), snippets()], ids=lambda recipe: recipe.name)
def test_every_member_is_planned_as_the_trainer_does(recipe: Recipe) -> None:
    plain = as_json(recipe)
    for planned in plan_members(recipe):
        plan = plan_member(plain, planned.id)
        own = {"n_train": planned.training.dataset.n_train, **as_json(planned_fields(planned))}
        assert plan.fields == {name: value for name, value in own.items() if name not in ("id", "num_parameters")}
        assert plan.outputs == planned.head.outputs
        for step in {0, 1, planned.training.steps // 2, planned.training.steps - 1}:
            assert plan.learning_rate(step) == learning_rate(planned.training, step)


def test_recipe_of_before_beta2_plans_its_default() -> None:
    plain = as_json(tiny())
    for optimizer in (
        *(parent["training"]["optimizer"] for parent in plain["parents"]),
        *plain["children"]["optimizers"],
    ):
        del optimizer["beta2"]
    for planned in plan_members(tiny()):
        assert plan_member(plain, planned.id).fields["beta2"] == planned_fields(planned)["beta2"] == 0.999


@pytest.mark.parametrize("member", ["pt-3", "pt-0/ft-4", "pt-1/ft-2"])
def test_member_beyond_the_recipe_has_no_plan(member: str) -> None:
    recipe = replace(tiny(), name="other")
    with pytest.raises((LookupError, ValueError)):
        plan_member(as_json(recipe), MemberId.parse(member))
