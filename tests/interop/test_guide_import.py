"""The commands and the code of docs/guides/import.md run, on a folder of Trainer runs."""

import re
from pathlib import Path

import pytest

from tests.hub.server import Hub
from tests.interop.populations import make_vit, write_trainer_run
from tests.test_cli import Here
from tests.test_docs import ROOT, blocks, run_console
from vitzoo.interop.checkpoints.table import METRICS, OWN, SETTINGS

GUIDE = (ROOT / "docs/guides/import.md").read_text(encoding="utf-8")


def test_the_guide_runs(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = make_vit(labels=5)
    parent.save_pretrained(tmp_path / "base")
    hub.create_repo("org/base").commit({path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()})
    for seed in (1, 2):
        write_trainer_run(tmp_path / f"runs/seed-{seed}", parent, seed=seed, steps=(100, 200))
    (commands,) = blocks("console", GUIDE)
    written, dry, imported, verified, tree = run_console(commands, Here(monkeypatch, capsys))
    assert "runs.csv: 5 checkpoints of 3 members." in written
    assert "pt-0/ft-1  seed-2  2 checkpoints" in dry
    assert "zoo  3 members (1 parents, 2 children), 5 checkpoints" in imported
    assert "No problems." in verified
    assert "pt-0/ft-1" in tree
    for block in blocks("python", GUIDE):
        exec(compile(block, "docs/guides/import.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "160 google/multiberts-seed_0-step_20k\n{'pt-0': 'org/base', 'pt-0/ft-0': 'seed-1'" in printed
    assert "Selection(2 members, 2 checkpoints" in printed


def test_the_guide_names_columns_that_exist() -> None:
    table = GUIDE.split("| column | meaning |")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert set(OWN) <= named <= {*OWN, *SETTINGS, *METRICS}
