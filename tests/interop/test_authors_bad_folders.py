"""Folders that are no release, and zoo folders that hold something else: what was expected, and the nearest."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.imported import MODEL_TYPES, contents, import_tiny, place, problems, short_release
from tests.interop.release import Release
from vitzoo.errors import ReleaseError, SelectionError
from vitzoo.interop.authors.run import import_release, plan_release

EXPECTED = "expected a folder with pretraining/<model>/checkpoint_<number>/checkpoints and finetuning/<parent>/<model>/"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The short data set, not to be changed."""
    return short_release(tmp_path_factory.mktemp("short"))


@pytest.fixture
def copy(release: Release, tmp_path: Path) -> Path:
    return shutil.copytree(release.root, tmp_path / "dataset")


def _rename(names: dict[str, str]) -> Callable[[Path], Path]:
    def change(root: Path) -> Path:
        for old, new in names.items():
            os.rename(root / old, root / new)
        return root

    return change


def _only(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


def _model_at_the_top(root: Path) -> Path:
    model = _only(root, "pretraining/*")
    shutil.rmtree(root / "finetuning")
    shutil.copytree(model, root / model.name)
    shutil.rmtree(root / "pretraining")
    return root


def _empty(root: Path) -> Path:
    (root.parent / "empty").mkdir()
    return root.parent / "empty"


def _without_checkpoints(root: Path) -> Path:
    for path in root.rglob("checkpoints"):
        path.unlink()
    return root


SHAPES: list[tuple[str, Callable[[Path], Path], str]] = [
    ("missing", lambda root: root.with_name("datset"), "datset is not there; {expected}.*Name the release's folder"),
    ("a file", lambda root: _only(root, "pretraining/*/config.json"), "config.json is a file; {expected}"),
    ("empty", _empty, "empty is no release of the zoo: {expected}.* It holds: no folder"),
    ("the folder above", lambda root: root.parent, r"is no release .*{expected}.* One lies at .*dataset: name that"),
    ("two above", lambda root: root.parent.parent, r"is no release .*{expected}.* One lies at .*dataset: name that"),
    ("inside", lambda root: root / "pretraining", r"is no release .* One lies at .*dataset: name that"),
    ("a model", lambda root: _only(root, "pretraining/*"), r"is no release .* One lies at .*dataset: name that"),
    (
        "a typo",
        _rename({"pretraining": "pre-training", "finetuning": "fine-tuning"}),
        'Nearest: "pre-training"; is it pretraining?',
    ),
    ("capitals", _rename({"pretraining": "Pretraining", "finetuning": "Finetuning"}), 'Nearest: "Pretraining"'),
    ("a model by itself", _model_at_the_top, "It holds: cl_vit_s_16_seed_7"),
    ("no checkpoints", _without_checkpoints, r"holds no model: {expected}"),
]


@pytest.mark.parametrize(("change", "said"), [pytest.param(*case[1:], id=case[0]) for case in SHAPES])
def test_a_folder_of_another_shape(copy: Path, tmp_path: Path, change: Callable[[Path], Path], said: str) -> None:
    source, zoo = change(copy), tmp_path / "a/b/zoo"
    expected = said.replace("{expected}", re.escape(EXPECTED))
    with pytest.raises(ReleaseError, match=expected) as raised:
        import_tiny(source, zoo)
    assert vars(raised.value)["path"] == source
    with pytest.raises(ReleaseError, match=expected):
        plan_release(source, zoo, model_types=MODEL_TYPES)
    assert not zoo.exists()


def test_a_single_model(copy: Path, tmp_path: Path) -> None:
    """Taken out of its release, it is told where it belongs."""
    model = Path(shutil.move(_only(copy, "pretraining/*"), tmp_path / "alone/model"))
    expected = "It is a single model; put it into pretraining/ of a folder, and name that folder"
    with pytest.raises(ReleaseError, match=expected):
        import_tiny(model, tmp_path / "zoo")
    shutil.copytree(model, tmp_path / "mended/pretraining/model")
    assert import_tiny(tmp_path / "mended", tmp_path / "zoo").taken == {"pt-0": "pretraining/model"}


@pytest.mark.parametrize("missing", ["pretraining", "finetuning"])
def test_half_a_release(copy: Path, tmp_path: Path, missing: str) -> None:
    shutil.rmtree(copy / missing)
    if missing == "finetuning":
        report = import_tiny(copy, tmp_path / "zoo")
        assert (list(report.taken), report.skipped) == (["pt-0", "pt-1"], {})
        assert problems(tmp_path / "zoo") == []
        return
    with pytest.raises(ReleaseError, match=r"no model of it can be taken: finetuning/.*its parent .* is not taken"):
        import_tiny(copy, tmp_path / "zoo")


def test_folders_that_are_no_models(copy: Path, release: Release, tmp_path: Path) -> None:
    """Told, and passed over; what is hidden, or a file, is nobody's business."""
    zoo = tmp_path / "zoo"
    (copy / "pretraining/notes").mkdir()
    (copy / "pretraining/.cache").mkdir()
    (copy / "pretraining/README").write_text("models")
    (copy / "pretraining/numbered/checkpoint_x").mkdir(parents=True)
    shutil.copytree(_only(copy, "finetuning/*/*"), copy / "finetuning/model")
    empty = copy / "pretraining" / release.parents[0].name / "checkpoint_000007"
    empty.mkdir()
    report = import_tiny(copy, zoo)
    assert report.skipped == {
        "pretraining/notes": "holds no checkpoint_<number>/checkpoints",
        "pretraining/numbered": "holds no checkpoint_<number>/checkpoints",
        "finetuning/model": "lies where a parent's folder is expected: finetuning/<parent>/<model>",
    }
    assert report.notes == {place(release.parents[0]): ("checkpoint_000007 holds no file checkpoints: not taken",)}
    assert list(report.taken) == ["pt-0", "pt-0/ft-0", "pt-0/ft-1", "pt-1", "pt-1/ft-0"]
    assert problems(zoo) == []


def test_names_that_are_no_text(copy: Path, release: Release, tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and control characters: folders are told apart, and nothing falls over."""
    zoo = tmp_path / "zoo"
    os.mkdir(os.fsencode(copy / "pretraining") + b"/\xff\xfe")
    name = release.parents[1].name
    for folder in ("pretraining", "finetuning"):
        os.rename(copy / folder / name, copy / folder / f"{name}\x1b[31m\n[red]")
    report = import_tiny(copy, zoo)
    assert len(report.skipped) == 1
    assert len(report.taken) == 5
    assert problems(zoo) == []


def test_a_model_whose_name_is_no_text(copy: Path, release: Release, tmp_path: Path) -> None:
    name = os.fsencode(release.parents[1].name)
    for folder in (b"pretraining/", b"finetuning/"):
        os.rename(os.fsencode(copy) + b"/" + folder + name, os.fsencode(copy) + b"/" + folder + name + b"\xff")
    report = import_tiny(copy, tmp_path / "zoo")
    assert {"pt-0", "pt-0/ft-0", "pt-0/ft-1"} <= report.taken.keys()
    assert problems(tmp_path / "zoo") == []


def test_a_zoo_that_was_trained(release: Release, tiny_copy: Path) -> None:
    before = contents(tiny_copy)
    expected = rf"{tiny_copy} holds the zoo of the recipe tiny, which was not imported\. Name another folder"
    with pytest.raises(ReleaseError, match=expected):
        import_tiny(release, tiny_copy)
    assert contents(tiny_copy) == before


def test_a_folder_of_something_else(release: Release, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "thesis.tex").write_text("x")
    with pytest.raises(ReleaseError, match=rf"{zoo} is not empty\. Name a new folder for the zoo"):
        import_tiny(release, zoo)
    assert contents(zoo) == {"thesis.tex": b"x"}
    with pytest.raises(ReleaseError, match=r"thesis\.tex is a file\. Name a new folder for the zoo"):
        import_tiny(release, zoo / "thesis.tex")


def test_the_release_itself(copy: Path) -> None:
    before = contents(copy)
    for zoo in (copy, copy / "pretraining"):
        with pytest.raises(ReleaseError, match="is not empty"):
            import_tiny(copy, zoo)
    assert contents(copy) == before


def test_other_epochs(release: Release, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    import_tiny(release, zoo, epochs="last")
    before = contents(zoo)
    expected = rf"{zoo} was imported with --epochs last, not all\. Go on with those, or name another folder"
    with pytest.raises(ReleaseError, match=expected):
        import_tiny(release, zoo)
    assert contents(zoo) == before
    assert import_tiny(release, zoo, epochs="last").read == 0


def test_arguments(release: Release, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    with pytest.raises(SelectionError, match='epochs "first" are no choice of epochs: expected "all", "last"'):
        import_tiny(release, zoo, epochs="first")
    for options in ({"jobs": 0}, {"jobs": -1}, {"check": -1}):
        ((name, value),) = options.items()
        with pytest.raises(ValueError, match=rf"{name} (is )?{value}"):
            import_tiny(release, zoo, **options)
    expected = 'no model of it can be taken: .*model::type is "vit_test".*vit_s_16'
    with pytest.raises(ReleaseError, match=expected):
        import_release(release.root, zoo)
    assert not zoo.exists()


def test_a_zoo_that_cannot_be_written(release: Release, tmp_path: Path) -> None:
    """Below a file, which no right of any user helps."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(ReleaseError, match=rf"{tmp_path}/file/zoo"):
        import_tiny(release, tmp_path / "file/zoo")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(release: Release, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ReleaseError, match="zoo"):
            import_tiny(release, tmp_path / "zoo")
    finally:
        tmp_path.chmod(0o700)
