"""The guide to recipes: its files are recipes, its commands and its code run, its numbers are right."""

import re
from typing import get_args

import pytest

from tests.guides import GUIDES, print_guide
from training.cli.options import RecipeArgument
from training.recipes import RECIPES, load_recipe
from training.recipes.cost import estimate
from training.recipes.plan import plan_members
from training.recipes.retention import Retention

TEXT = (GUIDES / "recipes.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_guide_runs() -> None:
    printed = print_guide("recipes", {})
    assert re.findall(r"^\d+ members \(\d+ parents?", printed, flags=re.MULTILINE) == [
        "250 members (10 parents",
        "74 members (2 parents",  # 2 parents of 2 seeds x 3 heads x 6 optimizers
        "37 members (1 parent",
        "26 members (2 parents",
    ]
    assert "children.heads[1].width\n    256 (source: silent" in printed
    assert "68 hours, 134 GB" in printed
    assert "4.0 hours, 53 GB\n" in printed
    assert "# 4.0 hours, 53 GB" in TEXT
    assert "pre+ft 2" in printed
    assert "dataset::dump is ignored" in printed


def test_table_of_the_guide_names_every_recipe_and_its_size() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+ \+ \d+) \|", TEXT, flags=re.MULTILINE))
    assert list(rows) == list(RECIPES)
    for name, size in rows.items():
        planned = plan_members(load_recipe(name))
        parents = sum(member.id.is_parent for member in planned)
        assert size == f"{parents} + {len(planned) - parents}"


def test_help_names_every_recipe() -> None:
    _, argument = get_args(RecipeArgument)
    assert str(argument.help).partition(";")[0].split(", ") == list(RECIPES)


def test_numbers_of_the_guide_equal_the_plan() -> None:
    cost = estimate(plan_members(load_recipe("paper")), throughput=9_000, keep=Retention("every-10"))
    assert "# 68 hours, 134 GB" in TEXT
    assert (round(cost.hours or 0), round(cost.bytes / 1e9)) == (68, 134)
