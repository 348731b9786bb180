"""Test the state of a zoo, read from folders of real training: running, killed, failed, diverged, done."""

import json
import os
import re
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.forking import fork
from tests.tiny import tiny
from tests.training.population.command import diverging
from tests.training.population.processes import wait_until
from tests.training.population.trainers import train_and_stop
from training.__main__ import app
from training.attempts import note_attempt
from training.cli.status import describe
from training.lease import EXPIRY
from training.member.report import Report
from training.member.train import train_member
from training.population import status as status_module
from training.population.estimates import bytes_left, hours_left, seconds_an_epoch
from training.population.status import Status, read_status
from training.recipes import RECIPES
from training.recipes.plan import plan_members
from training.recipes.recipe import parse_recipe
from training.workspace import Workspace, attempts_file, leases_root, log_file, work_root
from vitzoo.errors import ZooNotFoundError
from vitzoo.ids import MemberId
from vitzoo.records import TimingRecord, json_files

ELSEWHERE = {"format": 1, "host": "b", "boot": "x", "namespace": "n", "process": 7, "started": 5, "nonce": "f"}
FAILED = {"attempt": 3, "of": 3, "kind": "failed", "reason": "r", "host": "b", "at": 5.0}
TINY = plan_members(tiny())


def read(folder: Path) -> Status:
    """Read the state, and assert that nothing in the folder changes."""
    before = {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in (folder, *folder.rglob("*"))}
    status = read_status(folder)
    assert before == {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in (folder, *folder.rglob("*"))}
    return status


def counts(status: Status) -> dict[str, int]:
    return {state: count for state, count in status.counts.items() if count}


def of(status: Status, id: str) -> Any:
    return next(member for member in status.members if str(member.id) == id)


def shown(status: Status, *, everyone: bool = False) -> str:
    console = Console(width=1000)
    with console.capture() as capture:
        console.print(describe(status, everyone=everyone))
    return capture.get()


def write_lease(folder: Path, name: str, *, ago: float = 0.0, number: int = 1, **changes: object) -> None:
    path = leases_root(folder) / f"{name}.{number:06}"
    path.write_text(json.dumps(ELSEWHERE | changes))
    os.utime(path, (time.time() - ago, time.time() - ago))


def write_attempts(folder: Path, member: MemberId, *lines: str | dict[str, object]) -> None:
    path = attempts_file(folder, member)
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(FAILED | line) for line in lines) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a zoo folder without members."""
    return Workspace(tmp_path / "zoo", tiny()).root


def test_members_that_have_not_begun_wait(folder: Path) -> None:
    status = read(folder)
    assert (counts(status), status.waiting_for_parent, status.waiting_with_epochs) == ({"waiting": 11}, 8, 0)
    assert (status.share_done, status.throughput, status.hours_left) == (0.0, None, None)
    assert (status.bytes_written, status.bytes_left) == (0, sum(member.bytes for member in TINY))
    assert not status.is_over
    assert status.bytes_left is not None
    assert shown(status).splitlines()[:2] == [
        f"tiny in {folder}: 0 of 11 members done, 0 running, 11 waiting (8 for their parent)",
        "work: 0.0% of the operations done",
    ]
    assert "warning" not in shown(status)
    assert "warning: the disk lacks 1.0 kB. Make room" in shown(replace(status, bytes_free=status.bytes_left - 1000))


def test_finished_zoo_is_over(tiny_zoo: Path) -> None:
    status = read(tiny_zoo)
    assert counts(status) == {"done": 11}
    assert (status.share_done, status.hours_left, status.bytes_left, status.notes) == (1.0, None, 0, ())
    assert status.bytes_written == sum(path.stat().st_size for path in tiny_zoo.rglob("model.epoch-*.safetensors"))
    assert {(member.epoch, member.epochs) for member in status.members} == {(2, 2)}
    assert status.is_over


def test_member_under_way_has_speed_and_estimates(folder: Path) -> None:
    seen: list[tuple[Status, list[dict[str, float]], int]] = []

    def report(progress: Report) -> None:
        if (progress.epoch, progress.step) == (1, 0):
            work = next(work_root(folder).iterdir()) / "member"
            lines = [json.loads(line) for line in (work / "timing.jsonl").read_text().splitlines()]
            seen.append((read_status(folder), lines, sum(path.stat().st_size for path in work.glob("model*"))))

    train_member(Workspace(folder, tiny()), TINY[0], report=report)
    ((status, lines, size),) = seen
    member, speed = of(status, "pt-0"), lines[1]["throughput"]
    assert (member.state, member.epoch, member.epochs, member.throughput) == ("running", 1, 2, speed)
    assert (member.host, member.process) == (socket.gethostname(), os.getpid())
    assert 0 <= member.seconds_silent < EXPIRY
    assert counts(status) == {"running": 1, "waiting": 10}
    assert status.throughput == speed
    work, half = sum(member.flops for member in TINY), TINY[0].flops / 2
    assert status.share_done == pytest.approx(half / work)
    seconds = lines[1]["finished_at"] - lines[0]["finished_at"]
    assert status.hours_left == pytest.approx((work - half) / half * seconds / 3600, abs=1e-4)
    assert (status.bytes_written, status.bytes_left) == (size, sum(member.bytes for member in TINY) - size)
    row = rf"^pt-0 +1/2 +{speed:,.0f} +\d+ s ago +process {os.getpid()} on {socket.gethostname()}$"
    assert re.search(row, shown(status), re.MULTILINE)
    assert counts(read(folder)) == {"done": 1, "waiting": 10}


@pytest.mark.slow
def test_stopped_process_is_stalled_and_a_killed_one_leaves_its_member_waiting(tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    process = fork(train_and_stop, folder)
    try:
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        member = of(read(folder), "pt-0")
        assert (member.state, member.process, member.epoch) == ("running", process.pid, 1)
        (lease,) = leases_root(folder).iterdir()
        os.utime(lease, (0.0, time.time() - EXPIRY - 60))
        status = read(folder)
        member = of(status, "pt-0")
        assert (member.state, member.process, member.epoch) == ("stalled", process.pid, 1)
        assert member.seconds_silent > EXPIRY
        assert (status.hours_left, status.is_over) == (None, False)
        assert "stalled pt-0: its process gave no sign of life for more than 120 s; another run" in shown(status)
        os.utime(lease)
    finally:
        process.kill()
        process.join()
    status = read(folder)
    member = of(status, "pt-0")
    assert (member.state, member.host, member.process, member.epoch, member.throughput) == (
        "waiting",
        None,
        None,
        1,
        None,
    )
    assert status.bytes_written > 0
    assert "11 waiting (8 for their parent, 1 with finished epochs)" in shown(status)


def test_failed_member_has_a_reason_and_its_children_are_skipped(tiny_copy: Path) -> None:
    shutil.rmtree(tiny_copy / "pt-1")
    workspace = Workspace(tiny_copy, tiny())
    for attempt in (1, 2):
        note_attempt(attempts_file(tiny_copy, MemberId(1)), attempt=attempt, of=2, kind="failed", reason="no card")
    status = read(tiny_copy)
    assert counts(status) == {"done": 8, "failed": 1, "skipped": 2}
    member = of(status, "pt-1")
    assert (member.failed_attempts, member.reason, member.log) == (2, "no card", log_file(tiny_copy, MemberId(1)))
    assert of(status, "pt-1/ft-0").reason == "pt-1 failed"
    assert (status.is_over, status.bytes_left, status.hours_left) == (True, 0, None)
    assert status.share_done is not None
    assert 0 < status.share_done < 1
    assert f"failed pt-1: 2 failed attempts, the last: no card (log: {member.log})" in shown(status)
    with workspace.hold(MemberId(1)):  # another run tries it again
        status = read(tiny_copy)
        assert (of(status, "pt-1").state, of(status, "pt-1/ft-0").state) == ("running", "waiting")
        assert "running pt-1: 2 failed attempts, the last: " in shown(status)


def test_diverged_member_is_an_outcome_and_its_children_are_skipped(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, diverging())
    for member in plan_members(diverging()):
        if member.id.parent != 0 or member.id.is_parent:
            train_member(workspace, member)
    status = read(tmp_path)
    assert counts(status) == {"done": 2, "diverged": 2, "skipped": 2}
    assert of(status, "pt-0/ft-1").reason == "pt-0 diverged"
    assert of(status, "pt-0").epoch == 0
    assert "not finite after step 1 of" in of(status, "pt-0").reason
    assert (status.share_done, status.bytes_left, status.is_over) == (1.0, 0, True)


@pytest.mark.parametrize(
    ("attempts", "ago", "state"),
    [
        ([{"attempt": 1}], None, "waiting"),
        ([{"kind": "died"}], None, "failed"),
        ([{"kind": "full"}], None, "waiting"),  # not counted as an attempt
        ([{}, {"attempt": 1}], None, "waiting"),  # a later run
        ([{}], 5.0, "running"),
        ([{}], EXPIRY + 60, "failed"),
        ([], EXPIRY + 60, "stalled"),
        ([], -EXPIRY - 60, "stalled"),  # a clock was set
        (["torn", {}, '{"attempt": 1, "of": '], None, "failed"),
        (["[" * 100_000], None, "waiting"),
    ],
)
def test_state_follows_from_attempts_and_lease(
    attempts: list[Any], ago: float | None, state: str, folder: Path
) -> None:
    write_attempts(folder, MemberId(0), *attempts)
    if ago is not None:
        write_lease(folder, "pt-0", ago=ago)
    status = read(folder)
    assert of(status, "pt-0").state == state
    assert of(status, "pt-0/ft-0").state == ("skipped" if state == "failed" else "waiting")


def test_epochs_are_read_from_the_work_folder_of_the_holder(folder: Path) -> None:
    def write_timing(nonce: str, epoch: int, *, finished_at: float = 1.0) -> None:
        path = work_root(folder) / f"pt-0@{nonce}" / "member" / "timing.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"epoch": epoch, "finished_at": finished_at}) + "\n")

    write_attempts(folder, MemberId(0), {})
    for finished_at, state in ((4.0, "failed"), (6.0, "waiting")):  # an epoch after the last attempt
        write_timing("f", 1, finished_at=finished_at)
        assert of(read(folder), "pt-0").state == state
    for nonce, epoch in (("a", 1), ("f", 2), ("z", 0)):
        write_timing(nonce, epoch)
    (work_root(folder) / "pt-0@a" / "resume.safetensors").touch()
    assert of(read(folder), "pt-0").epoch == 1  # the next holder resumes from it
    write_lease(folder, "pt-0", number=1, nonce="z")
    write_lease(folder, "pt-0", number=2)
    assert of(read(folder), "pt-0").epoch == 2


def test_hostile_and_damaged_files_are_shown_as_damaged_or_ignored(tiny_copy: Path) -> None:
    Workspace(tiny_copy, tiny())
    (tiny_copy / "pt-0/member.json").write_text('{"format": 1, "id"')
    (tiny_copy / "pt-1/member.json").unlink()
    (tiny_copy / "pt-1/member.json").symlink_to("/proc/self/environ")
    record = json.loads((tiny_copy / "pt-2/member.json").read_text())
    (tiny_copy / "pt-2/member.json").write_text(json.dumps(record | {"format": 2}))
    (tiny_copy / "pt-2/ft-0/member.json").write_text(json.dumps(record | {"id": "pt-2/ft-0", "weights": [1]}))
    (tiny_copy / "pt-2/ft-1/timing.jsonl").write_text('{"epoch": 1e999}\n[]\n{"epoch": 1, "finished_at": NaN}\n{"ep')
    for child in range(4):
        (tiny_copy / f"pt-0/ft-{child}/member.json").unlink()
    leases = leases_root(tiny_copy)
    (leases / "pt-0.ft-0.000001").write_bytes(b"\xff\xfe{")
    (leases / "pt-0.ft-1.000001").mkdir()
    os.mkfifo(leases / "pt-0.ft-2.000001")
    write_lease(tiny_copy, "pt-0.ft-3", host="\x1b[31m[red]a\n\u202e")
    write_attempts(tiny_copy, MemberId(0, 3), {"attempt": 1, "reason": "\ud800[blink]\x07"})
    status = read(tiny_copy)
    assert counts(status) == {"done": 3, "running": 2, "waiting": 2, "damaged": 4}
    assert {str(member.id) for member in status.in_state("damaged")} == {"pt-0", "pt-1", "pt-2", "pt-2/ft-0"}
    assert [of(status, f"pt-0/ft-{child}").state for child in range(4)] == ["running", "waiting", "waiting", "running"]
    assert of(status, "pt-0/ft-0").process is None
    for everyone in (False, True):
        text = shown(status, everyone=everyone)
        assert all(character == "\n" or character.isprintable() for character in text)
        assert r"\x1b[31m[red]a\n\u202e" in text
        assert r"\ud800[blink]\x07" in text
    assert "is a link to" in of(status, "pt-1").reason
    assert json.loads(status.as_json())["members"][0]["state"] == "damaged"


def test_recipe_of_another_version_shows_members_that_have_begun(tiny_copy: Path) -> None:
    Workspace(tiny_copy, tiny())
    write_lease(tiny_copy, "pt-7.ft-1")
    zoo = json.loads((tiny_copy / "zoo.json").read_text())
    recipe = zoo["recipe"] | {"colour": "red"}
    zoo |= {"recipe": recipe, "recipe_sha256": json_files.json_sha256(recipe)}
    (tiny_copy / "zoo.json").write_text(json.dumps(zoo))
    status = read(tiny_copy)
    assert counts(status) == {"done": 11, "running": 1}
    assert (of(status, "pt-7/ft-1").epoch, of(status, "pt-7/ft-1").epochs) == (0, None)
    assert (status.recipe, status.share_done, status.hours_left, status.bytes_left) == ("tiny", None, None, None)
    (note,) = status.notes
    assert "colour" in note
    assert " 0/- " in shown(status)


@pytest.mark.parametrize("make", [*RECIPES.values(), tiny])
def test_recipe_in_zoo_json_gives_the_same_plan(make: Any) -> None:
    plain = json.loads(json.dumps(json_files.as_json(make())))
    assert plan_members(parse_recipe(plain, Path("zoo.json"))) == plan_members(make())


def test_folder_that_is_not_a_zoo_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZooNotFoundError) as error:
        read_status(tmp_path)
    assert error.value.zoo == str(tmp_path)


def timings(*finished: float, first: int = 0) -> list[TimingRecord]:
    return [TimingRecord(epoch=epoch, finished_at=at) for epoch, at in enumerate(finished, start=first)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (timings(100.0), None),
        (timings(100.0, 110.0, 9000.0), 10.0),  # it was interrupted
        (timings(0.0, 10.0, 22.0, 1000.0, 1011.0), 11.0),
        (timings(50.0, 40.0, 52.0, first=3), 12.0),  # a clock was set back
        ([*timings(0.0), *timings(5.0, 6.0, first=4)], 1.0),
    ],
)
def test_seconds_an_epoch_is_the_median(given: list[TimingRecord], expected: float | None) -> None:
    assert seconds_an_epoch(given) == expected


def test_hours_left_depend_on_the_kind_and_the_longest_chain() -> None:
    supervised, contrastive, child = TINY[0], TINY[8], TINY[1]
    assert (contrastive.training.objective, child.id.is_parent) == ("contrastive", False)
    measured = {supervised.id: timings(0.0, 36.0), contrastive.id: timings(0.0, 72.0, 144.0)}  # .01 and .02 hours

    def hours(left: dict[MemberId, float], slots: int) -> float | None:
        return hours_left(TINY, left=left, timings=measured, slots=slots)

    assert hours({supervised.id: 0.5}, 1) == pytest.approx(0.01)
    assert hours({supervised.id: 0.5, contrastive.id: 1.0}, 1) == pytest.approx(0.05)
    assert hours({supervised.id: 0.5, contrastive.id: 1.0}, 2) == pytest.approx(0.04)  # the second alone
    rate = (supervised.flops / 2 + contrastive.flops) / (36 + 144)  # of a kind without finished epochs
    chain = 0.01 + child.flops / rate / 3600
    assert hours({supervised.id: 0.5, child.id: 1.0}, 8) == pytest.approx(chain, abs=1e-4)
    assert hours({}, 1) == 0.0
    assert hours({supervised.id: 0.5}, 0) is None
    assert hours_left(TINY, left={supervised.id: 1.0}, timings={}, slots=1) is None


def test_bytes_left_depend_on_the_epochs_that_done_members_saved() -> None:
    member, other, third = TINY[:3]
    assert bytes_left(TINY, left=[other.id], done=[], written={other.id: 100}) == other.bytes - 100
    saved = {member.id: member.bytes // 3, other.id: 7}
    left = bytes_left(TINY, left=[other.id, third.id], done=[member.id], written=saved)
    assert left == round(other.bytes / 3) - 7 + round(third.bytes / 3)
    assert bytes_left(TINY, left=[other.id], done=[], written={other.id: 10**9}) == 0


def test_many_members_fit_on_a_terminal(tmp_path: Path) -> None:
    Workspace(tmp_path, RECIPES["paper"]())
    for parent in range(10):
        write_attempts(tmp_path, MemberId(parent), {})
        for child in range(24):
            write_lease(tmp_path, f"pt-{parent}.ft-{child}")
    status = read_status(tmp_path)
    assert counts(status) == {"running": 240, "failed": 10}
    lines = shown(status).splitlines()
    assert len(lines) < 32
    assert "and 224 more: --all lists them" in lines
    assert "and 4 more failed: --json has them all" in lines
    assert sum(line.startswith("pt-") for line in shown(status, everyone=True).splitlines()) == 250


def run_status(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["status", *arguments], catch_exceptions=False)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_command_prints_text_and_json(tiny_zoo: Path) -> None:
    first, work, disk = run_status(str(tiny_zoo)).splitlines()
    assert first == f"tiny in {tiny_zoo}: 11 of 11 members done, 0 running, 0 waiting"
    assert work == "work: 100.0% of the operations done"
    assert re.fullmatch(r"disk: [\d.]+ kB written, 0 B to come, [\d.]+ .B free", disk)
    (line,) = run_status(str(tiny_zoo), "--json", "--watch").splitlines()  # ends, as nothing runs or waits
    values = json.loads(line)
    documented = re.findall(r'"(\w+)": ', status_module.__doc__ or "")
    keys = [*values, *values["counts"], *values["members"][0]]
    assert sorted(documented) == sorted(keys)
    assert (values["format"], values["members"][0]["id"], values["members"][0]["state"]) == (1, "pt-0", "done")


def test_watch_ends_by_an_interrupt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = iter([None])

    def sleep(seconds: float) -> None:
        if next(pauses, seconds) is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr("training.cli.status.time.sleep", sleep)
    output = run_status(str(folder), "--watch", "--every", "0.1")
    assert sum(line.startswith("tiny in ") for line in output.splitlines()) == 2
