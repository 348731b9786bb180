"""Publishing beside training, with the real process and a Hub that may be slow, dead or wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT
from tests.hub import Answer, Before, Hub, Token
from tests.hub.errors import HubError
from tests.published import assert_never_half
from tests.tiny import tiny
from tests.training.population.processes import COMMAND
from training.lease import acquire
from training.population import publisher as publisher_module
from training.population.publisher import Publisher
from training.publish.beside import _Heard
from training.publish.files import PlannedFile
from training.publish.plan import plan_publication
from training.publish.push import PushResult
from training.publish.talk import Publishing, Said
from training.workspace import Workspace
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs
from vitzoo.sources.folder import FolderSource

TO = "org/vit-zoo"
PATIENCE = 120  # seconds after which a test gives up; nothing is asserted about time
FAMILY = [MemberId(2), MemberId(2, 0), MemberId(2, 1)]
DOWN = Answer(status=503, headers={"Retry-After": "0"})


@pytest.fixture(autouse=True)
def token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Token:
    found = hub.add_token("org", role="write")
    monkeypatch.setenv("HF_TOKEN", str(found))
    return found


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A zoo whose training begins."""
    return Workspace(tmp_path / "zoo", tiny()).root


@pytest.fixture
def end_member(zoo: Path, tiny_zoo: Path) -> Callable[[MemberId], None]:
    """Makes a member appear in the zoo as one does that was trained to its end: by one rename."""

    def end(member: MemberId) -> None:
        folder = layout.member_folder(member)
        shutil.copytree(tiny_zoo / folder, zoo / ".training/members/one", ignore=shutil.ignore_patterns("ft-*"))
        os.rename(zoo / ".training/members/one", zoo / folder)

    return end


def publishing(zoo: Path, **options: Any) -> Publishing:
    return Publishing(root=zoo, to=TO, **{"interval": 0.0, "pause": 0.2, **options})


def wait_until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            pytest.fail("it never came")
        time.sleep(0.01)


def follow(publisher: Publisher, lines: list[str], *, until: Callable[[], bool]) -> None:
    """Show what it says, as a run does, until something is so."""
    wait_until(lambda: lines.extend(publisher.poll()) or until())


def published(hub: Hub) -> set[MemberId]:
    """The members that readers find."""
    try:
        files = json.loads(hub.repo(TO).read("manifest.json"))["files"]
    except HubError:
        return set()
    return {member for path in files if (member := MemberId.match(path.removesuffix("/member.json"))) is not None}


def is_gone(pid: int | None) -> bool:
    assert pid is not None
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Hanging:
    """Keeps requests waiting until the block ends."""

    def __init__(self, hub: Hub, path: str):
        self._end = threading.Event()
        self._fault = hub.fault(Before(lambda: self._end.wait(PATIENCE)), path=path)

    @property
    def hits(self) -> int:
        return self._fault.hits

    def __enter__(self) -> "Hanging":
        return self

    def __exit__(self, *error: object) -> None:
        self._fault.off()
        self._end.set()


def test_members_go_out_as_they_finish(
    hub: Hub, zoo: Path, end_member: Callable[[MemberId], None], tmp_path: Path
) -> None:
    lines: list[str] = []
    with Publisher(publishing(zoo)) as publisher:
        assert publisher.check(patience_seconds=PATIENCE) is None
        for member in FAMILY[:2]:
            end_member(member)
            publisher.offer([member])
            follow(publisher, lines, until=lambda member=member: member in published(hub))
        end_member(FAMILY[2])  # of which nobody tells: it goes with the last publication
        pid = publisher.pid
        result = publisher.finish(patience_seconds=PATIENCE, show=lines.append)
        assert is_gone(pid)
        publisher.offer([MemberId(7)])
        assert publisher.poll() == []
        assert publisher.pid is None
    assert isinstance(result, PushResult)
    assert result.commit == hub.repo(TO).head
    publication = plan_publication(FolderSource(zoo), to=TO)
    assert result.digest == publication.manifest.digest
    files = hub.repo(TO).files()
    assert {path: files[path] for path in files if path != ".gitattributes"} == {
        file.path: file.read() for file in publication.files
    }
    assert_never_half(hub.repo(TO), tmp_path)
    told = [line for line in lines if line.startswith("published ")]
    assert [line.rpartition(",")[0] for line in told] == [
        f"published {what} to {TO}" for what in ("1 member", "2 members", "3 members")
    ]
    puts = [request.path for request in hub.requests.of(host="files", method="PUT")]
    assert len(puts) == len(set(puts))


def test_a_hub_that_hangs_holds_nobody(hub: Hub, zoo: Path, end_member: Callable[[MemberId], None]) -> None:
    end_member(FAMILY[0])
    with Publisher(publishing(zoo)) as publisher, Hanging(hub, "/api/models") as hanging:
        pid = publisher.pid
        assert "no answer in 0 s" in (publisher.check(patience_seconds=0.1) or "")
        assert is_gone(pid)
        pid = publisher.pid
        publisher.offer([FAMILY[0]])
        wait_until(lambda: hanging.hits)
        for number in range(1000):  # more than a pipe holds
            publisher.offer([MemberId(number)])
            assert publisher.poll() == []
        reason = publisher.finish(patience_seconds=0.5)
        assert hanging.hits == 1
        assert is_gone(pid)
    assert reason == (
        f"Nothing was sent in 0 s. What is not published yet goes out by: python -m training publish {zoo} --to {TO}"
    )
    assert published(hub) == set()


def test_a_hub_that_was_down_and_another_publisher_are_waited_for(
    hub: Hub, zoo: Path, end_member: Callable[[MemberId], None]
) -> None:
    lines: list[str] = []
    end_member(FAMILY[0])
    held = acquire(zoo / ".training/leases", "publish")
    with Publisher(publishing(zoo)) as publisher:
        with hub.fault(DOWN, path="/api/models"):
            publisher.offer(FAMILY[:1])
            follow(publisher, lines, until=lambda: "Another process" in " ".join(lines))
            held.release()
            follow(publisher, lines, until=lambda: "status 503" in " ".join(lines))
            assert published(hub) == set()
        follow(publisher, lines, until=lambda: published(hub) == set(FAMILY[:1]))
        publisher.close()
    assert any(f"{TO} cannot be looked at: status 503, 8 times. Trying again in" in line for line in lines)


def test_a_process_that_dies_or_hangs_is_followed_by_another(
    hub: Hub, zoo: Path, end_member: Callable[[MemberId], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "_FIRST_PAUSE", 0.0)
    lines: list[str] = []
    end_member(FAMILY[0])
    with Publisher(publishing(zoo, epochs=Epochs("last"))) as publisher:
        first = publisher.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        follow(publisher, lines, until=lambda: publisher.pid not in (None, first))
        with Hanging(hub, "/api/models") as hanging:
            second = publisher.pid
            wait_until(lambda: publisher.poll() or hanging.hits)
            monkeypatch.setattr(publisher_module, "_HUNG", 0.0)
            follow(publisher, lines, until=lambda: publisher.pid not in (None, second))
            monkeypatch.setattr(publisher_module, "_HUNG", 3600.0)
        assert is_gone(second)
        assert lines == [
            "the process that publishes ended by signal 9; another starts in 0 s",
            "the process that publishes got nowhere for 0 minutes; another starts in 0 s",
        ]
        (zoo / "pt-2/config.json").write_text("{}")
        reason = publisher.finish(patience_seconds=PATIENCE)
    assert isinstance(reason, str)
    assert "config.json" in reason
    assert reason.endswith(f"python -m training publish {zoo} --to {TO} --epochs last")


DRIVER = """
import signal, sys
from pathlib import Path
from training.population.publisher import Publisher
from training.publish.talk import Publishing
from vitzoo.ids import MemberId

with Publisher(Publishing(root=Path(sys.argv[1]), to=sys.argv[2])) as publisher:
    publisher.offer([MemberId(2)])
    print(publisher.pid, flush=True)
    signal.pause()
"""


def test_it_ends_with_its_driver(hub: Hub, zoo: Path, end_member: Callable[[MemberId], None]) -> None:
    end_member(FAMILY[0])
    with Hanging(hub, "/api/models") as hanging:
        command = [sys.executable, "-c", DRIVER, str(zoo), TO]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            pid = int(driver.stdout.readline())
            wait_until(lambda: hanging.hits)
            os.kill(pid, signal.SIGINT)  # the terminal's Ctrl-C is for the driver
            assert not is_gone(pid)
            driver.kill()
        wait_until(lambda: is_gone(pid))


@pytest.fixture
def heard() -> tuple[_Heard, list[Said]]:
    said: list[Said] = []
    return _Heard(said.append), said


def test_what_is_stored_again_is_no_progress(heard: tuple[_Heard, list[Said]]) -> None:
    progress, said = heard
    file = PlannedFile.of("pt-0/config.json", b"{}")

    def goes_on(call: Callable[[], None]) -> bool:
        before = len(said)
        call()
        return len(said) > before

    for stored in (True, False):  # an earlier pass, and one after its commit was refused
        progress.begin(TO, size=50, files=3)
        assert goes_on(lambda: progress.sent(10)) is stored
        assert goes_on(lambda: progress.sent(20)) is stored
    assert goes_on(lambda: progress.sent(10))
    assert goes_on(lambda: progress.committed([file]))
    assert goes_on(lambda: progress.sent(1))


@pytest.mark.parametrize("to", ["zoo", "org/vit-zoo/more", "./zoo", "org/" + "z" * 90])
def test_a_malformed_name_is_told_at_once(zoo: Path, to: str) -> None:
    with pytest.raises(TrainingError, match="is no Hub repo: expected <org>/<name>"):
        Publisher(Publishing(root=zoo, to=to))


def test_a_run_publishes_beside_its_training(hub: Hub, tiny_copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(tiny_copy / "pt-2" / "ft-1")
    command = [*COMMAND, "run", "tiny", "--out", str(tiny_copy), "--publish", TO, "--publish-epochs", "last"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "11 members are done in" in done.stderr
    digest = plan_publication(FolderSource(tiny_copy), to=TO, epochs=Epochs("last")).manifest.digest
    assert f"digest: {digest}" in done.stderr
    assert len(published(hub)) == 11
    assert_never_half(hub.repo(TO), tmp_path)

    refused = subprocess.run(
        [*command[:-4], "--publish", "no-org"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert refused.returncode == 1
    assert 'error: --publish "no-org" is no Hub repo' in refused.stderr
