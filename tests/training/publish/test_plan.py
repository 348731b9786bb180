"""The plan names every file that is sent, and nothing else; it needs no network."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.hub import Hub, Token
from tests.training.publish.zoos import TO, assert_holds, plan
from training.__main__ import app
from training.publish.plan import plan_publication
from training.publish.push import publish
from vitzoo import records
from vitzoo.errors import RecordError, TrainingError, UnsafePathError
from vitzoo.records.epochs import Epochs
from vitzoo.records.json_files import json_sha256
from vitzoo.sources.folder import FolderSource


def test_only_finished_members_are_published(hub: Hub, token: Token, small: Path) -> None:
    unfinished = small / ".training/members/pt-2.ft-1"
    shutil.move(small / "pt-2/ft-1", unfinished)
    (small / "pt-1/notes.txt").write_text("mine")
    (small / "pt-1/model.epoch-77.safetensors").write_bytes(b"")
    (small / "pt-9").mkdir()
    publication = plan(small)
    assert publication.left_out == ("pt-1/model.epoch-77.safetensors", "pt-1/notes.txt")
    assert any("5 of the recipe's 11 members" in line for line in publication.describe())
    assert b"Of the 11 members that the recipe plans, 5 are finished" in publication.closing[0].read()
    publish(publication)
    assert_holds(hub, publication)
    assert not any("ft-1" in path and path.startswith("pt-2") for path in hub.repo(TO).files())
    assert not any(path.startswith(".training") or path.endswith(".txt") for path in hub.repo(TO).files())


@pytest.mark.parametrize("name", ["timing.jsonl", "config.json", "model.safetensors"])
def test_a_link_is_not_published(small: Path, name: str) -> None:
    target = small / ".training/logs/x.log"
    target.parent.mkdir(parents=True, exist_ok=True)
    path = small / "pt-1" / name
    shutil.move(path, target)
    path.symlink_to(os.path.relpath(target, path.parent))
    with pytest.raises(UnsafePathError, match=re.escape(f"pt-1/{name}")):
        plan(small)
    path.unlink()
    os.link(target, path)
    plan(small)


def test_a_member_folder_that_is_a_link_is_not_published(small: Path) -> None:
    shutil.move(small / "pt-1", small / ".hidden")
    (small / "pt-1").symlink_to(".hidden")
    with pytest.raises(UnsafePathError, match="goes through one"):
        plan(small)


TIMING = '{"epoch": 0, "training_seconds": 0.0, "finished_at": 1795434203.5, "hardware": "AMD EPYC"}'


@pytest.mark.parametrize(
    "line",
    [
        "started worker 3 of 8",
        "",
        "7",
        TIMING[:-1] + ', "user": "anna"}',
        TIMING.replace('"epoch": 0, ', ""),
        TIMING.replace("AMD EPYC", "x" * 200),
        TIMING.replace("AMD EPYC", r"a\nb"),
        TIMING.replace("0.0", '"0.0"'),
        TIMING.replace("0.0", "NaN"),
        TIMING.replace('"AMD', '"a log", "hardware": "AMD'),
        "[" * 3000,
    ],
)
def test_a_timing_that_the_trainer_does_not_write_is_refused(small: Path, line: str) -> None:
    path = small / "pt-1/timing.jsonl"
    path.write_text(TIMING + "\n")
    plan(small)
    path.write_text(f"{TIMING}\n{line}\n")
    with pytest.raises(RecordError, match=re.escape("pt-1/timing.jsonl, line 2")):
        plan(small)
    path.write_bytes(b"\xff\n")
    with pytest.raises(RecordError, match=re.escape("timing.jsonl")):
        plan(small)


def test_a_recipe_nested_too_deeply_is_refused(small: Path) -> None:
    path = small / "zoo.json"
    record = records.load_zoo_record(path)
    recipe = record.recipe | {"source": "nested"}
    text = {"format": 1, "recipe": recipe, "recipe_sha256": json_sha256(recipe), "metadata_repo": None}
    path.write_text(json.dumps(text).replace('"nested"', "[" * 100_000 + "]" * 100_000))
    with pytest.raises(RecordError, match=re.escape("zoo.json")):
        plan(small)


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": "vit-zoo"},
        {"to": "./vit-zoo"},
        {"to": "org/a", "metadata_to": "a/b/c"},
        {"to": "zoo/a"},
        {"to": "org/a", "tag": "a b"},
        {"to": "org/a", "tag": "main"},
        {"to": "org/a", "tag": "0123456789abcdef"},
    ],
)
def test_malformed_names_are_refused(tiny_zoo: Path, arguments: dict[str, str]) -> None:
    with pytest.raises(TrainingError, match="expected"):
        plan_publication(FolderSource(tiny_zoo), **arguments)  # type: ignore[arg-type]


def test_a_zoo_without_members_is_refused(small: Path) -> None:
    for name in ("pt-1", "pt-2"):
        shutil.rmtree(small / name)
    with pytest.raises(TrainingError, match="no finished member"):
        plan(small)


def test_the_dry_run_lists_every_file_without_a_request(hub: Hub, small: Path) -> None:
    result = CliRunner().invoke(app, ["publish", str(small), "--to", TO, "--dry-run", "--epochs", "last"])
    assert result.exit_code == 0, result.output
    assert not hub.requests
    publication = plan(small, epochs=Epochs("last"))
    assert publication.manifest.digest in result.output
    assert all(f"{file.size:,}  {file.path}" in result.output for file in publication.files)
    assert f"{publication.size:,} bytes" in result.output


def test_the_command_prints_commit_and_digest(hub: Hub, token: Token, small: Path) -> None:
    arguments = ["publish", str(small), "--to", TO, "--metadata-to", "org/tables", "--tag", "v1"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    digest = plan(small, metadata_to="org/tables").manifest.digest
    assert f"vitzoo verify {TO} --digest {digest}" in first.output
    assert hub.repo(TO).head in first.output
    second = CliRunner().invoke(app, arguments)
    assert "already published" in second.output
    assert str(token) not in first.output + second.output


def test_an_interrupted_command_says_how_to_go_on(hub: Hub, token: Token, small: Path, dying: Any) -> None:
    dying.at(20, "after")
    result = CliRunner().invoke(app, ["publish", str(small), "--to", TO])
    dying.revive()
    assert result.exit_code == 130
    assert "the same command goes on" in result.output
