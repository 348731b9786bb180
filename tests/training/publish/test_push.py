"""Test that the Hub gets exactly the zoo, once, and that readers never see half of it."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.hub import After, Before, Hub, Token
from tests.published import assert_never_half
from tests.training.publish.zoos import METADATA, TO, assert_holds, assert_sent_once, flip, plan, push
from training.lease import acquire
from training.publish.push import AlreadyPublishingError, publish
from vitzoo.errors import HubError
from vitzoo.records.epochs import Epochs
from vitzoo.tables.cards import parse_published


def test_publish_sends_the_zoo_once(hub: Hub, token: Token, tiny_copy: Path, tmp_path: Path) -> None:
    publication = plan(tiny_copy, tag="v1")
    published = publish(publication)
    assert_holds(hub, publication)
    assert_never_half(hub.repo(TO), tmp_path)
    assert_sent_once(hub)
    assert published.commits == 3
    assert published.left_alone == 0
    assert published.digest == publication.manifest.digest
    assert json.loads(hub.repo(TO).read("zoo.json"))["metadata_repo"] == METADATA
    assert (hub.repo(TO).tags, hub.repo(METADATA, "dataset").tags) == (
        {"v1": published.commit},
        {"v1": published.metadata_commit},
    )
    card = parse_published(hub.repo(METADATA, "dataset").read("README.md").decode())
    assert card is not None
    assert (card.repo, card.commit, card.digest) == (TO, published.commit, published.digest)
    assert {request.token for request in hub.requests if request.host == "files"} == {None}


def test_publish_again_makes_no_commit(hub: Hub, token: Token, tiny_copy: Path) -> None:
    first = push(tiny_copy, tag="v1")
    with hub.recorded() as requests:
        assert push(tiny_copy, tag="v1") == replace(first, commits=0)
    assert not requests.of(path="commit/|preupload|lfs|/tag/")
    assert not requests.of(method="PUT")
    assert len(requests) <= 14


def test_publish_after_an_edit_of_gitattributes_makes_no_commit(hub: Hub, token: Token, small: Path) -> None:
    first, repo = push(small), hub.repo(TO)
    repo.commit({".gitattributes": b"*.bin filter=lfs\n"})
    again = push(small, tag="v1")
    assert again == replace(first, commits=0, commit=repo.head)
    shutil.rmtree(small / "pt-2/ft-1")
    changed = push(small)
    card = parse_published(hub.repo(METADATA, "dataset").read("README.md").decode())
    assert card is not None
    assert (card.commit, card.digest) == (changed.commit, changed.digest)


def test_publish_bounds_commits_and_closes_with_one(hub: Hub, token: Token, small: Path, tmp_path: Path) -> None:
    push(small, files_a_commit=20)  # of 54 files of members
    repo = hub.repo(TO)
    before, added = repo.commits()[-1], []
    for commit in reversed(repo.commits()[:-1]):
        added.append(set(commit.files) - set(before.files))
        before = commit
    assert [len(paths) for paths in added] == [20, 20, 14, 7]
    assert {path.partition("/")[0] for path in added[-1]} == {"README.md", "zoo.json", "manifest.json", "metadata"}
    assert_never_half(repo, tmp_path)


@pytest.mark.parametrize(("epochs", "kept"), [("last", [None]), ("every-2", [0, 2, None]), ("1", [1, None])])
def test_publish_sends_chosen_epochs(
    hub: Hub, token: Token, small: Path, tmp_path: Path, epochs: str, kept: list[int | None]
) -> None:
    publication = plan(small, epochs=Epochs(epochs))
    publish(publication)
    assert_holds(hub, publication)
    assert all(list(publication.manifest.weights_sizes(member)) == kept for member in publication.members)
    (tmp_path / "epochs.parquet").write_bytes(hub.repo(TO).read("metadata/epochs.parquet"))
    table = pq.read_table(tmp_path / "epochs.parquet").to_pylist()
    assert {row["epoch"] for row in table if row["bytes"] is not None} == set(kept) - {None}
    assert {row["epoch"] for row in table} == {0, 1, 2}


def test_publish_of_more_epochs_sends_them_before_the_manifest(
    hub: Hub, token: Token, small: Path, tmp_path: Path
) -> None:
    push(small, epochs=Epochs("last"))
    publication = plan(small)
    with hub.recorded() as requests:
        publish(publication)
    assert_holds(hub, publication)
    assert_never_half(hub.repo(TO), tmp_path)
    assert len(requests.of(path="/commit/main")) == 3
    fewer = push(small, epochs=Epochs("last"))
    assert fewer.left_alone == 3 * 6
    assert_never_half(hub.repo(TO), tmp_path)


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_kill_at_any_request_loses_nothing(
    hub: Hub, small: Path, tmp_path: Path, dying: Any, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    for member in ("pt-1", "pt-2/ft-0", "pt-2/ft-1"):
        shutil.rmtree(small / member)
    publication = plan(small, tag="v1")
    number = 0
    for number in range(1, 100, stride):
        hub.reset()
        monkeypatch.setenv("HF_TOKEN", str(hub.add_token("org", role="write")))
        dying.at(number, "before" if number % 4 < 2 else "after")
        try:
            publish(publication, files_a_commit=5)
        except KeyboardInterrupt:
            pass
        else:
            break
        finally:
            dying.revive()
        if number % 3 == 0:  # and once more
            dying.at(number // 2 + 1, "after")
            with contextlib.suppress(KeyboardInterrupt):
                publish(publication, files_a_commit=5)
            dying.revive()
        publish(publication, files_a_commit=5)
        assert_holds(hub, publication)
        assert_never_half(hub.repo(TO), tmp_path)
        assert_sent_once(hub)
        assert hub.repo(TO).tags == {"v1": hub.repo(TO).head}
        assert len(hub.repo(TO).commits()) == 4  # none twice: the first, two of members, the last
        assert len(hub.repo(METADATA, "dataset").commits()) == 2
    assert number > 40


@pytest.mark.slow
def test_publish_resumes_after_a_killed_process(hub: Hub, token: Token, small: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training", "publish", str(small), "--to", TO]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"HF_TOKEN": str(token)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    kill = lambda: os.kill(process.pid, signal.SIGKILL)  # noqa: E731
    with hub.fault(After(kill), path="/commit/main", times=1) as fault:
        output, _ = process.communicate(timeout=60)
    assert fault.hits == 1
    assert process.returncode == -signal.SIGKILL
    assert str(token).encode() not in output
    publication = plan(small)
    publish(publication)
    assert_holds(hub, publication)
    assert_never_half(hub.repo(TO), tmp_path)
    assert_sent_once(hub)


def test_simultaneous_publishers_end_with_one_zoo(hub: Hub, token: Token, small: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(small, tmp_path / "other"))
    shutil.rmtree(other / "pt-2")
    theirs, ours = plan(other), plan(small)
    with hub.fault(Before(lambda: publish(theirs)), path="/commit/main", times=1) as fault:
        publish(ours)
    assert fault.hits == 1
    assert_holds(hub, ours)
    assert_never_half(hub.repo(TO), tmp_path)


def test_publish_refuses_a_second_publisher_of_a_folder(hub: Hub, token: Token, small: Path) -> None:
    (small / ".training/leases").mkdir(parents=True, exist_ok=True)
    with acquire(small / ".training/leases", "publish"), pytest.raises(AlreadyPublishingError):
        push(small)
    push(small)


def test_publish_detects_a_hub_that_stores_another_file(hub: Hub, token: Token, small: Path) -> None:
    repo = hub.create_repo(TO)

    def spoil() -> None:
        commit = repo.resolve()
        if "manifest.json" in commit.files:
            commit.files["pt-1/config.json"] = repo.store_regular(b"{}")  # type: ignore[index]

    with hub.fault(After(spoil), path="/commit/main"), pytest.raises(HubError, match=r"pt-1/config\.json"):
        push(small)


def test_publish_does_not_read_published_weights_again(hub: Hub, token: Token, small: Path, tmp_path: Path) -> None:
    later = small / "pt-2/ft-1"
    shutil.move(later, tmp_path / "later")
    push(small)
    expected = plan(small).member_files
    flip(small / "pt-1/model.epoch-01.safetensors")  # a verification would find that
    shutil.move(tmp_path / "later", later)
    assert push(small).commits > 0
    files = hub.repo(TO).files()
    assert all(hashlib.sha256(files[file.path]).hexdigest() == file.sha256 for file in expected)
    assert_never_half(hub.repo(TO), tmp_path)
    assert push(small).commits == 0
