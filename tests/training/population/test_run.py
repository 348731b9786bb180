"""Whole runs in real processes, ended in every way that a run can be ended, and started again.

Each test compares with ``tiny_zoo``, which was trained in one process without a disturbance.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from tests.conftest import ROOT
from tests.tiny import tiny
from tests.training.population.command import broken, diverging
from training.population.run import run_population
from training.publish.plan import plan_publication
from vitzoo import layout, records
from vitzoo.errors import EpochNotFoundError
from vitzoo.folder import FolderSource
from vitzoo.ids import MemberId
from vitzoo.metadata import build_tables
from vitzoo.verification.verify import verify_zoo
from vitzoo.zoo import Zoo

MEMBERS = 11
PATIENCE = 120  # seconds after which a test gives up; nothing is asserted about time

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command line in a session of its own; its output goes to ``<out>.<n>.log``."""
    started: list[subprocess.Popen[str]] = []

    def begin(recipe: str, out: Path, *, workers: int, preexec_fn: Callable[[], None] | None = None):
        with open(out.with_name(f"{out.name}.{len(started)}.log"), "w") as log:
            process = subprocess.Popen(
                [*COMMAND, "run", recipe, "--out", str(out), "--workers", str(workers)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                preexec_fn=preexec_fn,
            )
        process.log = Path(log.name)  # type: ignore[attr-defined]
        started.append(process)
        return process

    yield begin
    for process in started:
        for one in session(process):
            one.kill()
        process.wait()


COMMAND = [sys.executable, "-m", "tests.training.population.command"]


def session(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that a start began, itself included, as far as they live."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == process.pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(psutil.Process(pid))
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    return found


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [one for one in session(process) if "spawn_main" in " ".join(one.cmdline())]


def said_by(process: subprocess.Popen[str]) -> str:
    return process.log.read_text()  # type: ignore[attr-defined]


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Look again and again, until it is so."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            pytest.fail(f"the run ended with {process.returncode} before it got there:\n{said_by(process)}")
        if time.monotonic() > give_up:
            pytest.fail("it never came")
        time.sleep(0.001)


def end(process: subprocess.Popen[str]) -> int:
    return process.wait(timeout=PATIENCE)


def finished(folder: Path) -> list[str]:
    """Ids of the members that stand in the zoo."""
    files = [*folder.glob("pt-*/member.json"), *folder.glob("pt-*/ft-*/member.json")]
    return sorted(path.parent.relative_to(folder).as_posix() for path in files)


def under_way(folder: Path) -> dict[str, list[dict[str, float]]]:
    """The lines of timing.jsonl that each unfinished member goes on from, and will not write again."""
    found = {}
    for path in (folder / ".training" / "resume").glob("[!.]*.safetensors"):
        member = path.stem.replace(".", "/")
        # It may end at any moment, and then safetensors or torch, whichever opens it, finds no file.
        with contextlib.suppress(FileNotFoundError, RuntimeError), safe_open(path, "pt") as file:
            found[member] = json.loads(file.metadata()["state"])["timings"]
    return {member: lines for member, lines in found.items() if member not in finished(folder)}


def stop_when(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Freeze all processes of a start at a moment when something is so, and still is once they stand still."""

    def stopped() -> bool:
        if not condition():
            return False
        os.killpg(process.pid, signal.SIGSTOP)
        wait_until(lambda: all(one.status() == psutil.STATUS_STOPPED for one in session(process)))
        if condition():
            return True
        os.killpg(process.pid, signal.SIGCONT)
        return False

    wait_until(stopped, process)


def timings_of(folder: Path, member: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / member / "timing.jsonl").read_text().splitlines()]


def leave_halves(folder: Path) -> None:
    """What a process leaves that is ended while it writes: files begun and lines torn."""
    resumed = under_way(folder)
    for member in (folder / ".training" / "members").iterdir():
        (member / ".model.epoch-02.safetensors.partial").write_bytes(b"\0" * 9)
        if len(resumed.get(member.name.replace(".", "/"), ())) < 3:
            (member / "model.epoch-02.safetensors").write_bytes(b"\0" * 9)
        (member / ".member.json.partial").write_text('{"format": 1,')
        for name in ("metrics.jsonl", "timing.jsonl"):
            with open(member / name, "a") as file:
                file.write('{"epoch": 2, "st')
        (folder / ".training" / "resume" / f".{member.name}.safetensors.partial").write_bytes(b"\0" * 9)


def touched(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, time and size of every file of the finished members."""
    paths = [path for member in finished(folder) for path in (folder / member).iterdir() if path.is_file()]
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in paths}
    return {name: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in stats.items()}


def content(folder: Path) -> dict[str, str]:
    """Digest of every file of a zoo but those that hold clock times and the trainer's own."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "timing.jsonl"]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not name.startswith(".training/")
    }


def check_whole(folder: Path, reference: Path) -> None:
    """The zoo is the undisturbed one, byte for byte, and nothing is left of its making."""
    assert content(folder) == content(reference)
    assert list((folder / ".training" / "members").iterdir()) == []
    assert list((folder / ".training" / "resume").iterdir()) == []
    for member in finished(folder):
        assert [line["epoch"] for line in timings_of(folder, member)] == [0, 1, 2]


def check_order(folder: Path) -> None:
    """No child started before its parent was done."""
    children = [member for member in finished(folder) if "/" in member]
    assert len(children) == MEMBERS - 3
    for child in children:
        begun = timings_of(folder, child)[0]["finished_at"]
        assert begun >= timings_of(folder, child.split("/")[0])[-1]["finished_at"], child


def check_members_whole(folder: Path) -> None:
    """What counts as done has every file, as its record says."""
    source = FolderSource(folder)
    for member in source.member_ids():
        for weights in source.member_record(member).weights:
            path = source.path(layout.weights_file(member, weights.epoch))
            assert path.stat().st_size == weights.size
            assert hashlib.sha256(path.read_bytes()).hexdigest() == weights.sha256
        assert len(records.load_epoch_records(source.path(layout.metrics_file(member)))) == 3


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_killed_at_any_moment_and_started_again(seed: int, tiny_zoo: Path, tmp_path: Path, start: Start) -> None:
    draw, folder = random.Random(seed), tmp_path / "zoo"

    # The whole process group, in the middle of one of the first members.
    run, wanted, epochs = start("tiny", folder, workers=1), draw.choice([0, 1, 2]), draw.choice([1, 2])
    stop_when(
        lambda: len(finished(folder)) >= wanted and any(len(lines) == epochs for lines in under_way(folder).values()),
        run,
    )
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    wait_until(lambda: not session(run))
    assert wanted <= len(finished(folder)) < MEMBERS
    first_lines, first_done = under_way(folder), touched(folder)
    leave_halves(folder)

    # The driver alone: its workers end by themselves.
    run, wanted = start("tiny", folder, workers=2), len(finished(folder)) + draw.choice([1, 2, 3])
    stop_when(lambda: len(finished(folder)) >= wanted and under_way(folder), run)
    second_lines, second_done = under_way(folder), touched(folder)
    assert len(workers_of(run)) == 2
    os.kill(run.pid, signal.SIGKILL)
    os.killpg(run.pid, signal.SIGCONT)
    run.wait()
    wait_until(lambda: not session(run))
    assert wanted <= len(finished(folder)) < MEMBERS
    leave_halves(folder)

    # One worker; the run goes on with another.
    run, wanted = start("tiny", folder, workers=1), draw.choice(range(len(finished(folder)) + 1, MEMBERS))
    stop_when(lambda: MEMBERS > len(finished(folder)) >= wanted, run)
    third_done = touched(folder)
    (worker,) = workers_of(run)
    worker.kill()
    os.killpg(run.pid, signal.SIGCONT)
    assert end(run) == 0
    wait_until(lambda: not session(run))

    check_whole(folder, tiny_zoo)
    assert first_lines
    assert second_lines
    for member, lines in [*first_lines.items(), *second_lines.items()]:
        assert timings_of(folder, member)[: len(lines)] == lines  # it went on, rather than anew
    for done in (first_done, second_done, third_done):
        assert done.items() <= touched(folder).items()


def test_a_second_start_on_a_folder_says_so_and_the_first_ends_well(
    tiny_zoo: Path, tmp_path: Path, start: Start
) -> None:
    folder = tmp_path / "zoo"
    first = start("tiny", folder, workers=2)
    wait_until(lambda: under_way(folder), first)
    os.killpg(first.pid, signal.SIGSTOP)  # so that it cannot end before the second has looked
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".lock"}
    second = start("tiny", folder, workers=2)
    assert end(second) == 1
    assert said_by(second) == (
        f"error: Another run is at work on {folder}. Wait for it to end, or end it; nothing was changed.\n"
    )
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".lock"} == before
    os.killpg(first.pid, signal.SIGCONT)
    assert end(first) == 0
    assert f"{MEMBERS} members are done in {folder}." in said_by(first)
    wait_until(lambda: not session(first))
    check_whole(folder, tiny_zoo)
    check_order(folder)


def test_a_failing_member_takes_only_its_children_with_it(tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "zoo"
    run = start("broken", folder, workers=1)
    assert end(run) == 1
    said, log = said_by(run), folder / ".training" / "logs" / "pt-0.log"
    (failure,) = [line for line in said.splitlines() if line.startswith("failed pt-0: DatasetError:")]
    assert "digits-10-12" in failure
    assert failure.endswith(f"(log: {log})")
    assert "skipped 2 members whose parent failed or diverged: pt-0/ft-0, pt-0/ft-1" in said
    assert f"3 members are done in {folder}." in said
    assert log.read_text().startswith("Traceback")
    assert "DatasetError" in log.read_text()
    assert finished(folder) == ["pt-1", "pt-1/ft-0", "pt-1/ft-1"]
    table = pq.read_table(folder / layout.table_file("members"))
    assert table.column("id").to_pylist() == finished(folder)
    assert table.equals(build_tables(FolderSource(folder))["members"])

    before = touched(folder)
    outcome = run_population(broken(), folder, workers=1)  # nothing was mended: all is as before
    assert [str(member) for member in outcome.done] == finished(folder)
    assert list(outcome.failed) == [MemberId(0)]
    assert outcome.skipped == [MemberId(0, 0), MemberId(0, 1)]
    assert touched(folder) == before
    assert log.read_text().count("Traceback") == 2


def test_a_diverged_member_is_an_outcome(tmp_path: Path, start: Start) -> None:
    """It stays in the zoo and its tables, its children are skipped, and nobody trains it again."""
    folder = tmp_path / "zoo"
    run = start("diverging", folder, workers=2)
    assert end(run) == 0
    said = said_by(run)
    for member in ("pt-0", "pt-1/ft-1"):
        assert re.search(rf"^diverged {member}: its loss was not finite after step 1 of \d+, at a peak", said, re.M)
    assert "skipped 2 members whose parent failed or diverged: pt-0/ft-0, pt-0/ft-1" in said
    assert f"2 members are done in {folder}." in said
    assert finished(folder) == ["pt-0", "pt-1", "pt-1/ft-0", "pt-1/ft-1"]
    zoo = Zoo(folder)
    rows = zoo.table("members").to_pylist()
    assert [(row["id"], row["status"], row["diverged_step"], row["last_good_epoch"]) for row in rows] == [
        ("pt-0", "diverged", 1, 0),
        ("pt-1", "completed", None, None),
        ("pt-1/ft-0", "completed", None, None),
        ("pt-1/ft-1", "diverged", 1, 0),
    ]
    assert [row["sha256"] is None for row in rows] == [True, False, False, True]
    assert [str(ref.member) for ref in zoo.select()] == ["pt-1", "pt-1/ft-0"]
    assert zoo.select(status="diverged", epoch=0).ids == [MemberId(0), MemberId(1, 1)]
    with pytest.raises(EpochNotFoundError, match=r"it diverged after step 1\); kept is 0; load it with epoch=0"):
        zoo["pt-0"].load()
    assert verify_zoo(zoo).problems == ()
    publication = plan_publication(FolderSource(folder), to="org/zoo")
    assert {str(file.path) for file in publication.files} >= {"pt-0/model.epoch-00.safetensors", "pt-0/member.json"}

    before = touched(folder)
    outcome = run_population(diverging(), folder, workers=1)
    assert list(outcome.diverged) == [MemberId(0), MemberId(1, 1)]
    assert outcome.skipped == [MemberId(0, 0), MemberId(0, 1)]
    assert touched(folder) == before


def test_files_that_cannot_grow_fail_their_member_and_are_never_taken_for_done(
    tiny_copy: Path, tiny_zoo: Path, start: Start
) -> None:
    for member in ("pt-1", "pt-2/ft-1"):
        shutil.rmtree(tiny_copy / member)
    kept = finished(tiny_copy)
    # Too little for the state of AdamW, enough for that of SGD and for the tables.
    limit = 26_000
    assert max(path.stat().st_size for path in tiny_zoo.rglob("*") if path.is_file()) < limit
    run = start(
        "tiny", tiny_copy, workers=1, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert end(run) == 1
    assert re.search(
        r"failed pt-1: TrainingError: pt-1: epoch 1, .* cannot be written to .*: File too large", said_by(run)
    )
    assert finished(tiny_copy) == sorted([*kept, "pt-2/ft-1"])
    check_members_whole(tiny_copy)
    before = touched(tiny_copy)
    outcome = run_population(tiny(), tiny_copy, workers=1)
    assert len(outcome.done) == MEMBERS
    assert not outcome.failed
    check_whole(tiny_copy, tiny_zoo)
    assert before.items() <= touched(tiny_copy).items()


FULL_DISK = """
set -e
mount -t tmpfs -o size=400k tmpfs "$1"
"$2" -m tests.training.population.command run tiny --out "$1/zoo" --workers 1 > "$3/first.log" 2>&1 && exit 10
cp -r "$1/zoo" "$3/first"
mount -o remount,size=50m "$1"
"$2" -m tests.training.population.command run tiny --out "$1/zoo" --workers 1 > "$3/second.log" 2>&1 || exit 11
cp -r "$1/zoo" "$3/second"
"""


@pytest.mark.slow  # files that cannot grow, above, show the same in every run
def test_a_full_disk_is_said_and_a_run_with_room_ends_well(tiny_zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    try:
        mount = ["unshare", "-Urm", "sh", "-c", f"mount -t tmpfs tmpfs {tmp_path}/disk"]
        tried = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare on this machine")
    if tried.returncode:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.strip()}")
    command = ["unshare", "-Urm", "sh", "-c", FULL_DISK, "sh", str(tmp_path / "disk"), sys.executable, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first = (tmp_path / "first.log").read_text()
    assert re.search(r"failed: TrainingError: .* cannot be written to .*: No space left on device \(.* free", first)
    assert "the same command goes on" in first
    assert "Traceback" not in first
    assert 0 < len(finished(tmp_path / "first")) < MEMBERS
    check_members_whole(tmp_path / "first")
    check_whole(tmp_path / "second", tiny_zoo)
