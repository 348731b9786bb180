"""The folder that members are trained into: which one it may be, and who may work in it."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tiny import tiny
from training.recipes.recipe import Recipe
from training.workspace import Workspace
from vitzoo import json_files, records
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId


def listing(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def other(**changes: object) -> Recipe:
    recipe = tiny()
    return replace(recipe, children=replace(recipe.children, seeds=(100, 102)), **changes)  # type: ignore[arg-type]


def test_a_new_folder_becomes_the_recipes_zoo(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "deep" / "zoo", tiny())
    record = records.load_zoo_record(tmp_path / "deep" / "zoo" / "zoo.json")
    assert record.recipe == json_files.as_json(tiny())
    assert record == workspace.source.record
    assert not workspace.is_done(MemberId(0))


def test_an_empty_folder_and_a_start_that_was_ended_while_it_began_will_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    Workspace(tmp_path / "empty", tiny())
    begun = tmp_path / "begun"
    (begun / ".training" / "locks").mkdir(parents=True)
    (begun / ".zoo.json.partial").write_text('{"format": 1,')
    Workspace(begun, tiny())
    assert sorted(path.name for path in begun.iterdir()) == [".training", "zoo.json"]


def test_many_starts_at_once_begin_one_zoo(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        for i in range(20):
            workspaces = list(threads.map(lambda _: Workspace(tmp_path / f"zoo-{i}", tiny()), range(8)))  # noqa: B023
            assert {workspace.source.record.recipe_sha256 for workspace in workspaces} == {
                json_files.json_sha256(json_files.as_json(tiny()))
            }


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(TrainingError, match=re.escape(f"{tmp_path} is there already and is no zoo")):
        Workspace(tmp_path, tiny())
    assert listing(tmp_path) == {"thesis.tex": b"years of work"}
    with pytest.raises(TrainingError, match="is there already and is no zoo"):
        Workspace(tmp_path / "thesis.tex", tiny())


def test_another_recipes_zoo_is_left_alone_and_the_difference_is_named(tmp_path: Path) -> None:
    Workspace(tmp_path / "zoo", tiny())
    before = listing(tmp_path)
    with pytest.raises(TrainingError) as caught:
        Workspace(tmp_path / "zoo", other(name="tiny2"))
    assert "zoo of another recipe than tiny2: name is 'tiny' there, 'tiny2' here; " in str(caught.value)
    assert "children.seeds[1] is 101 there, 102 here. " in str(caught.value)
    assert listing(tmp_path) == before


def test_many_differences_are_counted(tmp_path: Path) -> None:
    Workspace(tmp_path, tiny())
    architecture = replace(
        tiny().architecture,
        patch_size=2,
        hidden_size=8,
        num_hidden_layers=2,
        intermediate_size=8,
        num_attention_heads=4,
    )
    with pytest.raises(TrainingError, match=r"; and 1 more\. Name another folder"):
        Workspace(tmp_path, other(architecture=architecture))


def test_a_member_and_a_run_are_held_by_one_process_and_free_when_it_dies(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tiny())
    program = (
        "import sys; from pathlib import Path; from filelock import FileLock; "
        "lock = FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    lock = tmp_path / ".training" / "locks" / "run.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="Another run is at work on"), workspace.lock():
            pass
        with workspace.lock(MemberId(0)):  # another lock
            pass
    finally:
        holder.kill()
        holder.communicate()
    with workspace.lock(), workspace.lock(MemberId(0, 1)):
        pass


def test_what_stands_where_a_member_should_appear_is_not_overwritten(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tiny())
    workspace.unfinished(MemberId(0)).mkdir()
    (tmp_path / "pt-0").mkdir()
    (tmp_path / "pt-0" / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"cannot become .*pt-0: .*\. Move away what stands there"):
        workspace.publish(MemberId(0))
    assert (tmp_path / "pt-0" / "notes.txt").read_text() == "mine"
    assert workspace.unfinished(MemberId(0)).is_dir()
