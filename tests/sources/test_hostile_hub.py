"""A Hub that lies in its headers, never ends an answer, or fails in unusual ways; see test_hub.py for hostile files."""

import copy
import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from huggingface_hub import close_session, get_session

from tests.hub.faults import Answer, Drop, Endless, Headers, Slow, too_many_requests
from tests.hub.server import Hub
from tests.published import REPO, plant
from vitzoo import VitZooModel, Zoo, hub_http
from vitzoo.errors import ConflictingArgumentsError, DownloadError, HubError, NotCachedError
from vitzoo.hub_http import HubUnavailableError
from vitzoo.sources.download import download, find_weights
from vitzoo.weights.learning.dataset import WeightsDataset

MEMBER = f"{REPO}/pt-0"


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that huggingface_hub makes, which take no time."""
    made: list[float] = []
    for module in ("huggingface_hub.utils._http", "huggingface_hub.file_download"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(sleep=made.append))
    return made


def existing(folder: Path) -> set[str]:
    """Return every path below a folder, without the Hugging Face cache, and the paths beside the folder."""
    paths = (*folder.rglob("*"), *folder.parent.iterdir())
    return {str(path) for path in paths if "hf-home" not in path.parts}


EVIL = "../../../../../escaped"
HEADERS = {
    "etag": {"ETag": f'"{EVIL}"'},
    "absolute etag": {"ETag": '"/tmp/escaped"'},
    "weak etag": {"ETag": f'W/"{EVIL}"'},
    "linked etag": {"X-Linked-ETag": f'"{EVIL}"'},
    "short etag": {"ETag": '"abc"'},
    "long etag": {"ETag": f'"{"a" * 65}"'},
    "commit": {"X-Repo-Commit": EVIL},
    "short commit": {"X-Repo-Commit": "main"},
}


class TestNames:
    @pytest.mark.parametrize("headers", HEADERS)
    def test_a_header_that_is_not_a_hash_never_becomes_a_path(
        self, hub: Hub, tiny_zoo: Path, tmp_path: Path, headers: str
    ) -> None:
        plant(hub, tiny_zoo)
        before = existing(tmp_path)
        for file in ("zoo.json", "pt-0/config.json", *([] if "ETag" in HEADERS[headers] else ["pt-0/model"])):
            with hub.fault(Headers(values=HEADERS[headers]), host="hub", path=file), pytest.raises(HubError) as caught:
                VitZooModel.from_pretrained(MEMBER)
            assert caught.value.repo == REPO
        assert existing(tmp_path) == before
        cached = {path.name for path in (tmp_path / "hf-home").rglob("*")}
        assert not {name for name in cached if "escaped" in name or name in ("abc", "a" * 65)}
        VitZooModel.from_pretrained(MEMBER)

    def test_the_hash_after_a_redirect_on_the_hub_counts(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        values = {"Location": f"{hub.url}/{REPO}/resolve/main/zoo.json", "ETag": 'W/"1f-x"', "X-Repo-Commit": 40 * "a"}
        with hub.fault(Answer(status=307, headers=values), path="zoo.json", times=1) as moved:
            assert len(Zoo(REPO)) == 11
        assert moved.hits == 1

    def test_a_missing_file_with_a_hostile_commit_is_refused(self, hub: Hub, tiny_zoo: Path, tmp_path: Path) -> None:
        plant(hub, tiny_zoo)
        before = existing(tmp_path)
        answer = Answer(status=404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": EVIL})
        with hub.fault(answer, path="zoo.json"), pytest.raises(HubError):
            Zoo(REPO)
        assert existing(tmp_path) == before

    def test_a_hostile_header_of_a_copy_to_a_folder_is_refused(self, hub: Hub, tiny_zoo: Path, tmp_path: Path) -> None:
        plant(hub, tiny_zoo)
        source = Zoo(REPO).source
        weights, target = find_weights(source), tmp_path / "a/b/c/copy"
        with hub.fault(Headers(values=HEADERS["etag"]), path="config.json"), pytest.raises(HubError):
            download(source, weights, to=target, progress=False)
        assert {Path(path).relative_to(target) for path in existing(target)} >= {Path("manifest.json")}
        assert not list(tmp_path.rglob("*escaped*"))

    def test_a_hub_is_checked_after_a_broken_connection(
        self, hub: Hub, tiny_zoo: Path, tmp_path: Path, sleeps: list[float]
    ) -> None:
        plant(hub, tiny_zoo)
        with hub.fault(Drop(), path="zoo.json", times=2), hub.fault(Headers(values=HEADERS["etag"]), path="zoo.json"):
            close_session()  # as huggingface_hub does after a failed connection, within its retries
            with pytest.raises(HubError):
                Zoo(REPO)
        assert not list(tmp_path.rglob("*escaped*"))

    @pytest.mark.parametrize("revision", ["../../x", "/tmp/x", "a..b"])
    def test_a_revision_that_is_a_path_is_refused(self, hub: Hub, tiny_zoo: Path, revision: str) -> None:
        plant(hub, tiny_zoo)
        hub.requests.clear()
        with pytest.raises(ConflictingArgumentsError):
            Zoo(REPO, revision=revision)
        assert not hub.requests


def read_range(zoo: Zoo) -> object:
    return zoo["pt-0"].load_header()


def list_files(zoo: Zoo) -> object:
    return zoo.source.listed_files()  # pyright: ignore[reportAttributeAccessIssue]


READS: dict[str, tuple[Callable[[Zoo], object], str]] = {
    "weights": (lambda zoo: zoo["pt-0"].load(), "model.safetensors"),
    "record": (len, "manifest.json"),
    "range": (read_range, "model.safetensors"),
    "listing": (list_files, "/tree/"),
}


class TestWaits:
    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize("by_rate_limit", [False, True])
    def test_a_pause_of_a_day_is_an_error_at_once(
        self, hub: Hub, tiny_zoo: Path, sleeps: list[float], read: str, by_rate_limit: bool
    ) -> None:
        plant(hub, tiny_zoo)
        zoo, (load, path) = Zoo(REPO), READS[read]
        answer = too_many_requests(retry_after=864_000, rate_limit_headers=by_rate_limit)
        with hub.fault(answer, path=path), pytest.raises(HubUnavailableError) as caught:
            load(zoo)
        assert (caught.value.status, caught.value.repo, sleeps) == (429, REPO, [])

    def test_a_pause_on_the_files_host_is_an_error_at_once(self, hub: Hub, tiny_zoo: Path, sleeps: list[float]) -> None:
        plant(hub, tiny_zoo)
        with hub.fault(too_many_requests(retry_after=86_400), host="files"), pytest.raises(HubUnavailableError):
            VitZooModel.from_pretrained(MEMBER)
        assert sleeps == []
        with hub.fault(too_many_requests(retry_after=30), host="files", times=1):
            VitZooModel.from_pretrained(MEMBER)
        assert sleeps == [31]

    def test_every_request_has_a_timeout(self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plant(hub, tiny_zoo)
        zoo, timeouts = Zoo(REPO), []
        client = type(get_session())
        send = client.send

        def record(self: Any, request: Any, **options: Any) -> Any:
            response = send(self, request, **options)
            timeouts.append(request.extensions["timeout"])
            return response

        monkeypatch.setattr(client, "send", record)
        for load, _ in READS.values():
            load(zoo)
        assert len(timeouts) >= 6
        assert all(0 < seconds <= 300 for timeout in timeouts for seconds in timeout.values())

    def test_other_users_of_huggingface_hub_are_not_limited(
        self, hub: Hub, tiny_zoo: Path, sleeps: list[float]
    ) -> None:
        from huggingface_hub import hf_hub_download

        plant(hub, tiny_zoo)
        Zoo(REPO)
        with hub.fault(too_many_requests(retry_after=86_400), host="files", times=1):
            hf_hub_download(REPO, "pt-0/model.safetensors")
        assert sleeps == [86_401]


class TestEnds:
    def test_a_listing_without_an_end_is_refused(
        self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(hub, tiny_zoo)
        source: Any = Zoo(REPO).source
        monkeypatch.setattr(hub_http, "MOST_REQUESTS", 20)
        link = {"Link": f'<{hub.url}/api/models/{REPO}/tree/main>; rel="next"', "Content-Length": "2"}
        page = Answer(status=200, headers=link, body=b"[]")
        with hub.fault(page, path="/tree/") as pages, pytest.raises(HubError) as caught:
            source.listed_files()
        assert (caught.value.repo, pages.hits) == (REPO, 20)

    @pytest.mark.parametrize("read", READS)
    def test_an_answer_without_an_end_is_an_error(self, hub: Hub, tiny_zoo: Path, read: str) -> None:
        plant(hub, tiny_zoo)
        zoo, (load, path) = Zoo(REPO), READS[read]
        kind = "files" if read in ("weights", "range") else "hub"
        path = "" if kind == "files" else path
        with hub.fault(Endless(piece=2**18), host=kind, method="GET", path=path), pytest.raises(HubError) as caught:
            load(zoo)
        assert caught.value.repo == REPO
        assert sum(request.sent for request in hub.requests) < 2**27

    def test_a_size_above_the_limit_is_refused_before_the_download(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        with hub.fault(Headers(values={"X-Linked-Size": str(10**15)}), path="manifest"), pytest.raises(HubError):
            len(zoo)
        assert not hub.requests.of(method="GET", path="manifest")

    def test_a_compressed_answer_is_refused(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        compressed = Headers(values={"Content-Encoding": "gzip"})
        with hub.fault(compressed, path="manifest", method="GET"), pytest.raises(HubError):
            len(zoo)

    def test_an_answer_that_trickles_is_refused(
        self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        monkeypatch.setattr(hub_http, "LONGEST_ASKED", 0.05)
        with hub.fault(Slow(piece=4, seconds=0.02), path="manifest", method="GET"), pytest.raises(HubError) as caught:
            len(zoo)
        assert caught.value.expected == "at least 1000 bytes a second"


class TestErrors:
    ANSWERS: ClassVar = {
        "redirect loop": Answer(status=302, headers={"Location": "zoo.json"}),
        "no port": Answer(status=302, headers={"Location": "http://localhost:1/x"}),
        "other scheme": Answer(status=302, headers={"Location": "ftp://127.0.0.1/x"}),
        "malformed address": Answer(status=302, headers={"Location": "http://[::1/x"}),
        "malformed length": Headers(values={"X-Linked-Size": "many"}),
        "malformed wait": Answer(status=429, headers={"Retry-After": "9" * 5000}),
        "teapot": Answer(status=418),
        "no hash": Headers(values={"ETag": None}),
        "no commit": Headers(values={"X-Repo-Commit": None}),
        "false gzip": Headers(values={"Content-Encoding": "gzip"}),
    }

    @pytest.mark.parametrize("answer", ANSWERS)
    def test_every_error_of_the_client_is_a_hub_error(
        self, hub: Hub, tiny_zoo: Path, answer: str, sleeps: list[float]
    ) -> None:
        plant(hub, tiny_zoo)
        with hub.fault(self.ANSWERS[answer], path="zoo.json"):
            for load in (
                lambda: Zoo(REPO),
                lambda: VitZooModel.from_pretrained(MEMBER),
                lambda: VitZooModel.from_pretrained(REPO, subfolder="pt-0"),
            ):
                with pytest.raises(HubError):
                    load()

    @pytest.mark.parametrize("body", [b"{", b"[1]", b'[{"type": "file"}]', b"[" * 100_000, b"\xff"])
    def test_a_malformed_listing_is_a_hub_error(self, hub: Hub, tiny_zoo: Path, body: bytes) -> None:
        plant(hub, tiny_zoo)
        source: Any = Zoo(REPO).source
        with hub.fault(Answer(status=200, body=body), path="/tree/"), pytest.raises(HubError) as caught:
            source.listed_files()
        assert caught.value.repo == REPO

    @pytest.mark.parametrize(
        ("numbers", "fix"),
        [
            ((errno.EACCES, errno.EPERM, errno.EROFS), "Make the folder writable"),
            ((errno.ENOSPC, errno.EDQUOT), "Make room"),
            ((errno.EIO, errno.ENOTDIR), "Check the folder"),
        ],
    )
    def test_the_advice_fits_the_error_of_the_disk(self, numbers: tuple[int, ...], fix: str) -> None:
        for number in numbers:
            error = OSError(number, os.strerror(number), "x")
            ours = hub_http.explain(error, what="x", repo=REPO, revision=None, offline=False)
            assert isinstance(ours, DownloadError)
            assert str(ours.fix).startswith(fix)


class TestSecrets:
    @pytest.mark.parametrize("given", [False, True])
    def test_no_pickle_has_a_token(
        self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch, given: bool
    ) -> None:
        plant(hub, tiny_zoo, private=True)
        token = str(hub.add_token("someone", orgs=("org",)))
        monkeypatch.setenv("HF_TOKEN", "hf_other" if given else token)
        zoo = Zoo(REPO, token=token if given else None)
        selection = zoo.select()
        data = WeightsDataset(zoo.weights(selection))
        for held in (zoo, selection, data, zoo["pt-0"], zoo.source):
            dumped = pickle.dumps(held)
            assert token.encode() not in dumped
            assert b"hf_other" not in dumped
        assert len(copy.deepcopy(zoo)["pt-1"].load_header()) > 0  # a copy in this process keeps it
        again = pickle.loads(pickle.dumps(zoo))
        monkeypatch.setenv("HF_TOKEN", token)
        again["pt-2"].load_header()
        assert hub.requests.of(host="hub")[-1].token == token

    def test_the_token_is_asked_for_when_it_is_used(
        self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(hub, tiny_zoo, private=True)
        first, second = (hub.add_token("someone", orgs=("org",)) for _ in range(2))
        monkeypatch.setenv("HF_TOKEN", str(first))
        zoo = Zoo(REPO)
        first.expire()
        monkeypatch.setenv("HF_TOKEN", str(second))
        zoo["pt-0"].load()

    def test_another_host_never_gets_the_token(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        token = str(hub.add_token("someone"))
        source: Any = Zoo(REPO, token=token).source
        other = {"Link": f'<{hub.files_url}/elsewhere>; rel="next"', "Content-Length": "2"}
        with hub.fault(Answer(status=200, headers=other, body=b"[]"), path="/tree/"), pytest.raises(HubError):
            source.listed_files()
        redirect = Answer(status=307, headers={"Location": f"{hub.files_url}/elsewhere"})
        with hub.fault(redirect, host="hub", path="pt-0/model"), pytest.raises(HubError):
            read_range(Zoo(REPO, token=token))
        assert {request.token for request in hub.requests.of(host="files")} == {None}
        xet = {"X-Xet-Hash": 64 * "0", "X-Xet-Refresh-Route": f"{hub.files_url}/elsewhere"}
        with hub.fault(Headers(values=xet), host="hub", path="pt-1/model"), pytest.raises(HubError):
            Zoo(REPO, token=token)["pt-1"].load()
        assert token in {request.token for request in hub.requests.of(host="hub")}


class TestCache:
    def test_a_relative_cache_stays_after_a_change_of_folder(
        self, hub: Hub, tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO, cache_dir="cache")
        zoo["pt-0"].load()
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        hub.requests.clear()
        zoo["pt-0"].load()
        assert not hub.requests.of(path="pt-0/")
        zoo["pt-1"].load()
        assert not list(Path.cwd().iterdir())
        with pytest.raises(NotCachedError):
            Zoo(REPO, cache_dir="cache", local_files_only=True)
