"""Test that a lease has one holder at a time, whatever happens to processes, machines and clocks."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from training import lease
from training.lease import EXPIRY, Holder, LeaseHeld, LeaseLost, acquire, age_of, clear, holder_of

HOLD = (
    "import sys; from pathlib import Path; from training.lease import acquire; "
    "held = acquire(Path(sys.argv[1]), 'pt-0'); print(held.path.name, flush=True); sys.stdin.read()"
)
COUNT = (
    "import sys, time; from pathlib import Path; from training.lease import acquire; folder = Path(sys.argv[1])\n"
    "for _ in range(int(sys.argv[2])):\n"
    "    held = acquire(folder, 'pt-0', patience=60)\n"
    "    number = int((folder.parent / 'number').read_text()); time.sleep(.001)\n"
    "    held.check(); (folder.parent / 'number').write_text(str(number + 1)); held.release()\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "leases").mkdir()
    return tmp_path / "leases"


def write(folder: Path, *, number: int = 1, name: str = "pt-0", **changes: Any) -> Path:
    """Write the lease of a living process on another machine, with changes."""
    values = {"host": "elsewhere", "boot": "b", "namespace": "pid:[1]", "process": 7, "started": 5, "nonce": "n"}
    path = folder / f"{name}.{number:06}"
    path.write_text(json.dumps({**values, "format": 1, **changes}))
    return path


def touched(path: Path, *, ago: float) -> Path:
    """Set a file's time to some seconds ago, by the file system's clock."""
    os.utime(path)
    now = path.stat().st_mtime
    os.utime(path, (now - ago, now - ago))
    return path


def test_lease_exists_while_it_is_held(folder: Path) -> None:
    held = acquire(folder, "pt-0")
    assert json.loads((folder / "pt-0.000001").read_text())["process"] == os.getpid()
    assert holder_of(folder, "pt-0") == held.holder
    held.check()
    held.release()
    held.release()
    assert list(folder.iterdir()) == []
    assert holder_of(folder, "pt-0") is None


def test_leases_with_a_common_prefix_are_independent(folder: Path) -> None:
    names = ["pt-0", "pt-0.ft-0", "pt-0.ft-00", "pt-1"]
    leases = [acquire(folder, name) for name in names]
    assert [held.path.name for held in leases] == [f"{name}.000001" for name in names]
    for held in leases:
        held.release()


def test_lease_of_a_killed_process_is_free(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "pt-0.000001\n"
        with pytest.raises(LeaseHeld) as error:
            acquire(folder, "pt-0")
        assert error.value.holder.startswith(f"process {process.pid} on ")
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie: its number is still in use
        assert holder_of(folder, "pt-0") is None
        held = acquire(folder, "pt-0")
        assert [path.name for path in folder.iterdir()] == ["pt-0.000002"]
        held.release()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # newer Pythons than 3.11
def test_release_all_deletes_leases_but_not_in_a_fork(folder: Path) -> None:
    held = [acquire(folder, name) for name in ("pt-0", "pt-1")]
    fork = os.fork()
    if fork == 0:
        lease.release_all()
        os._exit(0)
    os.waitpid(fork, 0)
    assert len(list(folder.iterdir())) == 2
    lease.release_all()
    assert list(folder.iterdir()) == []
    for lease_of_parent in held:
        lease_of_parent.release()


def test_competing_processes_take_turns(folder: Path) -> None:
    (folder.parent / "number").write_text("0")
    command = [sys.executable, "-c", COUNT, str(folder), "25"]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 3
    assert (folder.parent / "number").read_text() == "75"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("ago", "changes", "free"),
    [
        (0, {}, False),
        (EXPIRY - 5, {}, False),
        (EXPIRY + 5, {}, True),
        (-EXPIRY + 5, {}, False),  # another clock wrote it
        (-EXPIRY - 5, {}, True),  # the clock was set back: it would be held for ever
        (0, {"process": os.getpid()}, False),  # a number of another machine
        (EXPIRY + 5, {"process": os.getpid()}, True),
    ],
)
def test_lease_of_another_machine_is_over_when_it_was_not_touched(
    ago: float, changes: dict[str, Any], free: bool, folder: Path
) -> None:
    touched(write(folder, **changes), ago=ago)
    assert (holder_of(folder, "pt-0") is None) == free
    if free:
        held = acquire(folder, "pt-0")
        assert held.path.name == "pt-0.000002"
        assert [path.name for path in folder.iterdir()] == ["pt-0.000002"]
        held.release()
    else:
        with pytest.raises(LeaseHeld) as error:
            acquire(folder, "pt-0")
        assert error.value.holder.endswith("on elsewhere")


def test_lease_of_this_machine_is_over_when_its_process_is_gone(folder: Path) -> None:
    here = Holder.here()
    place: dict[str, Any] = {"host": here.host, "boot": here.boot, "namespace": here.namespace, "process": here.process}
    path = write(folder, **place, started=here.started)
    assert holder_of(folder, "pt-0") is not None
    write(folder, **place, started=here.started - 1)  # that process number had an earlier owner
    assert holder_of(folder, "pt-0") is None
    write(folder, **{**place, "namespace": "pid:[2]"}, started=here.started - 1)  # a container's own numbers
    assert holder_of(folder, "pt-0") is not None
    write(folder, **{**place, "boot": "an earlier one"}, started=here.started)  # or another machine of that name
    assert holder_of(folder, "pt-0") is not None
    assert age_of(path) is not None


@pytest.mark.parametrize("text", ["", '{"format": 1', "[]", '{"format": 1, "host": "a"}', "\udcff\x00"])
def test_unreadable_lease_is_held_until_it_is_old(text: str, folder: Path) -> None:
    path = folder / "pt-0.000001"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(LeaseHeld):
        acquire(folder, "pt-0")
    touched(path, ago=EXPIRY + 5)
    acquire(folder, "pt-0").release()
    assert list(folder.iterdir()) == []


def test_held_lease_is_touched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.01)
    held = acquire(folder, "pt-0")
    touched(held.path, ago=50)
    again = threading.Event()
    for _ in range(1000):
        if (age_of(held.path) or 0) < 40:
            break
        again.wait(0.01)
    else:
        pytest.fail("it was not touched for 10 s")
    held.release()


def test_former_holder_gets_an_error_and_deletes_nothing(folder: Path) -> None:
    held = acquire(folder, "pt-0")
    write(folder, nonce=held.holder.nonce)  # as if it were another machine's
    touched(held.path, ago=EXPIRY + 5)
    other = acquire(folder, "pt-0")
    with pytest.raises(LeaseLost, match="pt-0"):
        held.check()
    held.release()
    other.check()
    assert [path.name for path in folder.iterdir()] == ["pt-0.000002"]
    other.release()


def test_higher_number_wins(folder: Path) -> None:
    held = acquire(folder, "pt-0")
    write(folder, number=2)
    with pytest.raises(LeaseLost):
        held.check()
    held.release()


def test_clear_deletes_leases_that_are_over(folder: Path) -> None:
    touched(write(folder), ago=EXPIRY + 5)
    touched(write(folder, name="pt-0.ft-0"), ago=EXPIRY + 5)
    clear(folder, "pt-0")
    assert [path.name for path in folder.iterdir()] == ["pt-0.ft-0.000001"]
    write(folder)
    clear(folder, "pt-0")  # its process lives
    assert len(list(folder.iterdir())) == 2


def test_full_disk_leaves_no_lease(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        acquire(folder, "pt-0")
    assert list(folder.iterdir()) == []
