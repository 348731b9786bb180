"""Publishing: the Hub gets exactly the zoo, once, whatever happens in between; nothing that is nobody's business."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha1, sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from huggingface_hub import get_session, set_client_factory
from huggingface_hub.utils._http import default_client_factory
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.hub import After, Answer, Before, Drop, Hub, Lose, Token, too_many_requests
from tests.published import assert_never_half
from training.__main__ import app
from training.lease import acquire
from training.publish import remote
from training.publish.files import PlannedFile
from training.publish.look import RemoteFile
from training.publish.plan import Publication, plan_publication
from training.publish.push import PushResult, publish
from training.publish.ready import check_ready
from training.publish.remote import HubAway
from training.publish.verified import Verified
from vitzoo import records
from vitzoo.architectures import is_head
from vitzoo.errors import HubError, RecordError, TrainingError, UnsafePathError, WeightsError
from vitzoo.ids import MemberId
from vitzoo.records.json_files import json_sha256, write_json, write_lines
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.cards import parse_published
from vitzoo.tensors.content import load_content
from vitzoo.zoo.conditions import Epochs
from vitzoo.zoo.zoo import Zoo

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


def push(folder: Path, *, files_a_commit: int = 500, **options: Any) -> PushResult:
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
    for name in ("members", "epochs", "splits"):
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


@pytest.mark.parametrize(("asked", "said"), [(601, "10 minutes;"), (7200, "2.0 hours"), ("9" * 400, "two days")])
def test_a_hub_that_asks_for_too_much_is_left_to_the_user(
    hub: Hub, token: Token, small: Path, waits: list[float], asked: Any, said: str
) -> None:
    fault = Answer(status=429, headers={"Retry-After": str(asked)})
    with hub.fault(fault, path="/commit/main"), pytest.raises(HubError, match=said) as caught:
        push(small)
    assert vars(caught.value)["status"] == 429
    assert waits == []


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


def test_a_token_is_sent_without_its_lines_end(hub: Hub, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = str(hub.add_token("org", role="write"))
    assert publish(plan(small), token=f"{token}\n").commits > 0
    monkeypatch.setenv("HF_TOKEN", f" {token} \r\n")
    assert publish(plan(small)).commits == 0


@pytest.mark.parametrize("token", ["hf_one\nhf_two", "caf\u00e9-token", "", "\n"])
def test_a_token_that_no_header_carries_is_refused(hub: Hub, small: Path, token: str) -> None:
    with pytest.raises(HubError, match="token") as caught:
        publish(plan(small), token=token)
    assert not token.strip() or token not in str(caught.value)
    assert not hub.requests


def test_a_file_that_cannot_be_read_is_named(
    hub: Hub, token: Token, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(error: OSError) -> Callable[..., None]:
        def raising(*_: Any, **__: Any) -> None:
            raise error

        return raising

    publication = plan(small)
    for error, name in (
        (PermissionError(13, "Permission denied", "zoo/pt-1/model.safetensors"), "zoo/pt-1/model.safetensors"),
        (OSError(5, "Input/output error"), "pt-1/model"),
    ):
        monkeypatch.setattr(remote.HfApi, "preupload_lfs_files", refuse(error))
        with pytest.raises(TrainingError, match=rf"{re.escape(name)}.* cannot be read: \w") as caught:
            publish(publication)
        assert not isinstance(caught.value, OSError)
    monkeypatch.setattr(remote, "CommitOperationAdd", refuse(PermissionError(13, "Permission denied")))
    with pytest.raises(TrainingError, match=r"pt-1/config\.json cannot be read: Permission denied"):
        publish(publication)


def test_a_file_held_by_git_is_the_one_that_was_planned(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"planned")
    file = PlannedFile(path="file", size=7, sha256=sha256(b"planned").hexdigest(), content=path)
    blobs = [sha1(b"blob 7\0" + content).hexdigest() for content in (b"planned", b"altered")]
    planned, altered = (RemoteFile(7, blob, None) for blob in blobs)
    assert planned.holds(file)
    path.write_bytes(b"altered")
    assert not altered.holds(file)
    path.unlink()
    with pytest.raises(TrainingError, match="cannot be read"):
        planned.holds(file)


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


def flip(path: Path, at: int = -4) -> bytes:
    """Change one bit of a file, which may be a hard link; the bytes as they are now."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()
    path.write_bytes(data)
    return bytes(data)


def train_again(folder: Path) -> None:
    """Other weights of the last epoch, and the records that go with them."""
    record = records.load_member_record(folder / "member.json")
    last = folder / f"model.epoch-{record.epochs:02d}.safetensors"
    data = flip(last)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(data)
    content = load_content(last, is_head=is_head)
    weights = tuple(
        replace(w, sha256=content.sha256) if w.epoch in (None, record.epochs) else w for w in record.weights
    )
    write_json(folder / "member.json", replace(record, weights=weights))
    *metrics, final = records.load_epoch_records(folder / "metrics.jsonl")
    final = replace(final, weights_id=content.weights_id, backbone_id=content.backbone_id)
    write_lines(folder / "metrics.jsonl", [*metrics, final])


def test_a_file_that_disagrees_with_its_record_is_refused(hub: Hub, token: Token, small: Path) -> None:
    path = small / "pt-2/model.epoch-01.safetensors"
    data = flip(path)
    with pytest.raises(TrainingError, match=re.escape("pt-2: model.epoch-01.safetensors: has sha256")):
        push(small, files_a_commit=10)
    assert not hub.requests.of(path="commit/|preupload|repos/create")
    path.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match="bytes"):
        plan(small)
    path.unlink()
    with pytest.raises(RecordError, match="--epochs"):
        plan(small)


def test_a_file_altered_while_others_are_sent_is_refused(hub: Hub, token: Token, small: Path) -> None:
    path = small / "pt-2/model.epoch-01.safetensors"
    publication = plan(small)
    with (
        hub.fault(Before(lambda: flip(path)), path="/commit/main", times=1),
        pytest.raises(WeightsError, match=re.escape("pt-2/model.epoch-01.safetensors")),
    ):
        publish(publication, files_a_commit=10)
    assert not any(name.startswith("pt-2/") for name in hub.repo(TO).files())
    record = records.load_member_record(small / "pt-2/member.json")
    assert not set(hub.repo(TO).objects) & {weights.sha256 for weights in record.weights}


def _nan_in_final_weights(zoo: Path) -> None:
    folder = zoo / "pt-2/ft-1"
    path = folder / "model.safetensors"
    tensors = {name: torch.full_like(tensor, float("nan")) for name, tensor in load_file(path).items()}
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    record = records.load_member_record(folder / "member.json")
    final = replace(record.final_weights, size=path.stat().st_size, sha256=sha256(path.read_bytes()).hexdigest())
    weights = tuple(final if w.epoch is None else w for w in record.weights)
    write_json(folder / "member.json", replace(record, weights=weights))


def _seven_layers(zoo: Path) -> None:
    path = zoo / "pt-1/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 7}))


def _one_epoch(zoo: Path) -> None:
    path = zoo / "pt-1/metrics.jsonl"
    path.write_text(path.read_text().partition("\n")[0] + "\n")


def _no_parent(zoo: Path) -> None:
    for path in (zoo / "pt-2").glob("*.*"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_nan_in_final_weights, r"pt-2/ft-1: model\.safetensors: .* holds NaN"),
        (_seven_layers, r"pt-1: .*config\.json"),
        (_one_epoch, r"pt-1: metrics\.jsonl: ends at epoch 0"),
        (_no_parent, r"pt-2/ft-0: its parent pt-2 is not there"),
    ],
)
def test_what_verify_refuses_is_not_published(
    hub: Hub, token: Token, small: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(small)
    for epochs in ("all", "last", "1"):  # the final weights always go along
        with pytest.raises(TrainingError, match=said) as caught:
            push(small, epochs=Epochs(epochs))
        assert f"vitzoo verify {small}" in str(caught.value)
    assert not hub.requests.of(path="commit/|preupload|repos/create")
    assert set(hub._service.store.repos) == set()


def test_tables_of_an_earlier_moment_keep_nobody_from_publishing(hub: Hub, token: Token, small: Path) -> None:
    shutil.rmtree(small / "metadata")
    push(small)
    with hub.recorded() as requests:
        _one_epoch(small)
        with pytest.raises(TrainingError, match="not sound"):
            push(small)
    assert not requests.of(path="commit/")


def test_a_record_changed_since_the_plan_is_refused(hub: Hub, token: Token, small: Path) -> None:
    publication = plan(small)
    with open(small / "pt-1/config.json", "a") as file:
        file.write("\n")
    with pytest.raises(TrainingError, match=re.escape("pt-1: config.json: was changed")):
        publish(publication)


@pytest.mark.parametrize("name", ["timing.jsonl", "config.json", "model.safetensors"])
def test_a_link_is_not_published(small: Path, name: str) -> None:
    target = small / ".training/logs/x.log"
    target.parent.mkdir(parents=True, exist_ok=True)
    path = small / "pt-1" / name
    shutil.move(path, target)
    path.symlink_to(os.path.relpath(target, path.parent))
    with pytest.raises(UnsafePathError, match=re.escape(f"pt-1/{name} is a symbolic link")):
        plan(small)
    path.unlink()
    os.link(target, path)
    plan(small)


def test_a_member_folder_that_is_a_link_is_not_published(small: Path) -> None:
    shutil.move(small / "pt-1", small / ".hidden")
    (small / "pt-1").symlink_to(".hidden")
    with pytest.raises(UnsafePathError, match="goes through one"):
        plan(small)


TIMING = '{"epoch": 0, "training_seconds": 0.0, "finished_at": 1795434203.5, "hardware": "AMD EPYC"}'


@pytest.mark.parametrize(
    "line",
    [
        "started worker 3 of 8",
        "",
        "7",
        TIMING[:-1] + ', "user": "anna"}',
        TIMING.replace('"epoch": 0, ', ""),
        TIMING.replace("AMD EPYC", "x" * 200),
        TIMING.replace("AMD EPYC", r"a\nb"),
        TIMING.replace("0.0", '"0.0"'),
        TIMING.replace("0.0", "NaN"),
        TIMING.replace('"AMD', '"a log", "hardware": "AMD'),
        "[" * 3000,
    ],
)
def test_timing_is_what_the_trainer_writes(small: Path, line: str) -> None:
    path = small / "pt-1/timing.jsonl"
    path.write_text(TIMING + "\n")
    plan(small)
    path.write_text(f"{TIMING}\n{line}\n")
    with pytest.raises(RecordError, match=re.escape("pt-1/timing.jsonl, line 2")):
        plan(small)
    path.write_bytes(b"\xff\n")
    with pytest.raises(RecordError, match=re.escape("timing.jsonl")):
        plan(small)


def test_a_recipe_nested_without_end_is_refused(small: Path) -> None:
    path = small / "zoo.json"
    record = records.load_zoo_record(path)
    nested: Any = 0
    for _ in range(900):
        nested = [nested]
    recipe = record.recipe | {"source": nested}
    text = {"format": 1, "recipe": recipe, "recipe_sha256": json_sha256(recipe), "metadata_repo": None}
    path.write_text(json.dumps(text))
    with pytest.raises(RecordError, match=re.escape("zoo.json")):
        plan(small)


def test_a_member_trained_again_appears_with_the_manifest(hub: Hub, token: Token, small: Path, tmp_path: Path) -> None:
    shutil.move(small / "pt-2/ft-0", tmp_path / "later")
    push(small)
    shutil.move(tmp_path / "later", small / "pt-2/ft-0")
    train_again(small / "pt-1/ft-0")
    publication = plan(small)
    publish(publication)
    assert_holds(hub, publication)
    assert_never_half(hub.repo(TO), tmp_path)
    last, before, *_ = hub.repo(TO).commits()
    changed = {path for path in before.files if before.files[path] != last.files[path]}
    assert {path for path in changed if path.startswith("pt-")} == {
        "pt-1/ft-0/member.json",
        "pt-1/ft-0/metrics.jsonl",
        "pt-1/ft-0/model.epoch-02.safetensors",
        "pt-1/ft-0/model.safetensors",
    }
    assert "pt-2/ft-0/member.json" in before.files


_opened: list[str] = []
_listening = False


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _listening and event == "open" and str(arguments[0]).endswith(".safetensors"):
        _opened.append(str(arguments[0]))


sys.addaudithook(_hear)  # which cannot be taken away again


@contextlib.contextmanager
def weights_read() -> Iterator[list[str]]:
    """The weights files that are opened inside, as often as they are."""
    global _listening
    _opened.clear()
    _listening = True
    try:
        yield _opened
    finally:
        _listening = False


def test_what_was_verified_is_not_read_again(hub: Hub, token: Token, small: Path, tmp_path: Path) -> None:
    verified, later = Verified(), small / "pt-2/ft-1"
    shutil.move(later, tmp_path / "later")

    def publish_all() -> PushResult:
        return publish(plan(small, verified=verified), verified=verified)

    with weights_read() as read:
        publish_all()
    every = {str(path) for path in small.rglob("*.safetensors")}
    assert set(read) == every
    shutil.move(tmp_path / "later", later)
    with weights_read() as read:
        publish_all()
    assert {str(Path(path).parent) for path in read} == {str(later)}
    assert_holds(hub, plan(small))
    assert_never_half(hub.repo(TO), tmp_path)
    with weights_read() as read:
        assert publish_all().commits == 0
    assert read == []


@pytest.mark.parametrize("how", ["in place", "its time restored", "another file", "its record"])
def test_what_was_altered_since_is_read_again(hub: Hub, token: Token, small: Path, tmp_path: Path, how: str) -> None:
    verified, later, path = Verified(), small / "pt-2/ft-1", small / "pt-1/model.epoch-01.safetensors"
    shutil.move(later, tmp_path / "later")
    publish(plan(small, verified=verified), verified=verified)
    shutil.move(tmp_path / "later", later)
    before = path.stat()
    if how == "its record":
        record = records.load_member_record(small / "pt-1/member.json")
        weights = [replace(one, sha256=("0" * 64 if one.epoch == 1 else one.sha256)) for one in record.weights]
        write_json(small / "pt-1/member.json", replace(record, weights=tuple(weights)))
    elif how == "another file":
        shutil.copy2(path, tmp_path / "copy")
        flip(tmp_path / "copy")
        os.utime(tmp_path / "copy", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(tmp_path / "copy", path)
    else:
        flip(path)
        if how == "its time restored":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(TrainingError, match=re.escape("pt-1: model.epoch-01.safetensors: has sha256")):
        publish(plan(small, verified=verified), verified=verified)


def test_members_verified_before_are_held_against_new_ones(hub: Hub, token: Token, small: Path, tmp_path: Path) -> None:
    verified = Verified()
    shutil.move(small / "pt-2/ft-1", tmp_path / "later")
    publish(plan(small, verified=verified), verified=verified)
    shutil.move(tmp_path / "later", small / "pt-2/ft-1")
    for name in ("model.epoch-01.safetensors", "metrics.jsonl"):  # as if it was trained, and yet is another
        shutil.copy(small / "pt-2/ft-0" / name, small / "pt-2/ft-1" / name)
    record = records.load_member_record(small / "pt-2/ft-1/member.json")
    copied = (small / "pt-2/ft-1/model.epoch-01.safetensors").read_bytes()
    weights = [
        replace(one, sha256=sha256(copied).hexdigest(), size=len(copied)) if one.epoch == 1 else one
        for one in record.weights
    ]
    write_json(small / "pt-2/ft-1/member.json", replace(record, weights=tuple(weights)))
    with pytest.raises(TrainingError, match="has the same weights as pt-2/ft-0 at epoch 1"):
        publish(plan(small, verified=verified), verified=verified)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda hub: hub.add_token("org", role="read"), "the token may only read. Use one with write access"),
        (lambda hub: hub.add_token("else", role="write"), 'is of an account (else) that is not of "org"'),
        (lambda hub: None, "needs a token with write access"),
        (lambda hub: "hf_" + "x" * 34, "the token is refused (status 401)"),
    ],
)
def test_a_token_that_may_not_write_is_told_before_training(
    hub: Hub, small: Path, monkeypatch: pytest.MonkeyPatch, prepare: Any, said: str
) -> None:
    found = prepare(hub)
    if found is not None:
        monkeypatch.setenv("HF_TOKEN", str(found))
    with pytest.raises(HubError, match=re.escape(said)):
        ready(small)


def test_before_training_nothing_is_made(hub: Hub, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", str(hub.add_token("me", role="write", orgs=("org",))))
    ready(small)
    assert set(hub._service.store.repos) == set()
    push(small)
    history = len(hub.repo(TO).commits())
    ready(small)
    assert len(hub.repo(TO).commits()) == history
    monkeypatch.setenv("HF_TOKEN", str(hub.add_token("org", role="read")))
    with pytest.raises(HubError, match="cannot be written to: the token may not do that"):
        ready(small)


def test_a_repo_of_something_else_is_told_before_training(hub: Hub, token: Token, small: Path) -> None:
    push(small)
    other = replace(FolderSource(small).record, recipe_sha256="0" * 64)
    with pytest.raises(TrainingError, match="holds the zoo of another recipe"):
        check_ready(other, to=TO, metadata_to=None, private=False, say=print)
    with pytest.raises(TrainingError, match="holds the tables of org/vit-zoo; nothing was sent there"):
        check_ready(other, to="org/more", metadata_to=METADATA, private=False, say=print)
    model = hub.create_repo("org/bare")
    with pytest.raises(TrainingError, match="is public, but --private was given"):
        check_ready(other, to="org/bare", metadata_to=None, private=True, say=print)
    model.commit({"weights.bin": b"x"})
    with pytest.raises(TrainingError, match=re.escape("holds files that no zoo has ('weights.bin')")):
        check_ready(other, to="org/bare", metadata_to=None, private=False, say=print)


def test_a_hub_that_is_down_before_training_is_told_apart(hub: Hub, token: Token, small: Path) -> None:
    with hub.fault(Answer(status=503)), pytest.raises(HubAway, match="status 503, 8 times"):
        ready(small)


def test_a_request_that_hangs_ends_where_waiting_is_limited(hub: Hub, token: Token, small: Path) -> None:
    end = threading.Event()
    try:
        remote.limit_waiting(0.05)
        with hub.fault(Before(lambda: end.wait(60)), path="/api/models/"), pytest.raises(HubAway, match="no answer, 8"):
            ready(small)
    finally:
        end.set()
        set_client_factory(default_client_factory)
    ready(small)


def ready(folder: Path) -> None:
    check_ready(FolderSource(folder).record, to=TO, metadata_to=None, private=False, say=print)


def test_more_replaced_than_a_commit_may_have_is_refused_at_once(
    hub: Hub, token: Token, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(small)
    head = hub.repo(TO).head
    train_again(small / "pt-1/ft-0")  # four files, and the zoo's own
    for name, limit in (("LARGEST_COMMIT", 7), ("_MOST_TEXT", 5000)):
        with monkeypatch.context() as limited:
            limited.setattr(f"training.publish.commits.{name}", limit)
            with pytest.raises(TrainingError, match=r"1 members .*another repo with --to"):
                push(small)
    assert hub.repo(TO).head == head
    assert push(small).commits == 2


def test_an_unfinished_publication_of_another_zoo_is_not_mixed_up(
    hub: Hub, token: Token, small: Path, dying: Any
) -> None:
    other = Path(shutil.copytree(small, small.parent / "other"))
    train_again(other / "pt-1/ft-0")
    with hub.fault(Answer(status=403), path="/commit/main", skip=3), pytest.raises(HubError):
        push(small, files_a_commit=10)
    repo = hub.repo(TO)
    assert "zoo.json" not in repo.files()
    head = repo.head
    with pytest.raises(TrainingError, match=r"pt-1/ft-0 differ from ours; .*another repo with --to.*trained again"):
        push(other)
    shutil.rmtree(other / "pt-1")
    with pytest.raises(TrainingError, match=r"pt-1, pt-1/ft-0, pt-1/ft-1 are none of ours"):
        push(other)
    assert repo.head == head
    push(small)
    assert_holds(hub, plan(small))


def test_an_edit_of_gitattributes_makes_no_commit(hub: Hub, token: Token, small: Path) -> None:
    first = push(small)
    repo = hub.repo(TO)
    repo.commit({".gitattributes": b"*.bin filter=lfs\n"})
    again = push(small, tag="v1")
    assert again == replace(first, commits=0, commit=repo.head)
    assert repo.head != first.commit
    card = hub.repo(METADATA, "dataset").read("README.md").decode()
    hub.repo(METADATA, "dataset").commit({"README.md": card.replace(first.commit, "0" * 40).encode()})
    push(small)
    mended = parse_published(_card(hub))
    assert mended is not None
    assert mended.commit == repo.head
    shutil.rmtree(small / "pt-2/ft-1")
    changed = push(small)
    described = parse_published(_card(hub))
    assert described is not None
    assert (described.commit, described.digest) == (changed.commit, changed.digest)


def _card(hub: Hub) -> str:
    return hub.repo(METADATA, "dataset").read("README.md").decode()


def test_another_zoo_is_not_overwritten(hub: Hub, token: Token, small: Path) -> None:
    push(small)
    head = hub.repo(TO).head
    path = small / "zoo.json"
    record = records.load_zoo_record(path)
    recipe = record.recipe | {"name": "other"}
    write_json(path, replace(record, recipe=recipe, recipe_sha256=json_sha256(recipe)))
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


PATHS = ("home", "Users", "root", "tmp", "mnt", "media", "data", "srv", "scratch", "opt", "var")
NOBODYS_BUSINESS = [
    "ran on some-host-7",
    "ran on Some-Host-7.example.com",
    "asked mallory about it",
    "/work" + "/mallory/x",
    *(f"read from /{root}/" + "somebody/x" for root in PATHS),
    "cache:/data/x",
    'cache="/scratch/x"',
    "--out=/home/" + "somebody",
    "/lustre/home/" + "somebody/x",
    "file:///etc/passwd",
    "see ~/zoo",
    "see ~somebody/zoo",
    r"read from C:\Users\somebody",
    "read from C:/Users/" + "somebody",
    r"D:\zoo",
    r"\\server\share\zoo",
    "git@example.com:org/private.git",
    "somebody@cluster:zoo",
    "ssh://example.com/x",
    "git+ssh://example.com/x",
    "pip install git+https://example.com/x",
    "https://example.com/org/private.git",
    "http://example.com/org/private.git@main",
    "https://user:password@example.com/x",
    "the secret is hunter2-hunter2",
    *("hf_" + "a" * 34, "ghp_" + "a" * 36, "gho_" + "a" * 36, "github_pat_" + "a" * 40, "sk-" + "proj-" + "a" * 40),
    *("AKIA" + "A" * 16, "xoxb-" + "1" * 20, "AIza" + "a" * 35, "-----BEGIN RSA PRIVATE KEY-----"),
]
FINE = [
    "scikit-learn 1.9.1",
    "Falk et al. 2025, https://arxiv.org/abs/2504.10231 (arXiv 2504.10231)",
    "https://huggingface.co/datasets/org/data/tree/main/data/train.parquet",
    "https://example.org/home/" + "page, https://somebody.github.io/data/x",
    "https://github.com/org/code/blob/main/data/x.py",
    "s3://data/train",
    "train/val/test split, and/or 1/2, ./data/x, ../mnt/x",
    "the digits of the pt-0/ft-1@7: epoch 7",
    "Option A:\nkeep the last epoch; ratio 3:4, a~b, ~3/4 of it",
    "somebody@example.org wrote: thanks; a task-specific-head-of-a-certain-length",
    "lr 1e-3\\2, x\\y, \u00e4",
    "host-7 of some, some-host-70, malloryx",
]


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "hunter2-hunter2")
    monkeypatch.setattr("socket.gethostname", lambda: "some-host-7.example.com")
    monkeypatch.setattr("getpass.getuser", lambda: "mallory")


@pytest.mark.parametrize("planted", [*NOBODYS_BUSINESS, str(Path.home() / "zoo")])
def test_what_is_nobodys_business_is_refused(small: Path, planted: str, somebody: None) -> None:
    path = small / "pt-1/member.json"
    write_json(path, replace(records.load_member_record(path), deviations=(planted,)))
    with pytest.raises(TrainingError, match=re.escape("pt-1/member.json")) as caught:
        plan(small)
    assert planted not in str(caught.value)


def test_nothing_is_asked_where_something_is_nobodys_business(hub: Hub, token: Token, small: Path) -> None:
    path = small / "pt-1/member.json"
    text = path.read_text()
    path.write_text(text.replace('"deviations": [', r'"deviations": ["\/h\u006fme\/somebody",'))  # JSON for a path
    assert path.read_text() != text
    with pytest.raises(TrainingError, match="local path"):
        push(small)
    assert not hub.requests


def test_what_records_say_is_not_taken_for_somebodys(small: Path, somebody: None) -> None:
    path = small / "pt-1/member.json"
    write_json(path, replace(records.load_member_record(path), deviations=tuple(FINE)))
    publication = plan(small)
    assert any("task-specific" in file.read().decode() for file in publication.members[MemberId(1)][:4])


@pytest.mark.parametrize(
    ("user", "host", "planted", "refused"),
    [
        ("root", "gx1", "on gx1, as ever", "this machine's name"),
        ("root", "n-a", "on n-a", "this machine's name"),
        ("root", "gpu", "on a gpu", None),
        ("root", "7", "on 7", None),
        ("root", "pt-3", "from pt-3", None),
        ("root", "digits", "of digits", None),
        ("ann", "vm", "ann on vm", None),
        ("linear", "accuracy", "linear accuracy", None),
        ("anna", "vm", "by Anna", "your user's name"),
        ("anna", "vm", "by Annabel", None),
        ("my-lab", "vm", "by my-lab", "your user's name"),
        ("org", "vit-zoo", "org/vit-zoo", None),
    ],
)
def test_names_are_searched_for_where_they_tell(
    small: Path, monkeypatch: pytest.MonkeyPatch, user: str, host: str, planted: str, refused: str | None
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    monkeypatch.setattr("getpass.getuser", lambda: user)
    path = small / "pt-1/member.json"
    plan(small)
    write_json(path, replace(records.load_member_record(path), deviations=(planted,)))
    if refused is None:
        plan(small)
        return
    with pytest.raises(TrainingError, match=refused):
        plan(small)


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
    (small / ".training/leases").mkdir(parents=True, exist_ok=True)
    held = acquire(small / ".training/leases", "publish")
    with pytest.raises(TrainingError, match=r"Another process is publishing .*: process \d+ on .*\. Wait for it"):
        push(small)
    held.release()
    push(small)


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
    publication, path = plan(small), small / "pt-2/model.safetensors"
    with (
        hub.fault(Before(path.unlink), path="/commit/main", times=1),
        pytest.raises(WeightsError, match="not any more"),
    ):
        publish(publication, files_a_commit=10)
    with pytest.raises(TrainingError, match=re.escape("pt-2: model.safetensors: missing")):
        publish(publication)


def test_an_interrupt_says_that_it_can_go_on(hub: Hub, token: Token, small: Path, dying: Any) -> None:
    dying.at(20, "after")
    result = CliRunner().invoke(app, ["publish", str(small), "--to", TO])
    dying.revive()
    assert result.exit_code == 130
    assert "the same command goes on" in result.output
