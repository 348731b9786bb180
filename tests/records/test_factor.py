"""Adding a factor: the three edits that CONTRIBUTING names, made in a copy of the code, and everything that follows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

# file, the line before the new one, and the new line
EDITS = [
    (
        "vitzoo/records/members.py",  # the declaration
        "    weights: tuple[WeightsRecord, ...]",
        '    layer_drop: Annotated[Probability, column("Probability, 0 to 1.", factor=True)] = 0.0',
    ),
    (
        "training/recipes/training.py",
        "    clip_norm: Positive | None = None",
        "    layer_drop: float = 0.0",
    ),  # the recipe
    (
        "training/member/record.py",
        '        "precision": training.precision,',
        '        "layer_drop": training.layer_drop,',
    ),
]
CODE = """
import shutil, sys
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from tests.tiny import tiny
from training.member.record import planned_fields
from training.recipes.plan import plan_members
from training.workspace import Workspace
from vitzoo import Zoo
from vitzoo.records import load_member_record
from vitzoo.records.json_files import write_json
from vitzoo.tables.catalogue import write_tables

recipe, trained = tiny(), Path(sys.argv[1])
parent = recipe.parents[0]
parent = replace(parent, training=replace(parent.training, layer_drop=0.25))
workspace = Workspace(Path("new"), replace(recipe, parents=(parent, *recipe.parents[1:])))
shutil.copytree(trained / "pt-0", "new/pt-0", ignore=shutil.ignore_patterns("ft-*"))  # a training would import torch
record = load_member_record(trained / "pt-0/member.json")
planned = plan_members(workspace.recipe)[0]
write_json(Path("new/pt-0/member.json"), structs.replace(record, **planned_fields(planned)))
write_tables(workspace.source)
new, old = Zoo("./new"), Zoo(trained)
column = new.table("members")["layer_drop"].to_pylist()
print(*new.select(layer_drop=0.25).ids, *column, new["pt-0"].factors["layer_drop"])
print(len(old.select(layer_drop=0.0)), new.recipe["parents"][0]["training"]["layer_drop"])
"""


def test_new_factor_needs_three_edits_and_reads_older_zoos(tiny_zoo: Path, tmp_path: Path) -> None:
    for package in ("vitzoo", "training"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests/tiny.py", tmp_path / "tests")
    for name, before, line in EDITS:
        text = (tmp_path / name).read_text()
        assert text.count(f"{before}\n") == 1
        (tmp_path / name).write_text(text.replace(before, f"{before}\n{line}"))
    run = subprocess.run(
        [sys.executable, "-c", CODE, str(tiny_zoo)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.stdout.splitlines() == ["pt-0 0.25 0.25", "11 0.25"], run.stderr
    assert "| layer_drop | double | Probability, 0 to 1. |" in (tmp_path / "new/metadata/README.md").read_text()
