"""An import may end at any moment: the next goes on from there, and nothing of the zoo shows that it ended."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.interop import damage
from tests.interop.import_process import ImportProcesses
from tests.interop.imported import contents, import_tiny, place, problems, short_release
from tests.interop.release import Release
from vitzoo.errors import ReleaseError

REPORT = ".training/import/report.json"
Marks = dict[str, tuple[int, int]]


class _Stop(BaseException):
    """Ends an import from within."""


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImportProcesses]:
    started = ImportProcesses(tmp_path_factory.mktemp("processes") / "log")
    yield started
    started.close()


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return short_release(tmp_path)


@pytest.fixture(scope="module")
def short_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What becomes of the short data set, undisturbed."""
    folder = tmp_path_factory.mktemp("short")
    import_tiny(short_release(folder), folder / "zoo")
    return folder / "zoo"


def stop_after(count: int, release: Release, zoo: Path) -> None:
    """Import, one model at a time, until ``count`` checkpoints are done."""
    done = 0

    def tell(what: str, size: int, total: int) -> None:
        nonlocal done
        done += what == "importing"
        if done == count:
            raise _Stop

    with pytest.raises(_Stop):
        import_tiny(release, zoo, jobs=1, progress=tell)


def weights(zoo: Path) -> list[Path]:
    return [path for path in zoo.rglob("*.safetensors") if path.is_file()]


def finished(zoo: Path) -> Marks:
    """Weights that are done, by name and size, to the file that it is and when it was written."""
    marks = {}
    for path in zoo.glob("pt-*/**/member.json"):
        for file in path.parent.glob("model.epoch-*.safetensors"):
            marks[f"{path.parent.relative_to(zoo)}/{file.name}"] = (file.stat().st_ino, file.stat().st_mtime_ns)
    for journal in zoo.glob(".training/import/*/done.jsonl"):
        for line in journal.read_text().splitlines(keepends=True):
            if line.endswith("\n") and (journal.parent / "member").is_dir():  # it has not just become a member
                name = json.loads(line)["file"]
                stat = (journal.parent / "member" / name).stat()
                marks[f"{journal.parent.name.replace('.', '/')}/{name}"] = (stat.st_ino, stat.st_mtime_ns)
    return marks


def wait_for(zoo: Path, count: int, pid: int) -> bool:
    """Wait until there are so many weights files; False where the process ended before."""
    while True:
        try:
            if len(weights(zoo)) >= count:
                return True
            os.kill(pid, 0)
        except FileNotFoundError:  # a folder was renamed under the listing
            continue
        except ProcessLookupError:
            return False
        time.sleep(0.001)


def assert_same_zoo(zoo: Path, undisturbed: Path) -> None:
    found, expected = contents(zoo), contents(undisturbed)
    assert found.keys() == expected.keys()
    assert [name for name, content in expected.items() if found[name] != content and name != REPORT] == []
    resumed, straight = (json.loads(files[REPORT]) | {"read": 0} for files in (found, expected))
    assert resumed == straight


def test_killed_at_any_moment(
    processes: ImportProcesses, authors_release: Release, authors_zoo: Path, tmp_path: Path
) -> None:
    zoo, killed = tmp_path / "zoo", 0
    for count in (1, 3, 6, 10, 15, 21, 28, 36, 44):
        before = finished(zoo) if zoo.exists() else {}
        pid = processes.start(authors_release.root, zoo)
        if wait_for(zoo, count, pid):
            os.kill(pid, signal.SIGKILL)
        status = processes.wait()
        assert status in (0, -signal.SIGKILL), processes.printed()
        killed += status != 0
        after = finished(zoo)
        assert {name: after[name] for name in before} == before  # not made again
    assert killed >= 3
    processes.start(authors_release.root, zoo)
    assert processes.wait() == 0, processes.printed()
    assert_same_zoo(zoo, authors_zoo)
    assert problems(zoo) == []


def test_interrupted(processes: ImportProcesses, authors_release: Release, authors_zoo: Path, tmp_path: Path) -> None:
    """Ctrl-C: exit status 130, a line that says what to do, and nothing that is no whole file."""
    for attempt in range(10):
        zoo = tmp_path / f"zoo-{attempt}"
        pid = processes.start(authors_release.root, zoo, "--jobs", 1)
        assert wait_for(zoo, 2, pid)
        os.kill(pid, signal.SIGINT)
        status = processes.wait()
        if status != 0:  # it was not done before the signal came
            break
    else:
        pytest.fail("no import was ever interrupted")
    assert status == 130
    assert "Interrupted. Finished checkpoints are kept; the same command goes on from there." in processes.printed()
    assert "Traceback" not in processes.printed()
    assert len(finished(zoo)) > 0
    assert [path for path in zoo.rglob("*") if path.name.endswith(".partial")] == []
    report = import_tiny(authors_release, zoo)
    assert report.complete
    assert_same_zoo(zoo, authors_zoo)


def test_second_import_is_refused_while_one_runs(
    processes: ImportProcesses, authors_release: Release, authors_zoo: Path, tmp_path: Path
) -> None:
    zoo, pid = tmp_path, 0
    for attempt in range(10):
        zoo = tmp_path / f"zoo-{attempt}"
        pid = processes.start(authors_release.root, zoo, "--jobs", 1)
        assert wait_for(zoo, 2, pid)
        os.kill(pid, signal.SIGSTOP)
        if not (zoo / REPORT).exists():
            break
        os.kill(pid, signal.SIGCONT)
        processes.wait()
    with pytest.raises(ReleaseError, match=rf"Another import into {zoo} is running\. Wait for it\."):
        import_tiny(authors_release, zoo)
    os.kill(pid, signal.SIGCONT)
    assert processes.wait() == 0
    assert_same_zoo(zoo, authors_zoo)


@pytest.mark.parametrize("count", [1, 7, 12])
def test_finished_checkpoints_are_not_read_again(release: Release, short_zoo: Path, tmp_path: Path, count: int) -> None:
    """Twelve checkpoints: 3 and 2 of parents, then 3, 2 and 2 of children; it ends within or behind a model."""
    zoo = tmp_path / "zoo"
    stop_after(count, release, zoo)
    before = finished(zoo)
    assert len(before) == count
    report = import_tiny(release, zoo)
    after = finished(zoo)
    assert {name: after[name] for name in before} == before
    models = {place(model): model for model in release.models}
    sizes = {
        f"{member}/model.epoch-{epoch:02}.safetensors": path.stat().st_size
        for member, folder in report.taken.items()
        for epoch, path in models[folder].checkpoints.items()
    }
    assert sizes.keys() == after.keys()
    assert_same_zoo(zoo, short_zoo)
    assert report.read == sum(size for name, size in sizes.items() if name not in before)


@pytest.mark.parametrize("epoch", [0, 2])
def test_changed_source_is_read_again(release: Release, tmp_path: Path, epoch: int) -> None:
    zoo = tmp_path / "zoo"
    stop_after(2, release, zoo)
    (journal,) = zoo.glob(".training/import/*/done.jsonl")
    noted = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [entry["epoch"] for entry in noted] == [2, 0]  # of pt-0: the final weights first
    damage.set_tensor(release.parents[0].checkpoints[epoch], "vit.norm.bias", torch.full((64,), 0.5))
    shutil.rmtree(release.root / "finetuning")  # whose first weights were the former ones
    import_tiny(release, zoo)
    import_tiny(release, tmp_path / "undisturbed")
    found, expected = contents(zoo), contents(tmp_path / "undisturbed")
    assert [name for name in expected if found[name] != expected[name] and name.startswith("pt-0")] == []


@pytest.mark.parametrize("harm", ["cut journal", "garbage journal", "no journal", "changed weights", "cut weights"])
def test_damaged_work_is_done_again(release: Release, short_zoo: Path, tmp_path: Path, harm: str) -> None:
    """What a machine that lost its power may leave."""
    zoo = tmp_path / "zoo"
    stop_after(2, release, zoo)
    (journal,) = zoo.glob(".training/import/*/done.jsonl")
    file = journal.parent / "member" / json.loads(journal.read_text().splitlines()[1])["file"]
    if harm == "cut journal":
        damage.truncate(journal, keep=0.8)
    elif harm == "garbage journal":
        journal.write_text('{"epoch": 1}\n[]\nnull\n"\n{"epoch": 0, "size": "x"}\n')
    elif harm == "no journal":
        journal.unlink()
    elif harm == "changed weights":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        damage.truncate(file)
    (journal.parent / "member" / "model.epoch-01.safetensors.123.partial").write_bytes(b"x")
    import_tiny(release, zoo)
    assert_same_zoo(zoo, short_zoo)


def test_fixed_model_is_imported_again(release: Release, tmp_path: Path) -> None:
    """A model that was not taken is, under its id, once it is fixed."""
    zoo, child = tmp_path / "zoo", release.children[0]
    sound = {path: path.read_bytes() for path in child.checkpoints.values()}
    for path in sound:
        damage.truncate(path)
    first = import_tiny(release, zoo)
    assert list(first.skipped) == [place(child)]
    for path, content in sound.items():
        path.write_bytes(content)
    again = import_tiny(release, zoo)
    assert again.skipped == {}
    assert {member: folder for member, folder in again.taken.items() if member in first.taken} == first.taken
    assert place(child) in again.taken.values()
    assert problems(zoo) == []


def test_deleted_parent_folder_keeps_its_members(release: Release, tmp_path: Path) -> None:
    """Of a release that is half there, what a zoo has stays."""
    zoo = tmp_path / "zoo"
    whole = import_tiny(release, zoo)
    before = contents(zoo)
    shutil.rmtree(release.parents[0].folder)
    report = import_tiny(release, zoo)
    assert report.taken == whole.taken
    assert {name: text for name, text in contents(zoo).items() if name != REPORT} == {
        name: text for name, text in before.items() if name != REPORT
    }
