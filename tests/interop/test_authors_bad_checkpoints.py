"""Checkpoints that are damaged, others than expected, or hostile: each is told, and nothing else is lost."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.interop import damage
from tests.interop.imported import (
    MODEL_TYPES,
    contents,
    import_tiny,
    many_children,
    on_disk,
    place,
    problems,
    short_release,
)
from tests.interop.release import Release
from vitzoo.errors import ReleaseError
from vitzoo.interop.authors.report import ImportReport
from vitzoo.interop.authors.run import plan_release
from vitzoo.records import load_member_record
from vitzoo.zoo.zoo import Zoo

ALL = ["pt-0", "pt-0/ft-0", "pt-0/ft-1", "pt-1", "pt-1/ft-0"]
NAN = torch.full((64,), float("nan"))


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return short_release(tmp_path)


def epochs(zoo: Path, member: str) -> list[int | None]:
    return [weights.epoch for weights in load_member_record(zoo / member / "member.json").weights]


# The first child's: what is done to one checkpoint of three, and what is said of it.
ONE: list[tuple[str, Callable[[Path], object], str]] = [
    ("truncated", damage.truncate, "cannot be read|is no file of torch.save"),
    ("a hundred bytes", lambda path: damage.truncate(path, keep=0.0002), "is no file of torch.save"),
    ("empty", lambda path: path.write_bytes(b""), "empty|is no file of torch.save"),
    ("text", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "no file of torch.save"),
    ("no tensors", lambda path: torch.save([1, 2], path), "holds a list; expected a state dict"),
    ("empty archive", lambda path: zipfile.ZipFile(path, "w").close(), "cannot be read"),
    ("numbered", lambda path: torch.save({1: torch.ones(1)}, path), "expected a state dict"),
    (
        "other names",
        lambda path: torch.save({"fc.weight": torch.ones(1)}, path),
        r'holds "?fc\.weight"?; expected .* "?vit\.',
    ),
    ("shape", lambda path: damage.change_shape(path, "vit.norm.bias", (7,)), r"norm\.bias.*7.*64"),
    ("depth", lambda path: damage.remove_tensor(path, "vit.blocks.1.attn.qkv.bias"), r"blocks\.1\.attn\.qkv\.bias"),
    ("missing", lambda path: damage.remove_tensor(path, "vit.norm.bias"), r"norm\.bias"),
    ("missing head", lambda path: damage.remove_tensor(path, "vit.head.weight"), "head"),
    ("more", lambda path: damage.add_tensor(path, "vit.more", torch.ones(1)), "more"),
    ("outputs", lambda path: damage.change_shape(path, "vit.head.bias", (10,)), r"10"),
    ("bfloat16", damage.as_bf16, "as torch.bfloat16; expected float32"),
    ("float64", lambda path: damage.change_dtype(path, torch.float64), "as torch.float64; expected float32"),
    ("a number", lambda path: torch.save(damage._load(path) | {"vit.norm.bias": 3}, path), "as int; expected float32"),
    (
        "sparse",
        lambda path: torch.save(damage._load(path) | {"vit.norm.bias": torch.zeros(64).to_sparse()}, path),
        "expected float32",
    ),
    ("a script", lambda path: _save_script(path), r"checkpoint_00000\d/checkpoints"),
    ("compressed", lambda path: _compress(path), r"checkpoint_00000\d/checkpoints"),
    ("a bit that flipped", lambda path: _flip(path), r"checkpoint_00000\d/checkpoints"),
]


def _save_script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts are deprecated
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def _compress(path: Path) -> None:
    """As a zip program packs the same files again: torch's are stored as they are."""
    with zipfile.ZipFile(path) as archive:
        files = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _flip(path: Path) -> None:
    """In the middle of a tensor: the archive's own checksum shows it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Path, ImportReport]:
    """A release with a child for each row of the table, whose epoch 1 is harmed; the zoo; the report."""
    folder = tmp_path_factory.mktemp("harmed")
    release = many_children(folder, len(ONE))
    for child, (_, harm, _) in zip(release.children, ONE, strict=True):
        harm(child.checkpoints[1])
    return release, folder / "zoo", import_tiny(release, folder / "zoo")


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for row, (name, _, _) in enumerate(ONE)])
def test_one_of_three(one_of_each: tuple[Release, Path, ImportReport], row: int) -> None:
    """In the middle of a training: that epoch alone is not taken, and the message names file, value and expectation."""
    release, zoo, report = one_of_each
    (note,) = report.notes[place(release.children[row])]
    assert note.startswith("epoch 1 is not taken: ")
    assert re.search(ONE[row][2], note), note
    assert str(release.root) not in note
    assert epochs(zoo, f"pt-0/ft-{row}") == [0, 2, None]
    assert load_member_record(zoo / f"pt-0/ft-{row}/member.json").epochs == 2


def test_nothing_else_is_lost(one_of_each: tuple[Release, Path, ImportReport]) -> None:
    release, zoo, report = one_of_each
    assert report.skipped == {}
    assert list(report.taken.values()) == [place(model) for model in release.models]
    assert problems(zoo) == []


@pytest.mark.parametrize("device", ["meta"])
def test_tensors_without_numbers(release: Release, tmp_path: Path, device: str) -> None:
    child, zoo = release.children[0], tmp_path / "zoo"
    path = child.checkpoints[1]
    torch.save({name: tensor.to(device) for name, tensor in damage._load(path).items()}, path)
    report = import_tiny(release, zoo)
    assert (list(report.taken), report.skipped) == (ALL, {})
    assert report.notes[place(child)][0].startswith("epoch 1 is not taken: checkpoint_000001/checkpoints")
    assert problems(zoo) == []


def test_the_last(release: Release, tmp_path: Path) -> None:
    """The model ends with the last weights that there are, and its record says so."""
    child, zoo = release.children[0], tmp_path / "zoo"
    damage.truncate(child.checkpoints[2])
    report = import_tiny(release, zoo)
    assert (list(report.taken), report.skipped) == (ALL, {})
    record = load_member_record(zoo / "pt-0/ft-0/member.json")
    assert (record.status, record.epochs, record.steps) == ("completed", 1, 195)
    assert record.deviations[-1] == "epochs: 1, the last weights there are; source: 2; its release"
    assert epochs(zoo, "pt-0/ft-0") == [0, 1, None]
    assert "its last weights are of epoch 1; its config says 2 epochs" in report.notes[place(child)]
    assert "result.json has figures of epochs 2, beyond the last weights: left out" in report.notes[place(child)]
    assert len((zoo / "pt-0/ft-0/metrics.jsonl").read_text().splitlines()) == 2
    assert record.origin is not None
    assert "checkpoint_000002/checkpoints" not in record.origin.files
    assert problems(zoo) == []


def test_the_first(release: Release, tmp_path: Path) -> None:
    """Then names alone say what a child starts from."""
    child, zoo = release.children[0], tmp_path / "zoo"
    damage.truncate(child.checkpoints[0])
    report = import_tiny(release, zoo)
    assert (list(report.taken), report.skipped) == (ALL, {})
    by_names = f"parent {child.parent} by folder and config alone: there are no weights of before the first step"
    assert by_names in report.notes[place(child)]
    record = load_member_record(zoo / "pt-0/ft-0/member.json")
    assert (record.parent, record.parent_epoch, epochs(zoo, "pt-0/ft-0")) == ("pt-0", 2, [1, 2, None])
    assert '"distance_from_start": null' in (zoo / "pt-0/ft-0/metrics.jsonl").read_text().splitlines()[2]
    assert problems(zoo) == []


@pytest.mark.parametrize("harm", [damage.truncate, damage.as_bf16, lambda path: damage.add_tensor(path, "vit.x", NAN)])
def test_all_of_a_child(release: Release, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    child, zoo = release.children[0], tmp_path / "zoo"
    for path in child.checkpoints.values():
        harm(path)
    report = import_tiny(release, zoo)
    assert report.skipped.keys() == {place(child)}
    assert report.skipped[place(child)].startswith("none of its checkpoints can be read: checkpoint_000002/checkpoints")
    assert set(report.taken.values()) == {place(model) for model in release.models} - {place(child)}
    assert problems(zoo) == []


def test_all_of_a_parent(release: Release, tmp_path: Path) -> None:
    parent, zoo = release.parents[0], tmp_path / "zoo"
    for path in parent.checkpoints.values():
        damage.truncate(path)
    report = import_tiny(release, zoo)
    assert report.skipped.keys() == {place(parent), *(place(child) for child in release.children_of(parent))}
    assert report.skipped[place(parent)].startswith("none of its checkpoints can be read")
    for child in release.children_of(parent):
        assert f"its parent {parent.name} is not taken" in report.skipped[place(child)]
    assert list(report.taken) == ["pt-0", "pt-0/ft-0"]
    assert problems(zoo) == []


def test_all_of_all(release: Release, tmp_path: Path) -> None:
    for model in release.models:
        for path in model.checkpoints.values():
            damage.truncate(path)
    expected = rf"{release.root}: no model of it can be taken: pretraining/.*: none of its checkpoints can be read"
    with pytest.raises(ReleaseError, match=expected):
        import_tiny(release, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_the_last_of_a_parent(release: Release, tmp_path: Path) -> None:
    """Its children start from weights that are not there: they cannot be held against anything, and say so."""
    parent, zoo = release.parents[0], tmp_path / "zoo"
    damage.truncate(parent.checkpoints[2])
    report = import_tiny(release, zoo)
    record = load_member_record(zoo / "pt-0/member.json")
    assert (record.epochs, record.status) == (1, "completed")
    assert report.skipped.keys() == {place(child) for child in release.children_of(parent)}
    for why in report.skipped.values():
        assert f"says {parent.name}" in why
    assert list(report.taken) == ["pt-0", "pt-1", "pt-1/ft-0"]
    assert problems(zoo) == []


def test_older_files_are_read(release: Release, tmp_path: Path) -> None:
    """Of before torch 1.6: the same zoo but for the sources' digests."""
    before = _zoo(release, tmp_path / "before")
    for model in release.models:
        for path in model.checkpoints.values():
            damage.legacy_pickle(path)
    after = _zoo(release, tmp_path / "after")
    assert before.keys() == after.keys()
    changed = {name.rpartition("/")[2] for name in before if before[name] != after[name]}
    assert changed <= {"member.json", "members.parquet", "README.md", "report.json"}


def _zoo(release: Release, zoo: Path) -> dict[str, bytes]:
    assert import_tiny(release, zoo).complete
    return contents(zoo)


def test_tensors_in_other_orders_and_of_modules(release: Release, tmp_path: Path) -> None:
    """Transposed in memory, or saved as parameters: the numbers are the same, and they are taken."""
    child, zoo = release.children[0], tmp_path / "zoo"
    for epoch, path in child.checkpoints.items():
        state = damage._load(path)
        if epoch == 1:
            state = {name: nn.Parameter(tensor) for name, tensor in state.items()}
        else:
            name = "vit.blocks.0.attn.qkv.weight"
            state[name] = state[name].t().contiguous().t()
        torch.save(state, path)
    report = import_tiny(release, zoo)
    assert (list(report.taken), report.skipped, report.notes) == (ALL, {}, {})
    for epoch, state in child.states.items():
        found = load_file(zoo / f"pt-0/ft-0/model.epoch-{epoch:02}.safetensors")
        assert all(torch.equal(found[name], tensor) for name, tensor in on_disk(state).items())
    assert problems(zoo) == []


@pytest.mark.parametrize("member", [0, 2], ids=["parent", "child"])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_nan_weights(release: Release, tmp_path: Path, member: int, epoch: int) -> None:
    """At the end a model has diverged: its weights of before stay, it has no final ones, and no children."""
    model, zoo = release.models[member], tmp_path / "zoo"
    damage.add_tensor(model.checkpoints[epoch], "vit.norm.bias", NAN)
    report = import_tiny(release, zoo)
    member_id = ("pt-0", "", "pt-0/ft-0")[member]
    if member == 2 and epoch == 0:  # before its first step a child is its parent
        assert report.skipped.keys() == {place(model)}
        return
    record = load_member_record(zoo / member_id / "member.json")
    if epoch < 2:
        assert f"epoch {epoch} is not taken: a weight is not finite" in report.notes[place(model)]
        assert (record.status, record.epochs) == ("completed", 2)
        assert epochs(zoo, member_id) == [other for other in (0, 1, 2) if other != epoch] + [None]
        assert report.skipped == {}
    else:
        note = "epoch 2: a weight is not finite, so the model diverged: not taken"
        assert note in report.notes[place(model)]
        assert (record.status, record.last_good_epoch, epochs(zoo, member_id)) == ("diverged", 1, [0, 1])
        children = {place(child) for child in release.children_of(model)}
        assert report.skipped.keys() == children
    assert problems(zoo) == []


FORMS = ("zip", 0, 1, 2, 3, 4, 5)


def test_nothing_hostile_is_run(tmp_path: Path) -> None:
    """Neither by a look nor by an import, in whichever form and place it lies; every other checkpoint is taken."""
    cases = [(form, epoch) for form in FORMS for epoch in range(3)]
    release, zoo = many_children(tmp_path, len(cases)), tmp_path / "zoo"
    for number, ((form, epoch), child) in enumerate(zip(cases, release.children, strict=True)):
        path, marker = child.checkpoints[epoch], tmp_path / f"ran-{number}"
        if form == "zip":
            damage.make_malicious(path, marker, form="zip")
        else:
            path.write_bytes(pickle.dumps(damage._Bomb(marker), protocol=int(form)))
        path.with_name("optimizer").write_bytes(pickle.dumps(damage._Bomb(tmp_path / f"ran-{number}-beside")))
        path.with_name(".tune_metadata").write_bytes(path.with_name("optimizer").read_bytes())
    plan_release(release.root, zoo, model_types=MODEL_TYPES)
    report = import_tiny(release, zoo)
    assert list(tmp_path.glob("ran*")) == []
    assert report.skipped == {}
    assert list(report.taken.values()) == [place(model) for model in release.models]
    for (_, epoch), child in zip(cases, release.children, strict=True):
        (told,) = [note for note in report.notes[place(child)] if note.startswith(f"epoch {epoch} is not taken")]
        assert re.search("nothing in it was run|was not opened", told)
    for member in Zoo(zoo):
        assert len(kept := epochs(zoo, str(member.id))) == 3, kept
    assert problems(zoo) == []
    assert [name for name, content in contents(zoo).items() if b"ran-" in content] == []
    pickle.loads(release.children[3].checkpoints[0].read_bytes())
    assert (tmp_path / "ran-3").exists()  # it was live


@pytest.mark.parametrize("form", FORMS)
def test_a_parent_that_is_hostile(release: Release, tmp_path: Path, form: str | int) -> None:
    """All of it: it is not taken, its children neither, and the other family is."""
    parent, marker, zoo = release.parents[0], tmp_path / "ran", tmp_path / "zoo"
    for path in parent.checkpoints.values():
        if form == "zip":
            damage.make_malicious(path, marker, form="zip")
        else:
            path.write_bytes(pickle.dumps(damage._Bomb(marker), protocol=int(form)))
    report = import_tiny(release, zoo)
    assert not marker.exists()
    assert re.search("nothing in it was run|was not opened", report.skipped[place(parent)])
    assert list(report.taken) == ["pt-0", "pt-0/ft-0"]
