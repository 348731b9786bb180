"""Test that the plan lists every file that is sent, and no other, without the network."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.hub import Hub, Token
from tests.training.publish.zoos import METADATA, TO, assert_holds, plan
from training.__main__ import app
from training.publish.plan import check_timings, plan_publication
from training.publish.push import publish
from vitzoo import records
from vitzoo.errors import RecordError, TrainingError, UnsafePathError
from vitzoo.records.epochs import Epochs
from vitzoo.records.json_files import json_sha256
from vitzoo.sources.folder import FolderSource


def test_publish_sends_only_finished_members(hub: Hub, token: Token, small: Path) -> None:
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
def test_plan_refuses_a_link(small: Path, name: str) -> None:
    target = small / ".training/logs/x.log"
    target.parent.mkdir(parents=True, exist_ok=True)
    path = small / "pt-1" / name
    shutil.move(path, target)
    path.symlink_to(os.path.relpath(target, path.parent))
    with pytest.raises(UnsafePathError) as error:
        plan(small)
    assert error.value.path == path
    path.unlink()
    os.link(target, path)
    plan(small)


def test_plan_refuses_a_member_folder_that_is_a_link(small: Path) -> None:
    shutil.move(small / "pt-1", small / ".hidden")
    (small / "pt-1").symlink_to(".hidden")
    with pytest.raises(UnsafePathError):
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
def test_check_timings_refuses_other_text(tmp_path: Path, line: str) -> None:
    path = tmp_path / "timing.jsonl"
    path.write_text(TIMING + "\n")
    check_timings(path)
    for content in (f"{TIMING}\n{line}\n".encode(), b"\xff\n"):
        path.write_bytes(content)
        with pytest.raises(RecordError) as error:
            check_timings(path)
        assert error.value.path == path


def test_plan_refuses_a_timing_file_with_other_text(small: Path) -> None:
    path = small / "pt-1/timing.jsonl"
    path.write_text("started worker 3 of 8\n")
    with pytest.raises(RecordError) as error:
        plan(small)
    assert error.value.path == path


def test_plan_refuses_a_recipe_that_is_nested_too_deeply(small: Path) -> None:
    path = small / "zoo.json"
    record = records.load_zoo_record(path)
    recipe = record.recipe | {"source": "nested"}
    text = {"format": 1, "recipe": recipe, "recipe_sha256": json_sha256(recipe), "metadata_repo": None}
    path.write_text(json.dumps(text).replace('"nested"', "[" * 100_000 + "]" * 100_000))
    with pytest.raises(RecordError) as error:
        plan(small)
    assert error.value.path == path


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
        {"to": "org/a", "license": "CC BY 4.0"},
        {"to": "org/a", "license": ""},
        {"to": "org/a", "license": "mit\nbase_model: x"},
        {"to": "org/a", "citation": "x" * 10_001},
    ],
)
def test_plan_refuses_malformed_names(tiny_zoo: Path, arguments: dict[str, str]) -> None:
    with pytest.raises(TrainingError) as error:
        plan_publication(FolderSource(tiny_zoo), **arguments)  # type: ignore[arg-type]
    assert error.value.expected is not None


def test_plan_refuses_a_zoo_without_members(small: Path) -> None:
    for name in ("pt-1", "pt-2"):
        shutil.rmtree(small / name)
    with pytest.raises(TrainingError, match="no finished member"):
        plan(small)


def test_dry_run_lists_every_file_without_a_request(hub: Hub, small: Path) -> None:
    result = CliRunner().invoke(app, ["publish", str(small), "--to", TO, "--dry-run", "--epochs", "last"])
    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) < 10
    assert "--verbose" in result.output
    verbose = ["publish", str(small), "--to", TO, "--dry-run", "--epochs", "last", "--verbose"]
    result = CliRunner().invoke(app, verbose)
    assert not hub.requests
    publication = plan(small, epochs=Epochs("last"))
    assert publication.manifest.digest in result.output
    assert all(f"{file.size:,}  {file.path}" in result.output for file in publication.files)
    assert f"{sum(file.size for file in publication.files):,} bytes" in result.output


def test_licence_and_citation_are_published_and_kept(hub: Hub, token: Token, small: Path) -> None:
    Path("zoo.bib").write_text("@misc{me, title={Zoo}}\n")
    terms = ["--license", "cc-by-4.0", "--cite", "zoo.bib"]
    before = (small / "zoo.json").read_bytes()
    dry = CliRunner().invoke(app, ["publish", str(small), "--to", TO, "--dry-run", *terms])
    assert "licence: cc-by-4.0" in dry.output
    assert (small / "zoo.json").read_bytes() == before
    assert CliRunner().invoke(app, ["publish", str(small), "--to", TO, *terms]).exit_code == 0
    assert CliRunner().invoke(app, ["publish", str(small), "--to", TO]).exit_code == 0  # without them: kept
    published = json.loads(hub.repo(TO).files()["zoo.json"])
    assert (published["license"], published["citation"]) == ("cc-by-4.0", "@misc{me, title={Zoo}}")
    for repo in (hub.repo(TO), hub.repo(METADATA, "dataset")):
        assert repo.files()["README.md"].startswith(b'---\nlicense: "cc-by-4.0"\n')
    assert b"Cite this zoo as:" in hub.repo(TO).files()["README.md"]
    assert records.load_zoo_record(small / "zoo.json").license == "cc-by-4.0"


def test_without_a_licence_none_is_declared(small: Path) -> None:
    publication = plan(small)
    card = publication.closing[0].read()
    assert b"license:" not in card
    assert b"license:" not in publication.dataset_card("0" * 40).read()
    assert b"Its authors declare none." in card


def test_command_prints_commit_and_digest(hub: Hub, token: Token, small: Path) -> None:
    arguments = ["publish", str(small), "--to", TO, "--metadata-to", "org/tables", "--tag", "v1"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    digest = plan(small, metadata_to="org/tables").manifest.digest
    assert f"vitzoo verify {TO} --digest {digest}" in first.output
    assert hub.repo(TO).head in first.output
    second = CliRunner().invoke(app, arguments)
    assert "already published" in second.output
    assert str(token) not in first.output + second.output


def test_interrupted_command_says_how_to_continue(hub: Hub, token: Token, small: Path, dying: Any) -> None:
    dying.at(20, "after")
    result = CliRunner().invoke(app, ["publish", str(small), "--to", TO])
    dying.revive()
    assert result.exit_code == 130
    assert "The same command continues" in result.output
