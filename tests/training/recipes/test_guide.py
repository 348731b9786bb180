"""The guide to recipes: its files are recipes, its commands and its code run, its figures are right."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from training.recipes import RECIPES, load_recipe
from training.recipes.cost import estimate
from training.recipes.plan import plan_members
from training.recipes.retention import Retention

TEXT = (ROOT / "docs/guides/recipes.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_the_guide_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    python = blocks("python")
    Path("my_zoo.py").write_text(next(block for block in python if "def recipe()" in block), encoding="utf-8")
    for name, block in zip(("pre.json", "ft.json"), blocks("json"), strict=True):
        Path(name).write_text(block, encoding="utf-8")
    said = []
    for command in "".join(blocks("bash")).splitlines():
        program, *arguments = command.split()
        assert program == "python"
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        said.append(done.stdout.splitlines()[-1])
    assert [line.split(",")[0] for line in said] == [
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


def test_the_table_names_every_recipe_and_its_size() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+ \+ \d+) \|", TEXT, flags=re.MULTILINE))
    assert list(rows) == list(RECIPES)
    for name, size in rows.items():
        planned = plan_members(load_recipe(name))
        parents = sum(member.id.is_parent for member in planned)
        assert size == f"{parents} + {len(planned) - parents}"


def test_the_figures_are_those_of_the_plan() -> None:
    cost = estimate(plan_members(load_recipe("paper")), images_per_second=9_000, keep=Retention("every-10"))
    assert "# 68 hours, 134 GB" in TEXT
    assert (round(cost.total.hours or 0), round(cost.total.bytes / 1e9)) == (68, 134)
