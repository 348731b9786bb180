"""Children whose parent is absent, wrong or doubtful, and models that are there twice: told, never guessed."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.interop import damage
from tests.interop.imported import SHORT, import_tiny, place, problems, short_release
from tests.interop.release import Release, ReleasedModel, write_release
from tests.interop.release_records import Child, Parent
from vitzoo.records import load_member_record

ALL = ["pt-0", "pt-0/ft-0", "pt-0/ft-1", "pt-1", "pt-1/ft-0"]


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return short_release(tmp_path)


def parent_of(zoo: Path, report, folder: str) -> tuple[str | None, int | None]:
    """What a model's record says that it starts from."""
    (member,) = [member for member, its in report.taken.items() if its == folder]
    record = load_member_record(zoo / member / "member.json")
    return record.parent, record.parent_epoch


def move(child: ReleasedModel, release: Release, parent: str) -> str:
    """Put a child's folder under another parent's; returns its new place."""
    folder = release.root / "finetuning" / parent
    folder.mkdir(exist_ok=True)
    shutil.move(child.folder, folder)
    return f"finetuning/{parent}/{child.name}"


def test_a_parent_that_is_absent(release: Release, tmp_path: Path) -> None:
    parent, zoo = release.parents[0], tmp_path / "zoo"
    shutil.rmtree(parent.folder)
    report = import_tiny(release, zoo)
    why = f"its parent {parent.name} is not taken: expected a model pretraining/{parent.name}. Add it, and import again"
    assert report.skipped == {place(child): why for child in release.children_of(parent)}
    assert not report.complete
    assert list(report.taken) == ["pt-0", "pt-0/ft-0"]
    assert problems(zoo) == []


@pytest.mark.parametrize("keys", [("pretraining::model", "pretraining::model::path"), ("pretraining::model::path",)])
def test_a_config_that_names_no_parent(release: Release, tmp_path: Path, keys: tuple[str, ...]) -> None:
    """The folder names it, and the weights show it."""
    zoo = tmp_path / "zoo"
    for child in release.children:
        damage.remove_keys(child.config_json, *keys)
        rows = [json.loads(line) for line in child.result_json.read_text().splitlines()]
        for row in rows:
            row["config"] = {key: value for key, value in row["config"].items() if key not in keys}
        child.result_json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = import_tiny(release, zoo)
    assert (list(report.taken), report.skipped, report.notes) == (ALL, {}, {})
    assert parent_of(zoo, report, place(release.children[0])) == ("pt-0", 2)
    assert problems(zoo) == []


def test_a_folder_that_is_wrong(release: Release, tmp_path: Path) -> None:
    """Under another parent than its config and its weights say."""
    child, zoo = release.children[0], tmp_path / "zoo"
    first, other = (parent.name for parent in release.parents)
    now = move(child, release, other)
    report = import_tiny(release, zoo)
    assert report.skipped == {}
    assert parent_of(zoo, report, now) == ("pt-0", 2)
    assert report.notes[now] == (
        f"lies under {other}, its config names {first}: it starts with the weights of {first}",
    )
    assert list(report.taken) == ALL
    assert problems(zoo) == []


def test_a_folder_that_is_right(release: Release, tmp_path: Path) -> None:
    """Its config names another parent."""
    child, zoo = release.children[0], tmp_path / "zoo"
    first, other = (parent.name for parent in release.parents)
    path = f"/x/{other}/checkpoint_0001/checkpoints"
    damage.change_keys(child.config_json, **{"pretraining::model": other, "pretraining::model::path": path})
    report = import_tiny(release, zoo)
    assert report.skipped == {}
    assert parent_of(zoo, report, place(child)) == ("pt-0", 2)
    assert (
        f"lies under {first}, its config names {other}: it starts with the weights of {first}"
        in report.notes[place(child)]
    )
    assert problems(zoo) == []


def test_both_are_wrong(tmp_path: Path) -> None:
    """Folder and config agree, but its weights are a third's: refused, and the third is named."""
    third = Parent(mode="sl", seed=9, epochs=1, digits=6)
    release = write_release(tmp_path / "dataset", families=(*SHORT, third), optimizers=False)
    child, zoo = release.children[0], tmp_path / "zoo"
    wrong = release.parents[2].name
    damage.change_keys(child.config_json, **{"pretraining::model": wrong})
    now = move(child, release, wrong)
    report = import_tiny(release, zoo)
    assert report.skipped == {
        now: f"its weights before the first step are those of {release.parents[0].name}, while its folder or its "
        f"config says {wrong}. Mend what is wrong"
    }
    assert len(report.taken) == 5
    assert problems(zoo) == []


def test_weights_of_nobody(release: Release, tmp_path: Path) -> None:
    child, zoo = release.children[0], tmp_path / "zoo"
    damage.add_tensor(child.checkpoints[0], "vit.norm.weight", torch.full((64,), 2.0))
    report = import_tiny(release, zoo)
    why = report.skipped.pop(place(child))
    assert re.fullmatch(
        f"its weights before the first step are those of no model that is taken, .* {child.parent}.*", why
    )
    assert (report.skipped, len(report.taken)) == ({}, 4)
    assert problems(zoo) == []


@pytest.mark.parametrize("agree", [True, False])
def test_without_weights_of_before_the_first_step(release: Release, tmp_path: Path, agree: bool) -> None:
    """Names that agree are taken, and said to be all there is; names that contradict are not."""
    child, zoo = release.children[0], tmp_path / "zoo"
    first, other = (parent.name for parent in release.parents)
    shutil.rmtree(child.checkpoints[0].parent)
    now = place(child) if agree else move(child, release, other)
    report = import_tiny(release, zoo)
    if agree:
        assert parent_of(zoo, report, now) == ("pt-0", 2)
        assert report.notes[now] == (
            f"parent {first} by folder and config alone: there are no weights of before the first step",
        )
    else:
        assert report.skipped == {
            now: f"lies under {other}, but its config names {first}, and no weights of before its first step show "
            "which. Mend the wrong one"
        }
    assert problems(zoo) == []


def test_an_epoch_of_its_parent_that_is_not_there(tmp_path: Path) -> None:
    """The one that its config names, seen nowhere; where weights show another, these count."""
    child = Child(optimizer="sgd", learning_rate=1e-3, epochs=1, from_epoch=1)
    other = Child(optimizer="adamw", learning_rate=1e-3, epochs=1, from_epoch=2)
    families = (Parent(mode="sl", seed=1, epochs=3, digits=6, children=(child, other)),)
    release = write_release(tmp_path / "dataset", families=families, optimizers=False)
    zoo, blind, seen = tmp_path / "zoo", release.children[0], release.children[1]
    shutil.rmtree(release.parents[0].checkpoints[1].parent)
    shutil.rmtree(blind.checkpoints[0].parent)
    damage.change_keys(
        seen.config_json, **{"pretraining::model::path": f"/x/{seen.parent}/checkpoint_000003/checkpoints"}
    )
    report = import_tiny(release, zoo)
    assert report.skipped == {place(blind): f"starts from checkpoint 1 of {blind.parent}, which is not there. Add it"}
    assert parent_of(zoo, report, place(seen)) == ("pt-0", 2)
    assert problems(zoo) == []


@pytest.mark.parametrize("which", [0, 2], ids=["parent", "child"])
def test_a_copy_under_another_name(release: Release, tmp_path: Path, which: int) -> None:
    model, zoo = release.models[which], tmp_path / "zoo"
    damage.copy_model(model.folder, model.folder.with_name(f"{model.name}_copy"))
    report = import_tiny(release, zoo)
    assert report.skipped == {
        f"{place(model)}_copy": f"is a copy: its last weights are those of {place(model)}. Take one away"
    }
    assert list(report.taken) == ALL
    assert problems(zoo) == []


def test_a_copy_that_is_found_first(release: Release, tmp_path: Path) -> None:
    """A parent's copy takes neither its place nor its children's."""
    parent, zoo = release.parents[0], tmp_path / "zoo"
    damage.copy_model(parent.folder, parent.folder.with_name(f"a_copy_of_{parent.name}"))
    report = import_tiny(release, zoo)
    assert len(report.skipped) == 1
    assert "is a copy" in next(iter(report.skipped.values()))
    assert set(report.taken.values()) >= {place(child) for child in release.children}
    assert problems(zoo) == []


def test_a_copy_under_another_parent(release: Release, tmp_path: Path) -> None:
    child, zoo = release.children[0], tmp_path / "zoo"
    other = release.root / "finetuning" / release.parents[1].name
    damage.copy_model(child.folder, other / child.name)
    report = import_tiny(release, zoo)
    (skipped,) = report.skipped
    assert skipped in (place(child), f"finetuning/{release.parents[1].name}/{child.name}")
    assert "is a copy: its last weights are those of" in report.skipped[skipped]
    assert len(report.taken) == 5
    assert problems(zoo) == []


def test_a_copy_that_was_saved_again(release: Release, tmp_path: Path) -> None:
    """Equal weights in other bytes are a copy too."""
    child, zoo = release.children[0], tmp_path / "zoo"
    twin = child.folder.with_name(f"{child.name}_copy")
    damage.copy_model(child.folder, twin)
    for path in twin.glob("*/checkpoints"):
        torch.save(damage._load(path), path)
        assert path.read_bytes() != (child.folder / path.parent.name / "checkpoints").read_bytes()
    report = import_tiny(release, zoo)
    assert report.skipped.keys() == {f"{place(child)}_copy"}
    assert list(report.taken) == ALL
    assert problems(zoo) == []


@pytest.mark.parametrize("equal", [True, False])
def test_one_number_twice(release: Release, tmp_path: Path, equal: bool) -> None:
    """checkpoint_000001 and checkpoint_1: taken once where they are the same, and not at all where they are not."""
    child, zoo = release.children[0], tmp_path / "zoo"
    again = child.folder / "checkpoint_1"
    shutil.copytree(child.folder / "checkpoint_000001", again)
    if not equal:
        shutil.copyfile(child.checkpoints[2], again / "checkpoints")
    report = import_tiny(release, zoo)
    if equal:
        assert report.notes[place(child)] == ("checkpoint_1 is checkpoint_000001 once more: taken once",)
        assert list(report.taken) == ALL
    else:
        why = "checkpoint_000001 and checkpoint_1 have one number and other weights. Take the wrong one away"
        assert report.skipped == {place(child): why}
    assert problems(zoo) == []


def test_names_that_collide(tmp_path: Path) -> None:
    """Two children whose settings are the same, under two names, are two members in the order of their names."""
    child = Child(optimizer="sgd", learning_rate=1e-3, epochs=1)
    families = (Parent(mode="sl", seed=1, epochs=1, digits=6, children=(child,)),)
    release = write_release(tmp_path / "dataset", families=families, optimizers=False)
    (model,) = release.children
    for name in ("A", "zz"):
        copy = model.folder.with_name(f"{name}{model.name}")
        damage.copy_model(model.folder, copy)
        damage.add_tensor(copy / "checkpoint_000001/checkpoints", "vit.norm.bias", torch.full((64,), float(len(name))))
    report = import_tiny(release, tmp_path / "zoo")
    assert [folder.rpartition("/")[2].partition("ft")[0] for folder in report.taken.values()][1:] == [
        "Asl_",
        "sl_",
        "zzsl_",
    ]
    records = [load_member_record(tmp_path / f"zoo/pt-0/ft-{number}/member.json") for number in range(3)]
    assert [record.replicate for record in records] == [0, 1, 2]
    assert problems(tmp_path / "zoo") == []
