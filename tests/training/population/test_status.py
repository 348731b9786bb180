"""Where a zoo stands, read from the folder that real training left: under way, killed, failed, diverged, done."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.tiny import tiny
from tests.training.population.command import broken, diverging
from training.cli.status import describe
from training.lease import EXPIRY
from training.member.report import Report
from training.member.train import train_member
from training.population.left import bytes_left, hours_left, seconds_an_epoch
from training.population.local import LocalEngine
from training.population.run import RunOptions, run_population
from training.population.status import Status, read_status
from training.population.traces import Timing
from training.recipes import RECIPES
from training.recipes.plan import PlannedMember, plan_members
from training.recipes.recipe import Recipe
from training.workspace import Workspace, attempts_path, leases_root, work_root
from vitzoo.errors import FormatVersionError, RecordError, ZooNotFoundError
from vitzoo.ids import MemberId
from vitzoo.records import json_files

STATES = ("done", "diverged", "running", "stalled", "waiting", "failed", "skipped", "damaged")
ELSEWHERE = {"format": 1, "host": "b", "boot": "x", "namespace": "n", "process": 7, "started": 5, "nonce": "f"}

# Trains pt-0, and stays where the first epoch is finished.
STAYS = """
import sys, time
from pathlib import Path
from tests.tiny import tiny
from training.member.train import train_member
from training.recipes.plan import plan_members
from training.workspace import Workspace
def stay(report):
    if report.epoch == 1:
        print("there", flush=True)
        time.sleep(600)
train_member(Workspace(Path(sys.argv[1]), tiny()), plan_members(tiny())[0], report=stay)
"""


def everything(folder: Path) -> dict[Path, tuple[int, int]]:
    """What lies in a folder, itself included, and when it was changed: a file that came and went changes its folder."""
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in (folder, *folder.rglob("*"))}


def look(folder: Path) -> Status:
    """The status, after which nothing is changed."""
    before = everything(folder)
    found = read_status(folder)
    assert everything(folder) == before
    return found


def counts(found: Status) -> dict[str, int]:
    """The states that there are."""
    return {state: count for state, count in found.counts.items() if count}


def of(found: Status, member: str) -> Any:
    return next(one for one in found.members if str(one.id) == member)


def shown(found: Status, *, everyone: bool = False) -> str:
    return "\n".join(describe(found, everyone=everyone))


def begin(folder: Path, recipe: Recipe | None = None) -> Workspace:
    return Workspace(folder, recipe or tiny())


def write_lease(folder: Path, name: str, *, ago: float = 0.0, number: int = 1, **changes: object) -> Path:
    path = leases_root(folder) / f"{name}.{number:06}"
    path.write_text(json.dumps(ELSEWHERE | changes))
    os.utime(path, (time.time() - ago, time.time() - ago))
    return path


def planned_bytes(members: list[PlannedMember]) -> int:
    return sum(member.bytes for member in members)


def test_what_has_not_begun_waits(tmp_path: Path) -> None:
    begin(tmp_path)
    found = look(tmp_path)
    assert (counts(found), found.waiting_for_parent, found.waiting_with_epochs) == ({"waiting": 11}, 8, 0)
    assert (found.share_done, found.images_per_second, found.hours_left) == (0.0, None, None)
    assert (found.bytes_written, found.bytes_left) == (0, planned_bytes(plan_members(tiny())))
    assert not found.is_over
    assert shown(found).splitlines()[:2] == [
        f"[bold]tiny[/] in {tmp_path}: 0 of 11 members done, 0 running, 11 waiting (8 for their parent)",
        "work: 0.0% of the operations done, - images/s now, - left",
    ]


def test_a_finished_zoo(tiny_zoo: Path) -> None:
    found = look(tiny_zoo)
    assert counts(found) == {"done": 11}
    assert (found.share_done, found.hours_left, found.bytes_left, found.notes) == (1.0, None, 0, ())
    weights = [path.stat().st_size for path in tiny_zoo.rglob("model.epoch-*.safetensors")]
    assert found.bytes_written == sum(weights)
    assert {(one.epoch, one.epochs) for one in found.members} == {(2, 2)}
    assert found.is_over


def test_a_member_under_way_and_what_is_reckoned_from_it(tmp_path: Path) -> None:
    workspace, planned = begin(tmp_path), plan_members(tiny())
    seen: list[Status] = []

    def report(told: Report) -> None:
        if told.epoch == 1 and told.step == 0:
            folder = next(work_root(tmp_path).iterdir()) / "member"
            lines = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
            before, after = (line["finished_at"] for line in lines[:2])
            seconds.append(after - before)
            speeds.append(lines[1]["images_per_second"])
            sizes.append(sum(path.stat().st_size for path in folder.glob("model*")))
            seen.append(read_status(tmp_path))

    seconds: list[float] = []
    speeds: list[float] = []
    sizes: list[int] = []
    train_member(workspace, planned[0], report=report)
    (found,) = seen
    one = of(found, "pt-0")
    assert (one.state, one.epoch, one.epochs, one.images_per_second) == ("running", 1, 2, speeds[0])
    assert (one.host, one.process) == (socket.gethostname(), os.getpid())
    assert 0 <= one.seconds_silent < EXPIRY
    assert counts(found) == {"running": 1, "waiting": 10}
    assert found.images_per_second == speeds[0]
    work = sum(member.flops for member in planned)
    assert found.share_done == pytest.approx(planned[0].flops / 2 / work)
    hours = (work - planned[0].flops / 2) / (planned[0].flops / 2) * seconds[0] / 3600
    assert found.hours_left == pytest.approx(hours, abs=1e-4)
    assert found.bytes_written == sizes[0]
    assert found.bytes_left == planned_bytes(planned) - sizes[0]
    text = shown(found)
    assert f"process {os.getpid()} on {socket.gethostname()}" in text
    assert re.search(rf"^pt-0 +1/2 +{speeds[0]:,.0f} ", text, re.MULTILINE)
    assert counts(look(tmp_path)) == {"done": 1, "waiting": 10}


@pytest.fixture
def staying(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is at pt-0 of ``zoo``, one epoch of which is finished."""
    command = [sys.executable, "-c", STAYS, str(tmp_path / "zoo")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process
        process.kill()


def test_a_process_that_stands_still_and_one_that_is_killed(staying: subprocess.Popen[str], tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    one = of(look(zoo), "pt-0")
    assert (one.state, one.process, one.epoch) == ("running", staying.pid, 1)
    staying.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, staying.pid, os.WSTOPPED)
    (lease,) = leases_root(zoo).iterdir()
    long_ago = time.time() - EXPIRY - 60
    os.utime(lease, (long_ago, long_ago))
    found = look(zoo)
    one = of(found, "pt-0")
    assert (one.state, one.process, one.epoch) == ("stalled", staying.pid, 1)
    assert one.seconds_silent > EXPIRY
    assert (found.hours_left, found.is_over) == (None, False)
    assert "stalled[/] pt-0: its process was not heard of for more than 120 s; who comes next takes over" in shown(
        found
    )
    os.utime(lease)
    staying.kill()
    staying.wait()
    found = look(zoo)
    one = of(found, "pt-0")
    assert (one.state, one.host, one.process, one.epoch, one.images_per_second) == ("waiting", None, None, 1, None)
    assert (found.waiting_with_epochs, found.waiting_for_parent) == (1, 8)
    assert found.bytes_written > 0
    assert "11 waiting (8 for their parent, 1 with finished epochs)" in shown(found)


def test_a_member_that_fails_every_time(tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    run_population(
        broken(), zoo, start_engine=lambda job, _: LocalEngine(job, workers=1), options=RunOptions(attempts=2)
    )
    found = look(zoo)
    children = len(plan_members(broken())) - 2
    assert counts(found) == {"done": 1 + children // 2, "failed": 1, "skipped": children // 2}
    one = of(found, "pt-0")
    assert (one.failed_attempts, one.log) == (2, zoo / ".training/logs/pt-0.log")
    assert one.log.is_file()
    assert "digits-10-12" in one.reason
    assert of(found, "pt-0/ft-0").reason == "pt-0 failed"
    assert (found.is_over, found.bytes_left, found.hours_left) == (True, 0, None)
    assert found.share_done is not None
    assert 0 < found.share_done < 1
    text = shown(found)
    assert f"[red]failed[/] pt-0: 2 failed attempts, the last: {one.reason[:30]}" in text
    assert f"(log: {one.log})" in text
    with begin(zoo, broken()).hold(MemberId(0)):  # another run tries it again
        found = look(zoo)
        assert (of(found, "pt-0").state, of(found, "pt-0/ft-0").state) == ("running", "waiting")
        assert "[yellow]running[/] pt-0: 2 failed attempts, the last: " in shown(found)


def test_what_diverged_and_what_starts_from_it(tmp_path: Path) -> None:
    workspace = begin(tmp_path, diverging())
    for member in plan_members(diverging()):
        if member.id.parent != 0 or member.id.is_parent:
            train_member(workspace, member)
    found = look(tmp_path)
    assert counts(found) == {"done": 2, "diverged": 2, "skipped": 2}
    assert of(found, "pt-0/ft-1").reason == "pt-0 diverged"
    assert of(found, "pt-0").epoch == 0
    assert "not finite after step 1 of" in of(found, "pt-0").reason
    assert (found.share_done, found.bytes_left, found.is_over) == (1.0, 0, True)


@pytest.mark.parametrize(
    ("lines", "ago", "state"),
    [
        ([("failed", 1, 3)], None, "waiting"),
        ([("failed", 3, 3)], None, "failed"),
        ([("died", 3, 3)], None, "failed"),
        ([("full", 3, 3)], None, "waiting"),  # the disk's fault: it counts for no attempt
        ([("failed", 3, 3), ("failed", 1, 3)], None, "waiting"),  # a later run
        ([("failed", 3, 3)], 5.0, "running"),
        ([("failed", 3, 3)], EXPIRY + 60, "failed"),
        ([], EXPIRY + 60, "stalled"),
        ([], -EXPIRY - 60, "stalled"),  # a clock that was set
        ([], -5.0, "running"),
        (["torn", ("failed", 3, 3), '{"attempt": 1, "of": '], None, "failed"),
        (["[" * 100_000], None, "waiting"),
    ],
)
def test_attempts_and_leases(lines: list[Any], ago: float | None, state: str, tmp_path: Path) -> None:
    begin(tmp_path)
    path = attempts_path(tmp_path, MemberId(0))
    path.parent.mkdir()
    told = [
        line
        if isinstance(line, str)
        else json.dumps({"attempt": line[1], "of": line[2], "kind": line[0], "reason": "r", "host": "b", "at": 5.0})
        for line in lines
    ]
    path.write_text("\n".join(told) + "\n")
    if ago is not None:
        write_lease(tmp_path, "pt-0", ago=ago)
    found = look(tmp_path)
    assert of(found, "pt-0").state == state
    assert of(found, "pt-0/ft-0").state == ("skipped" if state == "failed" else "waiting")


def test_a_member_that_went_on_after_it_was_given_up_waits(tmp_path: Path) -> None:
    begin(tmp_path)
    path = attempts_path(tmp_path, MemberId(0))
    path.parent.mkdir()
    path.write_text(json.dumps({"attempt": 1, "of": 1, "kind": "failed", "reason": "r", "host": "b", "at": 5.0}) + "\n")
    folder = work_root(tmp_path) / "pt-0@f" / "member"
    folder.mkdir(parents=True)
    for finished, state in ((4.0, "failed"), (6.0, "waiting")):
        (folder / "timing.jsonl").write_text(json.dumps({"epoch": 1, "finished_at": finished}) + "\n")
        assert of(look(tmp_path), "pt-0").state == state


def test_the_work_of_the_holder_is_looked_at(tmp_path: Path) -> None:
    begin(tmp_path)
    for nonce, epoch in (("a", 1), ("f", 2), ("z", 0)):
        folder = work_root(tmp_path) / f"pt-0@{nonce}" / "member"
        folder.mkdir(parents=True)
        (folder / "timing.jsonl").write_text(json.dumps({"epoch": epoch, "finished_at": 1.0}) + "\n")
    (work_root(tmp_path) / "pt-0@a" / "resume.safetensors").touch()
    assert of(look(tmp_path), "pt-0").epoch == 1  # the one that the next holder goes on with
    write_lease(tmp_path, "pt-0", number=1, nonce="z")
    write_lease(tmp_path, "pt-0", number=2)
    assert of(look(tmp_path), "pt-0").epoch == 2


def test_nothing_that_lies_there_ends_it(tiny_copy: Path) -> None:
    begin(tiny_copy)
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
    attempts = attempts_path(tiny_copy, MemberId(0, 3))
    attempts.parent.mkdir()
    line = {"attempt": 1, "of": 3, "kind": "failed", "reason": "\ud800[blink]\x07", "host": "b", "at": 5.0}
    attempts.write_text(json.dumps(line) + "\n")
    found = look(tiny_copy)
    assert {member: of(found, member).state for member in ("pt-0", "pt-1", "pt-2", "pt-2/ft-0", "pt-2/ft-1")} == {
        "pt-0": "damaged", "pt-1": "damaged", "pt-2": "damaged", "pt-2/ft-0": "damaged", "pt-2/ft-1": "done",
    }  # fmt: skip
    assert [of(found, f"pt-0/ft-{child}").state for child in range(4)] == ["running", "waiting", "waiting", "running"]
    assert of(found, "pt-0/ft-0").process is None
    for everyone in (False, True):
        text = shown(found, everyone=everyone)
        assert all(character == "\n" or character.isprintable() for character in text)
        assert r"\x1b[31m\[red]a\n\u202e" in text
        assert r"\ud800\[blink]\x07" in text
    assert "/proc/self/environ" not in found.as_json() or "is a link to" in of(found, "pt-1").reason
    assert json.loads(found.as_json())["members"][0]["state"] == "damaged"


def test_a_recipe_of_another_version_shows_what_has_begun(tiny_copy: Path) -> None:
    begin(tiny_copy)
    write_lease(tiny_copy, "pt-7.ft-1")
    zoo = json.loads((tiny_copy / "zoo.json").read_text())
    recipe = zoo["recipe"] | {"colour": "red"}
    (tiny_copy / "zoo.json").write_text(
        json.dumps(zoo | {"recipe": recipe, "recipe_sha256": json_files.json_sha256(recipe)})
    )
    found = look(tiny_copy)
    assert counts(found) == {"done": 11, "running": 1}
    assert (of(found, "pt-7/ft-1").epoch, of(found, "pt-7/ft-1").epochs) == (0, None)
    assert (found.recipe, found.share_done, found.hours_left, found.bytes_left) == ("tiny", None, None, None)
    (note,) = found.notes
    assert 'unknown key "colour"' in note
    assert " 0/- " in shown(found)


@pytest.mark.parametrize("name", [*RECIPES, "tiny", "broken", "diverging"])
def test_a_plan_is_the_same_from_the_recipe_in_zoo_json(name: str) -> None:
    recipe = ({**RECIPES, "tiny": tiny, "broken": broken, "diverging": diverging})[name]()
    path = Path("zoo.json")
    text = json.dumps(json_files.as_json(recipe))
    assert plan_members(json_files.parse_record(Recipe, json.loads(text), "its recipe", path)) == plan_members(recipe)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda text: text.replace('"tiny"', '"other"'), RecordError, "the file was edited"),
        (lambda text: text.replace('"format": 1', '"format": 9'), FormatVersionError, "format 9"),
        (lambda text: text[:40], RecordError, "is no JSON"),
    ],
)
def test_a_damaged_zoo_json_is_an_error(change: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "zoo.json").write_text(change((tmp_path / "zoo.json").read_text()))
    with pytest.raises(error, match=message):
        read_status(tmp_path)


def test_what_is_no_zoo_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZooNotFoundError, match=r"is no zoo: .* given with --out\.$"):
        read_status(tmp_path)
    with pytest.raises(ZooNotFoundError, match=r"what is on the Hub is finished: vitzoo tree org/name\.$"):
        read_status(Path("org/name"))


def timings(*finished: float, first: int = 0) -> list[Timing]:
    return [
        Timing(epoch=epoch, finished_at=at, images_per_second=None) for epoch, at in enumerate(finished, start=first)
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (timings(), None),
        (timings(100.0), None),
        (timings(100.0, 110.0), 10.0),
        (timings(100.0, 110.0, 9000.0), 10.0),  # it was interrupted
        (timings(0.0, 10.0, 22.0, 1000.0, 1011.0), 11.0),
        (timings(50.0, 40.0, 52.0, first=3), 12.0),  # a clock was set back
        ([*timings(0.0), *timings(5.0, 6.0, first=4)], 1.0),
    ],
)
def test_the_seconds_of_an_epoch(given: list[Timing], expected: float | None) -> None:
    assert seconds_an_epoch(given) == expected


def test_hours_are_of_each_kind_and_never_less_than_the_longest_chain() -> None:
    planned = plan_members(tiny())
    supervised, contrastive, child = planned[0], planned[8], planned[1]
    assert (contrastive.training.objective, child.id.is_parent) == ("contrastive", False)
    measured = {supervised.id: timings(0.0, 36.0), contrastive.id: timings(0.0, 72.0, 144.0)}  # .01 and .02 hours

    def hours(left: dict[MemberId, float], slots: int) -> float | None:
        return hours_left(planned, left=left, timings=measured, slots=slots)

    assert hours({supervised.id: 0.5}, 1) == pytest.approx(0.01)
    assert hours({supervised.id: 0.5, contrastive.id: 1.0}, 1) == pytest.approx(0.05)
    assert hours({supervised.id: 0.5, contrastive.id: 1.0}, 2) == pytest.approx(0.04)  # the second alone
    rate = (supervised.flops / 2 + contrastive.flops) / (36 + 144)  # of a kind that nothing is known of
    chain = 0.01 + child.flops / rate / 3600
    assert hours({supervised.id: 0.5, child.id: 1.0}, 8) == pytest.approx(chain, abs=1e-4)
    assert hours({}, 1) == 0.0
    assert hours({supervised.id: 0.5}, 0) is None
    assert hours_left(planned, left={supervised.id: 1.0}, timings={}, slots=1) is None


def test_bytes_are_of_as_many_epochs_as_done_members_kept() -> None:
    planned = plan_members(tiny())
    one, other, third = planned[:3]
    assert bytes_left(planned, left=[other.id], done=[], written={other.id: 100}) == other.bytes - 100
    kept = {one.id: one.bytes // 3, other.id: 7}
    left = bytes_left(planned, left=[other.id, third.id], done=[one.id], written=kept)
    assert left == round(other.bytes / 3) - 7 + round(third.bytes / 3)
    assert bytes_left(planned, left=[other.id], done=[], written={other.id: 10**9}) == 0


def test_too_small_a_disk_is_warned_of(tmp_path: Path) -> None:
    begin(tmp_path)
    found = read_status(tmp_path)
    assert "warning" not in shown(found)
    assert found.bytes_left is not None
    text = shown(replace(found, bytes_free=found.bytes_left - 1000))
    assert "warning:[/] 1.0 kB too little are free. Make room" in text


def test_many_members_stay_readable(tmp_path: Path) -> None:
    begin(tmp_path, RECIPES["paper"]())
    for parent in range(10):
        for child in range(24):
            write_lease(tmp_path, f"pt-{parent}.ft-{child}")
    path = attempts_path(tmp_path, MemberId(0))
    path.parent.mkdir()
    for parent in range(10):
        line = {"attempt": 1, "of": 1, "kind": "failed", "reason": "r", "host": "b", "at": 5.0}
        attempts_path(tmp_path, MemberId(parent)).write_text(json.dumps(line) + "\n")
    found = read_status(tmp_path)
    assert counts(found) == {"running": 240, "failed": 10}
    lines = describe(found)
    assert len(lines) < 32
    assert "and 224 more: --all lists them" in lines
    assert "and 4 more failed: --json has them all" in lines
    assert sum(line.startswith("pt-") for line in describe(found, everyone=True)) == 250


def status(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training", "status", *arguments]
    environment = os.environ | {"COLUMNS": "80"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_command(tiny_zoo: Path, tmp_path: Path) -> None:
    done = status(str(tiny_zoo))
    assert (done.returncode, done.stderr) == (0, "")
    first, work, disk = done.stdout.splitlines()
    assert first == f"tiny in {tiny_zoo}: 11 of 11 members done, 0 running, 0 waiting"
    assert work == "work: 100.0% of the operations done, - images/s now, - left"
    assert re.fullmatch(r"disk: [\d.]+ kB written, 0 B to come, [\d.]+ .B free", disk)
    (line,) = status(str(tiny_zoo), "--json").stdout.splitlines()
    told = json.loads(line)
    assert list(told) == [
        "format", "zoo", "recipe", "counts", "waiting_for_parent", "waiting_with_epochs", "share_done",
        "images_per_second", "hours_left", "bytes_written", "bytes_left", "bytes_free", "notes", "members",
    ]  # fmt: skip
    assert tuple(told["counts"]) == STATES
    assert told["members"][0] == {
        "id": "pt-0", "state": "done", "epoch": 2, "epochs": 2, "images_per_second": None, "host": None,
        "process": None, "seconds_silent": None, "failed_attempts": 0, "reason": "", "log": None,
    }  # fmt: skip
    (line,) = status(str(tiny_zoo), "--json", "--watch").stdout.splitlines()  # which ends: nothing runs or waits
    assert json.loads(line)["members"] == told["members"]
    done = status(str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/nowhere is no zoo")


def test_watching_ends_by_an_interrupt(tmp_path: Path) -> None:
    begin(tmp_path)
    command = [sys.executable, "-m", "training", "status", str(tmp_path), "--watch", "--every", "0.1"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job that a shell started in the background has it ignored, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(10)]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert sum(line.startswith("tiny in ") for line in lines) == 2
