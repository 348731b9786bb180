"""Publishing: the Hub gets exactly the zoo, once, whatever happens in between; nothing that is nobody's business."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import get_session
from typer.testing import CliRunner

from tests.hub import After, Answer, Before, Drop, Hub, Lose, Repo, Token, too_many_requests
from training.__main__ import app
from training.publish import remote
from training.publish.plan import Publication, plan_publication
from training.publish.push import Published, publish
from vitzoo import records
from vitzoo.cards import parse_published
from vitzoo.errors import HubError, RecordError, TrainingError, WeightsError
from vitzoo.folder import FolderSource
from vitzoo.ids import MemberId
from vitzoo.json_files import write_json
from vitzoo.manifest import load_manifest
from vitzoo.selection import Epochs
from vitzoo.zoo import Zoo

ROOT = Path(__file__).parents[2]


TO, METADATA = "org/vit-zoo", "org/vit-zoo-metadata"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, which take no time here."""
    made: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=made.append))
    return made


@pytest.fixture
def token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Token:
    found = hub.add_token("org", role="write")
    monkeypatch.setenv("HF_TOKEN", str(found))
    return found


@pytest.fixture
def small(tiny_copy: Path) -> Path:
    """Two families of the tiny zoo: six members."""
    shutil.rmtree(tiny_copy / "pt-0")
    return tiny_copy


def plan(folder: Path, **options: Any) -> Publication:
    return plan_publication(FolderSource(folder), to=TO, **options)


def push(folder: Path, *, files_a_commit: int = 500, **options: Any) -> Published:
    return publish(plan(folder, **options), files_a_commit=files_a_commit)


def assert_holds(hub: Hub, publication: Publication) -> None:
    """The model repo's files are the publication's, byte for byte, and every one is named by the manifest."""
    found = hub.repo(TO).files()
    del found[".gitattributes"]
    assert found == {file.path: file.read() for file in publication.files}
    assert set(publication.manifest.files) == set(found) - {"manifest.json"}
    assert found["manifest.json"] == publication.manifest.to_bytes()
    for path, file in publication.manifest.files.items():
        assert (len(found[path]), sha256(found[path]).hexdigest()) == (file.size, file.sha256)


def assert_never_half(repo: Repo, tmp_path: Path) -> None:
    """At every commit of its history there is no manifest, or one whose files are all there and right."""
    for commit in repo.commits():
        files = repo.files(commit.sha)
        if "manifest.json" not in files:
            continue
        path = tmp_path / "manifest.json"
        path.write_bytes(files["manifest.json"])
        for name, file in load_manifest(path).files.items():
            assert sha256(files[name]).hexdigest() == file.sha256, (commit.title, name)


def assert_sent_once(hub: Hub) -> None:
    puts = Counter(request.path for request in hub.requests.of(host="files", method="PUT") if request.status == 200)
    assert puts
    assert set(puts.values()) == {1}


def test_the_hub_gets_the_zoo(hub: Hub, token: Token, tiny_copy: Path, tmp_path: Path) -> None:
    publication = plan(tiny_copy, tag="v1")
    published = publish(publication)
    assert_holds(hub, publication)
    assert_never_half(hub.repo(TO), tmp_path)
    assert_sent_once(hub)
    assert published.commits == 3
    assert published.left_alone == 0
    assert published.digest == publication.manifest.digest
    zoo_json = json.loads(hub.repo(TO).read("zoo.json"))
    assert zoo_json["metadata_repo"] == METADATA
    assert (hub.repo(TO).tags, hub.repo(METADATA, "dataset").tags) == (
        {"v1": published.commit},
        {"v1": published.metadata_commit},
    )
    card = parse_published(hub.repo(METADATA, "dataset").read("README.md").decode())
    assert card is not None
    assert (card.repo, card.commit, card.digest) == (TO, published.commit, published.digest)
    assert {request.token for request in hub.requests if request.host == "files"} == {None}


def test_publishing_again_makes_no_commit(hub: Hub, token: Token, tiny_copy: Path) -> None:
    first = push(tiny_copy, tag="v1")
    history = [len(hub.repo(TO).commits()), len(hub.repo(METADATA, "dataset").commits())]
    with hub.recorded() as requests:
        second = push(tiny_copy, tag="v1")
    assert second == replace(first, commits=0)
    assert [len(hub.repo(TO).commits()), len(hub.repo(METADATA, "dataset").commits())] == history
    assert not requests.of(path="commit/|preupload|lfs|/tag/")
    assert not requests.of(method="PUT")
    assert len(requests) <= 14


def test_commits_are_bounded_and_never_split_a_member(hub: Hub, token: Token, small: Path, tmp_path: Path) -> None:
    push(small, files_a_commit=20)  # nine files a member
    repo = hub.repo(TO)
    before, added = repo.commits()[-1], []
    for commit in reversed(repo.commits()[:-1]):
        added.append(sorted({path.rpartition("/")[0] for path in set(commit.files) - set(before.files)}))
        before = commit
    assert added == [["pt-1", "pt-1/ft-0"], ["pt-1/ft-1", "pt-2"], ["pt-2/ft-0", "pt-2/ft-1"], ["", "metadata"]]
    assert_never_half(repo, tmp_path)


def test_the_tables_load_from_the_hub(
    hub: Hub, token: Token, tiny_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets-cache"))
    push(tiny_copy)
    for name in ("members", "epochs"):
        found = load_dataset(METADATA, name)["train"].to_list()
        assert found == pq.read_table(tiny_copy / f"metadata/{name}.parquet").to_pylist()


@pytest.mark.parametrize(("epochs", "kept"), [("last", [None]), ("every-2", [0, 2, None]), ("1", [1, None])])
def test_epochs_are_chosen(hub: Hub, token: Token, small: Path, epochs: str, kept: list[int | None]) -> None:
    publication = plan(small, epochs=Epochs(epochs))
    publish(publication)
    assert_holds(hub, publication)
    assert all(publication.manifest.kept_epochs(member) == kept for member in publication.members)
    table = pq.read_table(_file(hub, "metadata/epochs.parquet", small)).to_pylist()
    assert {row["epoch"] for row in table if row["bytes"] is not None} == set(kept) - {None}
    assert {row["epoch"] for row in table} == {0, 1, 2}


def _file(hub: Hub, path: str, folder: Path) -> Path:
    local = folder.parent / Path(path).name
    local.write_bytes(hub.repo(TO).read(path))
    return local


def test_more_epochs_later_go_before_the_manifest_that_names_them(
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


class _Dead(KeyboardInterrupt):
    pass


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes this process's client stop dead at a request: before it leaves, or after it was done."""
    client = type(get_session())
    send = client.send

    def die(number: int, moment: str) -> None:
        count = 0

        def dead(self: Any, request: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > number or (count == number and moment == "before"):
                raise _Dead
            response = send(self, request, **options)
            if count >= number:
                response.read()
                raise _Dead
            return response

        monkeypatch.setattr(client, "send", dead)

    yield SimpleNamespace(at=die, revive=lambda: monkeypatch.setattr(client, "send", send))
    monkeypatch.setattr(client, "send", send)


@pytest.mark.parametrize("start", range(2))
def test_a_kill_at_any_request_costs_nothing(hub: Hub, small: Path, tmp_path: Path, dying: Any, start: int) -> None:
    shutil.rmtree(small / "pt-1")
    publication = plan(small, tag="v1")
    number = 0
    for number in range(1 + start, 100, 2):
        hub.reset()
        token = str(hub.add_token("org", role="write"))
        dying.at(number, "before" if number % 4 < 2 else "after")
        try:
            publish(publication, token=token, files_a_commit=20)
        except _Dead:
            pass
        else:
            break
        finally:
            dying.revive()
        if number % 5 == 0:  # and once more
            dying.at(number // 2 + 1, "after")
            with contextlib.suppress(_Dead):
                publish(publication, token=token, files_a_commit=20)
            dying.revive()
        publish(publication, token=token, files_a_commit=20)
        assert_holds(hub, publication)
        assert_never_half(hub.repo(TO), tmp_path)
        assert_sent_once(hub)
        assert hub.repo(TO).tags == {"v1": hub.repo(TO).head}
        assert len(hub.repo(TO).commits()) == 4  # none twice: the first, two of members, the last
        assert len(hub.repo(METADATA, "dataset").commits()) == 2
    assert number > 40


@pytest.mark.parametrize(("moment", "path", "skip"), [(Before, "files|models", 9), (After, "/commit/main", 0)])
def test_a_killed_process_goes_on(
    hub: Hub, token: Token, small: Path, tmp_path: Path, moment: Any, path: str, skip: int
) -> None:
    command = [sys.executable, "-m", "training", "publish", str(small), "--to", TO]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"HF_TOKEN": str(token)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    kill = lambda: os.kill(process.pid, signal.SIGKILL)  # noqa: E731
    with hub.fault(moment(kill), path=path, skip=skip, times=1) as fault:
        output, _ = process.communicate(timeout=60)
    assert fault.hits == 1
    assert process.returncode == -signal.SIGKILL
    assert str(token).encode() not in output
    publication = plan(small)
    publish(publication)
    assert_holds(hub, publication)
    assert_never_half(hub.repo(TO), tmp_path)
    assert_sent_once(hub)


KINDS = (Answer(status=500), Answer(status=503), Drop(), Lose(), too_many_requests(rate_limit_headers=True))


@pytest.mark.parametrize(
    "where", ["/refs", "/tree/", "repos/create", "preupload", "objects/batch", "/commit/main", "/tag/", "^/models/"]
)
def test_what_may_pass_is_tried_again(hub: Hub, token: Token, small: Path, tmp_path: Path, where: str) -> None:
    publication = plan(small, tag="v1")
    with contextlib.ExitStack() as stack:  # one after the other
        faults = [
            stack.enter_context(hub.fault(kind, path=where, skip=number, times=1)) for number, kind in enumerate(KINDS)
        ]
        publish(publication)
    assert [fault.hits for fault in faults] == [1] * len(KINDS)
    assert_holds(hub, publication)
    assert_never_half(hub.repo(TO), tmp_path)
    assert len(hub.repo(TO).commits()) == 3
    assert len(hub.repo(METADATA, "dataset").commits()) == 2
    assert hub.repo(TO).tags.keys() == hub.repo(METADATA, "dataset").tags.keys() == {"v1"}


def test_pauses_are_those_that_the_hub_asks_for(hub: Hub, token: Token, small: Path, waits: list[float]) -> None:
    with (
        hub.fault(too_many_requests(retry_after=17), path="/commit/main", times=1),
        hub.fault(too_many_requests(retry_after=23, rate_limit_headers=True), path="/refs", times=1),
        hub.fault(Answer(status=503), path="repos/create", times=3),
    ):
        push(small)
    assert sorted(waits) == [1.0, 2.0, 4.0, 17.0, 23.0]


def test_a_hub_that_stays_down_is_an_error(hub: Hub, token: Token, small: Path, waits: list[float]) -> None:
    with hub.fault(Answer(status=503), path="/commit/main"), pytest.raises(HubError, match="same command") as caught:
        push(small)
    assert (vars(caught.value)["repo"], vars(caught.value)["status"]) == (TO, 503)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]


@pytest.mark.parametrize("after", [0, 3, 12, 25, 40])
def test_an_expired_token_is_named_and_a_new_one_goes_on(
    hub: Hub, token: Token, small: Path, tmp_path: Path, after: int, capfd: pytest.CaptureFixture[str]
) -> None:
    publication = plan(small)
    token.expire(after=after)
    with pytest.raises(HubError, match="expired") as caught:
        publish(publication)
    assert vars(caught.value)["status"] == 401
    assert str(token) not in "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
    assert str(token) not in "".join(capfd.readouterr())
    publish(publication, token=str(hub.add_token("org", role="write")))
    assert_holds(hub, publication)
    assert_sent_once(hub)


@pytest.mark.parametrize("there", [False, True])
def test_a_read_token_is_refused(hub: Hub, small: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setenv("HF_TOKEN", str(hub.add_token("org", role="read")))
    if there:
        for repo_type in ("model", "dataset"):
            hub.create_repo(TO if repo_type == "model" else METADATA, repo_type)
    with pytest.raises(HubError, match="write access") as caught:
        push(small)
    assert vars(caught.value)["status"] == 403
    assert not hub.requests.of(method="PUT")
    assert not there or len(hub.repo(TO).commits()) == 1


def test_without_a_token_nothing_is_asked(hub: Hub, small: Path) -> None:
    with pytest.raises(HubError, match="HF_TOKEN"):
        push(small)
    assert not hub.requests


def test_only_finished_members_go(hub: Hub, token: Token, small: Path) -> None:
    unfinished = small / ".training/members/pt-2.ft-1"
    shutil.move(small / "pt-2/ft-1", unfinished)
    (small / "pt-1/notes.txt").write_text("mine")
    (small / "pt-1/model.epoch-77.safetensors").write_bytes(b"")
    (small / "pt-9").mkdir()
    publication = plan(small)
    assert publication.left_out == ("pt-1/model.epoch-77.safetensors", "pt-1/notes.txt")
    assert any("5 of the recipe's 11 members" in line for line in publication.describe())
    assert b"Of the 11 members that the recipe plans, 5 are finished" in publication.closing[0].read()
    publish(publication)
    assert_holds(hub, publication)
    assert not any("ft-1" in path and path.startswith("pt-2") for path in hub.repo(TO).files())
    assert not any(path.startswith(".training") or path.endswith(".txt") for path in hub.repo(TO).files())


def test_a_file_that_disagrees_with_its_record_is_refused(hub: Hub, token: Token, small: Path) -> None:
    path = small / "pt-2/model.epoch-01.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()  # it may be a hard link
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=re.escape("pt-2/model.epoch-01.safetensors")):
        push(small, files_a_commit=10)
    assert not any(name.startswith("pt-2/") for name in hub.repo(TO).files())
    stored = set(hub.repo(TO).objects)
    record = records.load_member_record(small / "pt-2/member.json")
    assert not stored & {weights.sha256 for weights in record.weights}
    path.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match="bytes"):
        plan(small)
    path.unlink()
    with pytest.raises(RecordError, match="--epochs"):
        plan(small)


def test_a_member_trained_again_appears_with_the_manifest(hub: Hub, token: Token, small: Path, tmp_path: Path) -> None:
    shutil.move(small / "pt-2/ft-0", tmp_path / "later")
    push(small)
    shutil.move(tmp_path / "later", small / "pt-2/ft-0")
    folder = small / "pt-1/ft-0"
    record = records.load_member_record(folder / "member.json")
    final = folder / "model.safetensors"
    final.unlink()
    shutil.copyfile(folder / "model.epoch-01.safetensors", final)
    weights = tuple(replace(w, sha256=record.weights_at(1).sha256) if w.epoch is None else w for w in record.weights)
    write_json(folder / "member.json", replace(record, weights=weights))
    publication = plan(small)
    publish(publication)
    assert_holds(hub, publication)
    assert_never_half(hub.repo(TO), tmp_path)
    last, before, *_ = hub.repo(TO).commits()
    changed = {path for path in before.files if before.files[path] != last.files[path]}
    assert {path for path in changed if path.startswith("pt-")} == {
        "pt-1/ft-0/member.json",
        "pt-1/ft-0/model.safetensors",
    }
    assert "pt-2/ft-0/member.json" in before.files


def test_another_zoo_is_not_overwritten(hub: Hub, token: Token, small: Path) -> None:
    push(small)
    head = hub.repo(TO).head
    path = small / "zoo.json"
    record = records.load_zoo_record(path)
    recipe = record.recipe | {"name": "other"}
    write_json(path, replace(record, recipe=recipe, recipe_sha256=records.json_sha256(recipe)))
    with pytest.raises(TrainingError, match="another recipe"):
        push(small)
    with pytest.raises(TrainingError, match="tables of org/vit-zoo"):
        publish(plan_publication(FolderSource(small), to="org/other", metadata_to=METADATA))
    assert hub.repo(TO).head == head
    assert ("model", "org/other") not in hub._service.store.repos


@pytest.mark.parametrize(("repo_type", "path"), [("model", "pytorch_model.bin"), ("dataset", "train.csv")])
def test_a_repo_of_something_else_is_left_alone(hub: Hub, token: Token, small: Path, repo_type: Any, path: str) -> None:
    hub.create_repo(TO if repo_type == "model" else METADATA, repo_type).commit({path: b"x"})
    with pytest.raises(TrainingError, match=path):
        push(small)
    assert not hub.requests.of(path="commit/|preupload|repos/create")


def test_a_tag_of_another_version_is_refused(hub: Hub, token: Token, small: Path) -> None:
    first = push(small, tag="v1")
    shutil.rmtree(small / "pt-2/ft-1")
    with pytest.raises(TrainingError, match='tag "v1" already'):
        push(small, tag="v1")
    assert hub.repo(TO).head == first.commit
    second = push(small, tag="v2")
    assert hub.repo(TO).tags == {"v1": first.commit, "v2": second.commit}
    assert second.left_alone == 9


def test_private_is_not_made_public(hub: Hub, token: Token, small: Path) -> None:
    publish(plan(small), private=True)
    assert hub.repo(TO).private
    assert hub.repo(METADATA, "dataset").private
    assert publish(plan(small), private=True).commits == 0
    hub.repo(TO).private = False
    with pytest.raises(TrainingError, match="is public"):
        publish(plan(small), private=True)


@pytest.mark.parametrize(
    "planted",
    [
        "ran on some-host-7",
        "read from /home/" + "somebody/data",
        r"read from C:\Users\somebody",
        str(Path.home() / "zoo"),
        "git@example.com:org/private.git",
        "https://user:password@example.com/x.git",
        "the secret is hunter2-hunter2",
    ],
)
def test_what_is_nobodys_business_is_refused(
    hub: Hub, token: Token, small: Path, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "hunter2-hunter2")
    monkeypatch.setattr("socket.gethostname", lambda: "some-host-7.example.com")
    path = small / "pt-1/member.json"
    write_json(path, replace(records.load_member_record(path), deviations=(planted,)))
    with pytest.raises(TrainingError, match=re.escape("pt-1/member.json")) as caught:
        push(small)
    assert planted not in str(caught.value)
    assert not hub.requests


def test_the_zoos_own_path_and_the_token_are_refused(hub: Hub, small: Path) -> None:
    path = small / "pt-1/member.json"
    record = records.load_member_record(path)
    write_json(path, replace(record, deviations=(str(small),)))
    with pytest.raises(TrainingError, match="local path"):
        plan(small)
    write_json(path, replace(record, deviations=("token-of-no-pattern",)))
    with pytest.raises(TrainingError, match="credential"):
        publish(plan(small), token="token-of-no-pattern")
    assert not hub.requests


def test_two_publishers_at_once(hub: Hub, token: Token, small: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(small, tmp_path / "other"))
    shutil.rmtree(other / "pt-2")
    theirs, ours = plan(other), plan(small)
    with hub.fault(Before(lambda: publish(theirs, token=str(token))), path="/commit/main", times=1) as fault:
        publish(ours)
    assert fault.hits == 1
    assert_holds(hub, ours)
    assert_never_half(hub.repo(TO), tmp_path)
    with pytest.raises(TrainingError, match="Another process"), _publishing(small):
        push(small)


class _publishing:
    def __init__(self, folder: Path) -> None:
        from filelock import FileLock

        (folder / ".training/locks").mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".training/locks/publish.lock", is_singleton=False)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_hub_that_keeps_something_else_is_found_out(hub: Hub, token: Token, small: Path) -> None:
    repo = hub.create_repo(TO)

    def spoil() -> None:
        commit = repo.resolve()
        if "manifest.json" in commit.files:
            commit.files["pt-1/config.json"] = repo.store_regular(b"{}")  # type: ignore[index]

    with hub.fault(After(spoil), path="/commit/main"), pytest.raises(HubError, match=re.escape("pt-1/config.json")):
        push(small)


def test_the_dry_run_asks_nobody(hub: Hub, small: Path) -> None:
    result = CliRunner().invoke(app, ["publish", str(small), "--to", TO, "--dry-run", "--epochs", "last"])
    assert result.exit_code == 0, result.output
    assert not hub.requests
    publication = plan(small, epochs=Epochs("last"))
    assert publication.manifest.digest in result.output
    assert all(f"{file.size:,}  {file.path}" in result.output for file in publication.files)
    assert f"{publication.size:,} bytes" in result.output


def test_the_command(hub: Hub, token: Token, small: Path) -> None:
    arguments = ["publish", str(small), "--to", TO, "--metadata-to", "org/tables", "--tag", "v1"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    digest = plan(small, metadata_to="org/tables").manifest.digest
    assert f"vitzoo verify {TO} --digest {digest}" in first.output
    assert hub.repo(TO).head in first.output
    second = CliRunner().invoke(app, arguments)
    assert "already published" in second.output
    assert str(token) not in first.output + second.output


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": "vit-zoo"},
        {"to": "./vit-zoo"},
        {"to": "org/a", "metadata_to": "a/b/c"},
        {"to": "zoo/a"},
        {"to": "org/a", "tag": "a b"},
        {"to": "org/a", "tag": "main"},
        {"to": "org/a", "tag": "0123456789abcdef"},
    ],
)
def test_names_are_checked_first(tiny_zoo: Path, arguments: dict[str, str]) -> None:
    with pytest.raises(TrainingError, match="expected"):
        plan_publication(FolderSource(tiny_zoo), **arguments)  # type: ignore[arg-type]


def test_an_empty_zoo_is_refused(small: Path) -> None:
    for name in ("pt-1", "pt-2"):
        shutil.rmtree(small / name)
    with pytest.raises(TrainingError, match="no finished member"):
        plan(small)


def test_what_was_published_is_read_as_a_zoo(hub: Hub, token: Token, tiny_copy: Path, tmp_path: Path) -> None:
    published = push(tiny_copy)
    zoo = Zoo(TO, digest=published.digest)
    assert len(zoo) == 11
    member = zoo[MemberId(0, 1)]
    assert member.record.final_weights == records.load_member_record(tiny_copy / "pt-0/ft-1/member.json").final_weights


def test_what_the_hub_says_is_told_without_the_token(
    hub: Hub, token: Token, small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refusal = Answer(status=402, headers={"X-Error-Message": f"pay for {token}, please"})
    with hub.fault(refusal, path="/commit/"), pytest.raises(HubError, match="please") as caught:
        push(small)
    told = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value)) + "".join(capfd.readouterr())
    assert str(token) not in told
    assert not any(str(token).encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_file_that_goes_away_meanwhile(hub: Hub, token: Token, small: Path) -> None:
    publication = plan(small)
    (small / "pt-2/model.safetensors").unlink()
    with pytest.raises(WeightsError, match="not any more"):
        publish(publication)


def test_an_interrupt_says_that_it_can_go_on(hub: Hub, token: Token, small: Path, dying: Any) -> None:
    dying.at(20, "after")
    result = CliRunner().invoke(app, ["publish", str(small), "--to", TO])
    dying.revive()
    assert result.exit_code == 130
    assert "the same command goes on" in result.output
