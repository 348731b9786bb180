"""The guide to recipes: its files are recipes, its commands and its code run, its numbers are right."""

import re
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from tests.conftest import ROOT
from training.__main__ import app
from training.cli.options import RecipeArgument
from training.recipes import RECIPES, load_recipe
from training.recipes.cost import estimate
from training.recipes.plan import plan_members
from training.recipes.retention import Retention

TEXT = (ROOT / "docs/guides/recipes.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    python = blocks("python")
    Path("my_zoo.py").write_text(next(block for block in python if "def recipe()" in block), encoding="utf-8")
    for name, block in zip(("pre.json", "ft.json"), blocks("json"), strict=True):
        Path(name).write_text(block, encoding="utf-8")
    summaries = []
    for command in "".join(blocks("bash")).splitlines():
        assert command.startswith("python -m training ")
        result = CliRunner().invoke(app, command.split()[3:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
        summaries.append(re.findall(r"^\d+ members \([^,]*", result.output, re.M)[0])
    assert summaries == [
        "250 members (10 parents",
        "74 members (2 parents",  # 2 parents of 2 seeds x 3 heads x 6 optimizers
        "37 members (1 parent",
        "26 members (2 parents",
    ]
    names: dict[str, object] = {}
    for block in python:
        exec(compile(block, "docs/guides/recipes.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "children.heads[1].width\n    256 (source: silent" in printed
    assert "68 hours, 134 GB" in printed
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
