"""Test publishing beside training: with a Hub that may be down, and with the real command in a child process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from tests.conftest import ROOT
from tests.hub import Answer, Hub
from tests.hub.errors import HubError
from tests.published import assert_never_half
from tests.tiny import tiny
from tests.training.population.processes import PATIENCE, wait_until
from tests.training.publish.zoos import TO, assert_holds, plan
from training.__main__ import app
from training.lease import acquire
from training.population.publisher import Publisher, PublishOptions
from training.publish.follow import follow
from training.publish.push import publish
from training.workspace import Workspace
from vitzoo.errors import RecordError, VitZooError
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs
from vitzoo.sources.folder import FolderSource

FAMILY = [MemberId(2), MemberId(2, 0), MemberId(2, 1)]
DOWN = Answer(status=503, headers={"Retry-After": "0"})

pytestmark = pytest.mark.usefixtures("token")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Make a zoo without members."""
    return Workspace(tmp_path / "zoo", tiny())


@pytest.fixture
def finish_member(workspace: Workspace, tiny_zoo: Path) -> Callable[[MemberId], None]:
    """Make a member appear in the zoo by one rename, as the trainer does."""

    def finish(member: MemberId) -> None:
        folder = layout.member_folder(member)
        trained = workspace.root / ".training/trained"
        shutil.copytree(tiny_zoo / folder, trained, ignore=shutil.ignore_patterns("ft-*"))
        os.rename(trained, workspace.root / folder)

    return finish


def published(hub: Hub) -> set[MemberId]:
    """Return the members that readers see."""
    try:
        files = json.loads(hub.repo(TO).read("manifest.json"))["files"]
    except HubError:
        return set()
    return {member for path in files if (member := MemberId.match(path.removesuffix("/member.json"))) is not None}


class Following:
    """`follow` in a thread."""

    def __init__(self, workspace: Workspace):
        self.lines: list[str] = []
        self.outcome: object = None
        self._root = workspace.root
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        try:
            self.outcome = follow(
                FolderSource(self._root),
                lambda: publish(plan(self._root)),
                say=self.lines.append,
                interval=0.0,
                poll=0.01,
            )
        except VitZooError as error:
            self.outcome = error

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture(autouse=True)
def _not_nice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.nice")  # it would last for later tests


def test_follow_publishes_members_as_they_finish(
    hub: Hub, workspace: Workspace, finish_member: Callable[[MemberId], None], tmp_path: Path
) -> None:
    with workspace.hold_run():
        following = Following(workspace)
        for count, member in enumerate(FAMILY[:2], start=1):
            finish_member(member)
            wait_until(lambda count=count: published(hub) == set(FAMILY[:count]))
        finish_member(FAMILY[2])
    following.join()
    publication = plan(workspace.root)
    assert_holds(hub, publication)
    assert_never_half(hub.repo(TO), tmp_path)
    assert getattr(following.outcome, "digest", None) == publication.manifest.digest
    puts = [request.path for request in hub.requests.of(host="files", method="PUT")]
    assert len(puts) == len(set(puts))


def test_follow_continues_while_a_member_is_trained_but_not_for_another_run(
    hub: Hub, workspace: Workspace, finish_member: Callable[[MemberId], None]
) -> None:
    with workspace.hold(FAMILY[0]):
        following = Following(workspace)
        finish_member(FAMILY[0])
        wait_until(lambda: published(hub) == {FAMILY[0]})
        with workspace.hold_run() as run:
            pass
        assert follow(FolderSource(workspace.root), lambda: publish(plan(workspace.root)), run=run, say=print)
        assert following.outcome is None
    following.join()


def test_follow_retries_errors_until_training_ends(
    hub: Hub, workspace: Workspace, finish_member: Callable[[MemberId], None]
) -> None:
    finish_member(FAMILY[0])
    with workspace.hold_run():
        lease = acquire(workspace.root / ".training/leases", "publish")
        following = Following(workspace)
        with hub.fault(DOWN, path="/api/models"):
            lease.release()
            wait_until(lambda: following.lines)
            assert published(hub) == set()
        wait_until(lambda: published(hub) == set(FAMILY[:1]))
        finish_member(FAMILY[1])
        (workspace.root / "pt-2/ft-0/timing.jsonl").write_text("x\n")
    following.join()
    assert isinstance(following.outcome, RecordError)
    assert published(hub) == set(FAMILY[:1])


def test_follow_of_an_empty_zoo_publishes_nothing(hub: Hub, workspace: Workspace) -> None:
    assert follow(FolderSource(workspace.root), lambda: publish(plan(workspace.root)), say=print) is None
    assert not hub.requests


@pytest.mark.slow
def test_publisher_replaces_a_dead_child_at_the_end(
    hub: Hub, workspace: Workspace, finish_member: Callable[[MemberId], None]
) -> None:
    lines: list[str] = []
    with workspace.hold_run() as run:
        publisher = Publisher(workspace.root, PublishOptions(to=TO), run=run, say=lines.append)
        os.kill(publisher.pid, signal.SIGKILL)
        wait_until(lambda: psutil.Process(publisher.pid).status() == psutil.STATUS_ZOMBIE)
        finish_member(FAMILY[0])
    with publisher:
        assert publisher.finish() is None
    assert published(hub) == {FAMILY[0]}
    assert any("prove it with: vitzoo verify" in line for line in lines)


def test_publisher_returns_the_command_of_a_failed_publication(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    options = PublishOptions(to=TO, epochs=Epochs("last"), private=True)
    with Publisher(workspace.root, options, run="run-none", say=print) as publisher:
        command = publisher.finish()
    assert command == f"python -m training publish {workspace.root} --to {TO} --epochs last --private"


DRIVER = """
import signal, sys
from pathlib import Path
from tests.tiny import tiny
from training.population.publisher import Publisher, PublishOptions
from training.workspace import Workspace

workspace = Workspace(Path(sys.argv[1]), tiny())
options = PublishOptions(to=sys.argv[2])
with workspace.hold_run() as run, Publisher(workspace.root, options, run=run, say=print) as publisher:
    print(publisher.pid, flush=True)
    signal.pause()
"""


@pytest.mark.slow  # the child imports torch; the next test has one too
def test_child_of_a_killed_run_ends_after_a_last_publication(
    hub: Hub, workspace: Workspace, finish_member: Callable[[MemberId], None]
) -> None:
    command = [sys.executable, "-c", DRIVER, str(workspace.root), TO]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        child = psutil.Process(int(driver.stdout.readline()))
        finish_member(FAMILY[0])
        driver.kill()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert published(hub) == {FAMILY[0]}


@pytest.mark.slow
def test_run_publishes_beside_its_training(hub: Hub, tiny_copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(tiny_copy / "pt-2" / "ft-1")
    (tmp_path / "tiny.py").write_text("from tests.tiny import tiny as recipe  # noqa\n")
    command = ["run", "./tiny.py", "--out", str(tiny_copy), "--publish", TO, "--publish-epochs", "last"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    assert "11 members are done in" in result.stderr
    assert f"--digest {plan(tiny_copy, epochs=Epochs('last')).manifest.digest}" in result.stderr
    assert len(published(hub)) == 11
    assert_never_half(hub.repo(TO), tmp_path)
