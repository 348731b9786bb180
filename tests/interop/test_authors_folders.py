"""Folders that are not a release, and zoo folders that hold something else, are refused."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest

from tests.interop.imported import contents, import_tiny, place, problems, short_release, tiny_job
from tests.interop.release import Release
from vitzoo.errors import ReleaseError, SelectionError, printable
from vitzoo.interop.authors import facts
from vitzoo.interop.authors.job import Import
from vitzoo.interop.authors.run import import_release, plan_release

ALL = ["pt-0", "pt-0/ft-0", "pt-0/ft-1", "pt-1", "pt-1/ft-0"]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The short data set, not to be changed."""
    return short_release(tmp_path_factory.mktemp("short"))


@pytest.fixture
def copy(release: Release, tmp_path: Path) -> Path:
    return shutil.copytree(release.root, tmp_path / "dataset")


def _only(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


def _without_checkpoints(root: Path) -> Path:
    for path in root.rglob("checkpoints"):
        path.unlink()
    return root


SHAPES: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "missing": (lambda root: root.with_name("datset"), "does not exist", ""),
    "a file": (lambda root: _only(root, "pretraining/*/config.json"), "is a file", ""),
    "the folder above": (lambda root: root.parent, "is not a release", "dataset"),
    "inside": (lambda root: root / "pretraining", "is not a release", "sl_vit"),
    "a typo": (lambda root: os.rename(root / "pretraining", root / "pre-training") or shutil.rmtree(root / "finetuning")
               or root, "is not a release", "Nearest: pre-training"),
    "no checkpoints": (_without_checkpoints, "holds no model", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_folder_of_another_shape_is_refused(copy: Path, tmp_path: Path, name: str) -> None:
    change, problem, hint = SHAPES[name]
    source, zoo = change(copy), tmp_path / "a/b/zoo"
    for run in (import_release, plan_release):
        with pytest.raises(ReleaseError) as refused:
            run(tiny_job(source, zoo))
        assert refused.value.path == source
        assert problem in refused.value.problem
        assert "pretraining/<model>/checkpoint_<number>" in str(refused.value.expected)
        assert hint in str(refused.value.fix)
    assert not zoo.exists()


def test_parents_alone_are_a_release_and_children_alone_are_not(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "pretraining", tmp_path / "alone/pretraining")
    report = import_tiny(tmp_path / "alone", tmp_path / "zoo")
    assert (list(report.taken), report.skipped) == (["pt-0", "pt-1"], {})
    with pytest.raises(ReleaseError) as refused:
        import_tiny(copy, tmp_path / "other")
    assert re.search("no model .*: finetuning/.*its parent .* is not taken", refused.value.problem)


def test_folders_that_are_not_models_are_skipped(copy: Path, release: Release, tmp_path: Path) -> None:
    """Hidden folders and files are passed over; control characters and bytes that are not UTF-8 do no harm."""
    zoo = tmp_path / "zoo"
    (copy / "pretraining/notes").mkdir()
    (copy / "pretraining/.cache").mkdir()
    (copy / "pretraining/README").write_text("models")
    (copy / "pretraining/numbered/checkpoint_x").mkdir(parents=True)
    shutil.copytree(_only(copy, "finetuning/*/*"), copy / "finetuning/model")
    (copy / "pretraining" / release.parents[0].name / "checkpoint_000007").mkdir()
    os.mkdir(os.fsencode(copy / "pretraining") + b"/\xff\xfe")
    name = release.parents[1].name
    renamed = f"{name}\x1b[31m\n[red]"
    for folder in ("pretraining", "finetuning"):
        os.rename(copy / folder / name, copy / folder / renamed)
    report = import_tiny(copy, zoo)
    assert report.skipped == {
        "pretraining/notes": "holds no checkpoint_<number>/checkpoints",
        "pretraining/numbered": "holds no checkpoint_<number>/checkpoints",
        "finetuning/model": "is where a parent's folder is expected: finetuning/<parent>/<model>",
        r"pretraining/\udcff\udcfe": "its name is not UTF-8. Rename it",
    }
    first, second = place(release.parents[0]), f"finetuning/{printable(renamed)}/{release.children[2].name}"
    assert report.notes[first] == ["checkpoint_000007 holds no file checkpoints: not taken"]
    assert report.notes[second] == [
        f"is under {printable(renamed)}, its config names {name}: it starts with the weights of {printable(renamed)}"
    ]
    assert list(report.taken) == ALL
    assert problems(zoo) == []


def test_zoo_folder_that_holds_something_else_is_refused(release: Release, copy: Path, tiny_copy: Path) -> None:
    thesis, file = tiny_copy / "thesis", tiny_copy / "thesis/thesis.tex"
    thesis.mkdir()
    file.write_text("x")
    for zoo, expected in (
        (tiny_copy, "recipe tiny"),
        (thesis, "is not empty"),
        (file, "is a file"),
        (copy / "pretraining", "is not empty"),
        (file / "below/zoo", "cannot be written: Not a directory"),
    ):
        before = contents(zoo)
        with pytest.raises(ReleaseError) as refused:
            import_tiny(release, zoo)
        assert refused.value.path == zoo
        assert expected in refused.value.problem
        assert contents(zoo) == before


def test_other_epochs_are_refused(release: Release, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    import_tiny(release, zoo, epochs="last")
    before = contents(zoo)
    with pytest.raises(ReleaseError) as refused:
        import_tiny(release, zoo)
    assert "--epochs last" in refused.value.problem
    assert contents(zoo) == before
    assert import_tiny(release, zoo, epochs="last").read == 0


def test_arguments_out_of_range_are_refused(release: Release, tmp_path: Path) -> None:
    with pytest.raises(SelectionError) as selection:
        import_tiny(release, tmp_path / "zoo", epochs="first")
    assert selection.value.value == "first"
    for name, value in (("jobs", 0), ("check", -1)):
        with pytest.raises(ValueError, match=rf"{name} (is )?{value}"):
            import_tiny(release, tmp_path / "zoo", **{name: value})
    with pytest.raises(ReleaseError) as refused:
        import_release(Import(source=release.root, root=tmp_path / "zoo"))
    assert 'model::type is "vit_test"; expected "vit_s_16"' in refused.value.problem
    assert not (tmp_path / "zoo").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_refused(release: Release, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ReleaseError, match="Permission denied"):
            import_tiny(release, tmp_path / "zoo")
    finally:
        tmp_path.chmod(0o700)


def test_command_refuses_before_torch_is_imported(release: Release, tiny_zoo: Path, tmp_path: Path) -> None:
    """Each refusal in a process that then lists its modules; nothing is written."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    source, zoo = str(release.root), str(tmp_path / "zoo")
    refusals = [
        ["import", "authors", "missing", zoo],
        ["import", "authors", str(tmp_path), zoo],
        ["import", "authors", source, zoo, "--epochs", "some"],
        ["import", "authors", source, zoo],  # model::type is not ViT-S/16
        ["import", "authors", source, str(tmp_path / "full")],
        ["import", "authors", source, str(tmp_path / "full/file/zoo")],
        ["import", "authors", source, str(tiny_zoo)],
        ["export", "nothing", str(tmp_path / "out"), "--to", "timm"],
        ["export", f"{tiny_zoo}/pt-99", str(tmp_path / "out"), "--to", "timm"],
        ["export", f"{tiny_zoo}/pt-0@99", str(tmp_path / "out"), "--to", "onnx"],
        ["export", f"{tiny_zoo}/pt-0", str(tmp_path / "full"), "--to", "timm"],
        ["export", f"{tmp_path}/pt-0", str(tmp_path / "out"), "--to", "timm"],
    ]
    code = (
        "import os, sys\nfrom vitzoo.cli import main\n"
        f"for arguments in {refusals!r}:\n"
        "    sys.argv = ['vitzoo', *arguments]\n"
        "    try:\n        main()\n"
        "    except SystemExit as ended:\n        assert ended.code == 1, arguments\n"
        "    heavy = {'torch', 'transformers', 'pyarrow'} & sys.modules.keys()\n"
        "    assert not heavy, (arguments, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: ") == len(refusals)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_vit_s_16_has_the_sizes_of_the_config_class_and_of_the_paper() -> None:
    from vitzoo import VitZooConfig

    config = VitZooConfig()
    for name in facts.VIT_S_16.__slots__:
        assert getattr(config, name) == getattr(facts.VIT_S_16, name)
    shapes = facts.VIT_S_16.shape(outputs=1000, head_width=None).tensor_shapes()
    assert sum(map(prod, shapes.values())) == 22_050_664
