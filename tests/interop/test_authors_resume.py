"""An import may end at any moment: the next one makes the missing members, and the zoo does not show it."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tests.forking import fork
from tests.interop import damage
from tests.interop.imported import contents, import_tiny, import_until_killed, place, problems, short_release
from tests.interop.release import Release
from vitzoo.cli import main
from vitzoo.errors import ReleaseError

REPORT = ".training/import/report.json"


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return short_release(tmp_path)


@pytest.fixture(scope="module")
def short_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo of the short data set from an undisturbed import."""
    folder = tmp_path_factory.mktemp("short")
    import_tiny(short_release(folder), folder / "zoo")
    return folder / "zoo"


def interrupt_after(count: int, release: Release, zoo: Path) -> None:
    """Import one model at a time, and press Ctrl-C after ``count`` checkpoints."""
    done = 0

    def progress(work: str, size: int, total: int) -> None:
        nonlocal done
        done += work == "importing"
        if done == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_tiny(release, zoo, jobs=1, progress=progress)


def assert_same_zoo(zoo: Path, undisturbed: Path) -> None:
    found, expected = contents(zoo), contents(undisturbed)
    assert found.keys() == expected.keys()
    assert [name for name, content in expected.items() if found[name] != content and name != REPORT] == []
    resumed, straight = (json.loads(files[REPORT]) | {"read": 0} for files in (found, expected))
    assert resumed == straight


@pytest.mark.slow
def test_killed_import_resumes(release: Release, short_zoo: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    for checkpoints in (2, 4, 3):
        process = fork(import_until_killed, release.root, zoo, checkpoints)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert list(zoo.glob("pt-*"))
    assert list(zoo.glob(".training/import/pt-*"))  # a member that was not finished
    written = {path: path.stat().st_mtime_ns for path in zoo.glob("pt-*/**/member.json")}
    import_tiny(release, zoo)
    assert_same_zoo(zoo, short_zoo)
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.parametrize("count", [1, 7])
def test_interrupted_import_keeps_whole_members(release: Release, short_zoo: Path, tmp_path: Path, count: int) -> None:
    """The release has checkpoints: 3 and 2 of parents, then 3, 2 and 2 of children."""
    zoo = tmp_path / "zoo"
    interrupt_after(count, release, zoo)
    assert len(list(zoo.glob("pt-*"))) == (0 if count == 1 else 2)
    assert list(zoo.glob(".training/import/pt-*")) == []
    report = import_tiny(release, zoo)
    assert_same_zoo(zoo, short_zoo)
    sizes = [path.stat().st_size for model in release.models for path in model.checkpoints.values()]
    skipped = 0 if count == 1 else sum(p.stat().st_size for m in release.parents for p in m.checkpoints.values())
    assert report.read == sum(sizes) - skipped


def test_command_ends_with_130_when_interrupted(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(job: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vitzoo.interop.authors.run.import_release", interrupt)
    monkeypatch.setattr("os._exit", sys.exit)
    monkeypatch.setattr(sys, "argv", ["vitzoo", "import", "authors", str(release.root), str(tmp_path / "zoo")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert "Interrupted" in capsys.readouterr().err


def test_second_import_is_refused_while_one_runs(release: Release, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    (zoo / REPORT).parent.mkdir(parents=True)
    with FileLock(zoo / ".training/import/lock"), pytest.raises(ReleaseError) as refused:
        import_tiny(release, zoo)
    assert refused.value.path == zoo
    assert "running" in refused.value.problem


def test_source_that_changed_after_an_interruption_is_read_again(release: Release, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    interrupt_after(2, release, zoo)
    damage.set_tensor(release.parents[0].checkpoints[2], "vit.norm.bias", torch.full((64,), 0.5))
    shutil.rmtree(release.root / "finetuning")  # its first weights were the former ones
    import_tiny(release, zoo)
    import_tiny(release, tmp_path / "undisturbed")
    found, expected = contents(zoo), contents(tmp_path / "undisturbed")
    assert [name for name in expected if name.startswith("pt-0") and found[name] != expected[name]] == []


def test_fixed_model_is_imported_again_and_a_deleted_source_stays(release: Release, tmp_path: Path) -> None:
    zoo, child = tmp_path / "zoo", release.children[0]
    sound = {path: path.read_bytes() for path in child.checkpoints.values()}
    for path in sound:
        damage.truncate(path)
    first = import_tiny(release, zoo)
    assert list(first.skipped) == [place(child)]
    for path, content in sound.items():
        path.write_bytes(content)
    shutil.rmtree(release.parents[1].folder)
    again = import_tiny(release, zoo)
    assert {member: folder for member, folder in again.taken.items() if member in first.taken} == first.taken
    assert place(child) in again.taken.values()
    assert problems(zoo) == []
