"""Test the zoo folder of a training: which folder it may be, and which process may work in it."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import tiny
from training.lease import LeaseHeld, LeaseLost
from training.recipes.recipe import Recipe
from training.workspace import Workspace
from vitzoo import records
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId
from vitzoo.records import json_files
from vitzoo.records.files import partial_path


def listing(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def other(**changes: object) -> Recipe:
    recipe = tiny()
    return replace(recipe, children=replace(recipe.children, seeds=(100, 102)), **changes)  # type: ignore[arg-type]


def test_new_folder_becomes_the_recipes_zoo(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "deep" / "zoo", tiny())
    record = records.load_zoo_record(tmp_path / "deep" / "zoo" / "zoo.json")
    assert record.recipe == json_files.as_json(tiny())
    assert record == workspace.source.record
    assert not workspace.is_done(MemberId(0))


def test_empty_folder_and_an_interrupted_start_become_a_zoo(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    Workspace(tmp_path / "empty", tiny())
    begun = tmp_path / "begun"
    (begun / ".training" / "leases").mkdir(parents=True)
    partial_path(begun / "zoo.json").write_text('{"format": 1,')
    Workspace(begun, tiny())
    assert sorted(path.name for path in begun.iterdir()) == [".training", "zoo.json"]


def test_simultaneous_starts_create_one_zoo(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        for i in range(2):
            workspaces = list(threads.map(lambda _: Workspace(tmp_path / f"zoo-{i}", tiny()), range(8)))  # noqa: B023
            assert {workspace.source.record.recipe_sha256 for workspace in workspaces} == {
                json_files.json_sha256(json_files.as_json(tiny()))
            }


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for root in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(TrainingError, match="not a zoo") as error:
            Workspace(root, tiny())
        assert str(root) in error.value.problem
    assert listing(tmp_path) == {"thesis.tex": b"years of work"}


def test_zoo_of_another_recipe_is_refused_with_the_differences(tmp_path: Path) -> None:
    Workspace(tmp_path / "zoo", tiny())
    before = listing(tmp_path)
    with pytest.raises(TrainingError) as error:
        Workspace(tmp_path / "zoo", other(name="tiny2"))
    assert "name is 'tiny' there, 'tiny2' here; " in error.value.problem
    assert "children.seeds[1] is 101 there, 102 here" in error.value.problem
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
    with pytest.raises(TrainingError, match="; and 1 more"):
        Workspace(tmp_path, other(architecture=architecture))


def test_publish_does_not_overwrite_other_files(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tiny())
    (tmp_path / "pt-0").mkdir()
    (tmp_path / "pt-0" / "notes.txt").write_text("mine")
    with workspace.hold(MemberId(0)) as work:
        work.member_folder.mkdir()
        with pytest.raises(TrainingError) as error:
            workspace.publish(work)
        assert error.value.fix == f"Move {tmp_path / 'pt-0'} away."
    assert (tmp_path / "pt-0" / "notes.txt").read_text() == "mine"
    assert work.member_folder.is_dir()


class TestHolding:
    def test_hold_is_exclusive_and_continues_the_work(self, tmp_path: Path) -> None:
        workspace = Workspace(tmp_path, tiny())
        with workspace.hold(MemberId(0)) as first:
            first.member_folder.mkdir()
            first.resume_file.write_text("state")
            assert str(workspace.holder(MemberId(0))).startswith(f"process {os.getpid()} on ")
            with pytest.raises(LeaseHeld, match="pt-0"), workspace.hold(MemberId(0), patience=0):
                pass
            with workspace.hold(MemberId(0, 0)):  # another member
                pass
        assert workspace.holder(MemberId(0)) is None
        with workspace.hold(MemberId(0)) as second:
            assert second.folder != first.folder
            assert second.resume_file.read_text() == "state"
            assert second.member_folder.is_dir()
            assert not first.folder.exists()

    def test_hold_keeps_the_work_folder_with_a_resume_state(self, tmp_path: Path) -> None:
        workspace = Workspace(tmp_path, tiny())
        for name, state in (("pt-0@aa", "state"), ("pt-0@ff", None), ("pt-0.ft-0@aa", "a child's")):
            folder = tmp_path / ".training" / "work" / name
            folder.mkdir()
            if state is not None:
                (folder / "resume.safetensors").write_text(state)
        with workspace.hold(MemberId(0)) as work:
            assert work.resume_file.read_text() == "state"
            assert len(list(work.folder.parent.iterdir())) == 2

    def test_former_holder_writes_and_publishes_nothing(self, tmp_path: Path) -> None:
        workspace = Workspace(tmp_path, tiny())
        with workspace.hold(MemberId(0)) as first:
            first.member_folder.mkdir()
            first.lease.path.write_text(first.lease.path.read_text().replace(first.lease.holder.boot, "another boot"))
            os.utime(first.lease.path, (0, 0))  # as if it had been silent for long
            with workspace.hold(MemberId(0)) as second:
                (second.member_folder / "member.json").write_text("{}")
                with pytest.raises(LeaseLost):
                    first.check()
                with pytest.raises(OSError, match="No such file"):
                    (first.member_folder / "metrics.jsonl").write_text("")
                with pytest.raises((LeaseLost, OSError)):
                    workspace.publish(first)
                second.check()
                workspace.publish(second)
        assert workspace.is_done(MemberId(0))
        workspace.discard(MemberId(0))
        for folder in ("work", "leases"):
            assert list((tmp_path / ".training" / folder).iterdir()) == []
