"""Test the paper's population: its dry run, and a shrunken one from images on disk to the Hub."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from datasets import load_dataset
from typer.testing import CliRunner

from tests.conftest import ROOT
from tests.hub import Hub
from tests.shrunken import shrunken_paper, write_images
from training.__main__ import app
from training.publish.plan import plan_publication
from training.publish.push import publish
from training.recipes import RECIPES
from vitzoo.errors import DatasetError
from vitzoo.records.epochs import Epochs
from vitzoo.sources.folder import FolderSource
from vitzoo.zoo.zoo import Zoo

PATIENCE = 240  # seconds after which the test fails; no test asserts a time


def test_dry_run_prints_the_cost_and_writes_nothing(tmp_path: Path) -> None:
    command = ["run", "paper", "--out", str(tmp_path / "zoo"), "--dry-run", "--rate", "9000"]
    output = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    rows = {line.split("  ")[0]: line.split() for line in output.splitlines()}
    for name, members, epochs in (("supervised parents", "7", "630"), ("contrastive parents", "3", "270")):
        assert [rows[name][2], rows[name][-2]] == [members, epochs]
    assert [rows["children"][1], *rows["children"][-2:]] == ["240", "12,000", "599,040,000"]  # 240 x 50 x 195 x 256
    assert [rows["together"][1], *rows["together"][-2:]] == ["250", "12,900", "2,097,889,920"]
    assert rows["together"][2:9] == ["67.5", "h", "1.1", "TB", "13,150", "57.9", "EFLOP"]
    assert "data: ILSVRC/imagenet-1k, 1,281,167 training images, 10 members" in output
    assert "hours: of one card that trains pt-0 at 9,000 images/s" in output
    assert list(tmp_path.iterdir()) == []
    less = CliRunner().invoke(app, [*command, "--keep", "last"], catch_exceptions=False).stdout
    assert "21.8 GB" in less


def test_dry_run_without_a_rate_measures_one_unless_no_member_is_selected(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text("from tests.tiny import tiny as recipe  # noqa\n")
    command = ["run", str(tmp_path / "tiny.py"), "--out", str(tmp_path / "zoo"), "--dry-run"]
    output = CliRunner().invoke(app, [*command, "--only", "pt-0"], catch_exceptions=False).stdout
    assert re.search(r"^measured here: [\d,.]+ images/s; --rate sets", output, flags=re.MULTILINE)
    assert "hours: of one card that trains pt-0 at " in output
    empty = CliRunner().invoke(app, [*command, "--shard", "40/40"], catch_exceptions=False).stdout
    assert empty == "Nothing is left to do: all 0 members are done.\n"


def test_missing_images_are_an_error_that_names_the_option(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["member", "paper", "pt-0", "--out", str(tmp_path / "zoo")])
    assert isinstance(result.exception, DatasetError)
    assert "--data imagenet=" in str(result.exception)


@pytest.mark.slow
def test_shrunken_paper_is_trained_and_published(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = write_images(tmp_path)
    with patch.dict(RECIPES, shrunken=shrunken_paper):
        result = CliRunner().invoke(app, ["run", "shrunken", *options_of(folders)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "50 members are done in zoo." in result.stderr
    rows = check_shrunken(tmp_path / "zoo", folders)
    monkeypatch.setenv("HF_TOKEN", str(hub.add_token("org", role="write")))
    publish(plan_publication(FolderSource(tmp_path / "zoo"), to="org/shrunken", epochs=Epochs("last")))
    assert load_dataset("org/shrunken-metadata", "members")["train"].to_list() == rows
    assert Zoo("org/shrunken")["pt-1/ft-23"].load().config.head_type == "mlp"


@pytest.mark.slow
def test_killed_shrunken_paper_resumes(tmp_path: Path) -> None:
    folders, folder = write_images(tmp_path), tmp_path / "zoo"
    (tmp_path / "shrunken.py").write_text("from tests.shrunken import shrunken_paper as recipe  # noqa\n")
    command = [sys.executable, "-m", "training", "run", "./shrunken.py", *options_of(folders)]
    options = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "text": True}

    with open(tmp_path / "log", "w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **options)
    deadline = time.monotonic() + PATIENCE
    while len(done := set(folder.glob("pt-*/ft-*/member.json"))) < 5:
        assert run.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    before = {path: path.stat().st_mtime_ns for path in done}

    ended = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE, **options)
    assert ended.returncode == 0, ended.stderr
    assert "50 members are done in zoo." in ended.stderr
    assert {path: path.stat().st_mtime_ns for path in done} == before
    check_shrunken(folder, folders)


def options_of(folders: dict[str, Path]) -> list[str]:
    data = [word for name, path in folders.items() for word in ("--data", f"{name}={path}")]
    return ["--out", "zoo", "--workers", "1", "--loader-workers", "1", *data]


def check_shrunken(folder: Path, folders: dict[str, Path]) -> list[dict[str, Any]]:
    """Check the members' records and metrics, and return the rows of their table."""
    zoo = Zoo(folder)
    rows = zoo.table("members").to_pylist()
    assert {row["status"] for row in rows} == {"completed"}
    assert [row["objective"] for row in rows if row["stage"] == "pretraining"] == ["supervised", "contrastive"]
    grid = {(row["head_type"], row["optimizer"], row["learning_rate"], row["replicate"]) for row in rows[1:25]}
    assert len(grid) == 24
    assert {row["precision"] for row in rows} == {"bf16"}
    assert all(row["n_val"] == 0 and row["final_val_loss"] is None for row in rows)
    assert all(any("bf16" in deviation for deviation in row["deviations"]) for row in rows)
    for member in ("pt-0", "pt-1/ft-23"):
        again = zoo[member].evaluate(data=folders)
        assert again.accuracy == zoo[member].metrics_at().test_accuracy
        assert again.loss == zoo[member].metrics_at().test_loss
    return rows
