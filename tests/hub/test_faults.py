"""Each fault once while pulling, and what the real client makes of it: what it gets over, and which errors it raises.

The client gives every request at most five more tries, waiting 1, 2, 4, 8, 8 seconds, or as long as it is told.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, HfFileSystem, constants, get_session, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from tests.hub import (
    Answer,
    Before,
    Cut,
    Drop,
    Flip,
    Hub,
    Repo,
    Slow,
    Token,
    Truncate,
    too_many_requests,
)

Download = Callable[..., Path]
REGULAR, LFS = "config.json", "model.safetensors"
DATA = bytes(index % 251 for index in range(100_000))
DOUBLING = [1, 2, 4, 8, 8]


@pytest.fixture
def repo(hub: Hub) -> Repo:
    made = hub.create_repo("alice/zoo")
    made.commit({REGULAR: DATA, LFS: DATA})
    return made


def test_a_head_that_fails_once_costs_one_more_and_no_wait(
    hub: Hub, repo: Repo, download: Download, naps: list[float]
) -> None:
    hub.fault(Answer(status=503), method="HEAD", times=1)
    assert download(repo.id, LFS).read_bytes() == DATA
    assert [request.status for request in hub.requests] == [503, 302, 200]
    assert naps == []


@pytest.mark.parametrize("status", [500, 503])
def test_a_head_that_keeps_failing(hub: Hub, repo: Repo, download: Download, naps: list[float], status: int) -> None:
    hub.fault(Answer(status=status), method="HEAD")
    with pytest.raises(LocalEntryNotFoundError):  # which hides the status
        download(repo.id, LFS)
    assert len(hub.requests) == 1 + 6
    assert naps == DOUBLING


@pytest.mark.parametrize("rate_limit_headers", [False, True])
def test_too_many_requests_are_waited_out(
    hub: Hub, repo: Repo, download: Download, naps: list[float], rate_limit_headers: bool
) -> None:
    fault = too_many_requests(retry_after=30, rate_limit_headers=rate_limit_headers)
    hub.fault(fault, method="GET", times=2)
    assert download(repo.id, LFS).read_bytes() == DATA
    assert naps == [31, 31]  # one more than told


def test_repo_info_is_asked_for_once(hub: Hub, repo: Repo, naps: list[float]) -> None:
    api = HfApi(endpoint=hub.url)
    for fault, status in ((too_many_requests(), 429), (Answer(status=503), 503)):
        with hub.fault(fault), pytest.raises(HfHubHTTPError) as error:
            api.model_info(repo.id)
        assert error.value.response.status_code == status
    assert len(hub.requests) == 2
    assert naps == []


def test_trees_are_asked_for_again(hub: Hub, repo: Repo, naps: list[float]) -> None:
    hub.configure(page_size=2)
    hub.fault(Answer(status=503), path="cursor=", times=1)
    assert len(list(HfApi(endpoint=hub.url).list_repo_tree(repo.id))) == 3
    assert [request.status for request in hub.requests] == [200, 503, 200]
    assert naps == [1]


@pytest.mark.parametrize(("path", "host"), [(REGULAR, "hub"), (LFS, "files")])
def test_a_get_that_fails_is_not_tried_again(
    hub: Hub, repo: Repo, download: Download, naps: list[float], path: str, host: str
) -> None:
    hub.fault(Answer(status=500), method="GET", times=1)
    with pytest.raises(HfHubHTTPError) as error:
        download(repo.id, path)
    assert error.value.response.status_code == 500
    assert [request.host for request in hub.requests] == ["hub", host]
    assert naps == []


@pytest.mark.parametrize("path", [REGULAR, LFS])
@pytest.mark.parametrize(("chunk", "start"), [(16_384, 32_768), (None, 0)])
def test_a_cut_download_goes_on_by_itself(
    hub: Hub,
    repo: Repo,
    download: Download,
    naps: list[float],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    chunk: int | None,
    start: int,
) -> None:
    # What was received counts in whole chunks of 10 MB: below that, "resumed" is from the start.
    assert constants.DOWNLOAD_CHUNK_SIZE == 10 * 1024 * 1024
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", chunk or constants.DOWNLOAD_CHUNK_SIZE)
    hub.fault(Cut(after=40_000), method="GET", times=1)
    assert download(repo.id, path).read_bytes() == DATA
    assert [(request.range, request.status, request.sent) for request in hub.requests.of(method="GET")] == [
        (None, 200, 40_000),
        (f"bytes={start}-", 206, len(DATA) - start) if start else (None, 200, len(DATA)),
    ]
    assert naps == [1]


def test_a_download_given_up_is_not_resumed_by_the_next(
    hub: Hub, repo: Repo, download: Download, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16_384)
    hub.fault(Cut(after=40_000), method="GET", times=1)
    hub.fault(Drop(), method="GET", skip=1, times=5)
    with pytest.raises(httpx2.RemoteProtocolError):
        download(repo.id, LFS)
    with hub.recorded() as requests:
        assert download(repo.id, LFS).read_bytes() == DATA
    assert [request.range for request in requests] == [None, None]


def test_a_download_that_is_cut_again_and_again(hub: Hub, repo: Repo, download: Download, naps: list[float]) -> None:
    hub.fault(Cut(after=0), method="GET")
    with pytest.raises(httpx2.RemoteProtocolError):
        download(repo.id, LFS)
    assert len(naps) == 5


def test_dropped_connections(hub: Hub, repo: Repo, download: Download, naps: list[float]) -> None:
    hub.fault(Drop(), method="GET", times=1)
    assert download(repo.id, LFS).read_bytes() == DATA
    assert [request.status for request in hub.requests] == [302, None, 200]
    hub.fault(Drop(), method="HEAD", times=1)
    with pytest.raises(httpx2.RemoteProtocolError):  # a dropped HEAD is tried again only where a status came back
        download(repo.id, REGULAR)
    assert naps == [1]


def test_a_truncated_body_is_noticed_by_its_size(hub: Hub, repo: Repo, download: Download) -> None:
    hub.fault(Truncate(keep=99_999), method="GET", times=1)
    with pytest.raises(OSError, match=r"Consistency check failed: file should be of size 100000 but has size 99999"):
        download(repo.id, LFS)
    assert download(repo.id, LFS).read_bytes() == DATA
    assert all(request.range is None for request in hub.requests)  # from the start again


@pytest.mark.parametrize("path", [REGULAR, LFS])
def test_wrong_bytes_are_not_noticed(hub: Hub, repo: Repo, download: Download, path: str) -> None:
    hub.fault(Flip(at=7), method="GET", times=1)
    wrong = DATA[:7] + bytes([DATA[7] ^ 0xFF]) + DATA[8:]
    assert download(repo.id, path).read_bytes() == wrong
    assert download(repo.id, path).read_bytes() == wrong  # and they stay in the cache, under the right name
    repo.tamper(path, b"x" * len(DATA))
    repo.commit({"other": b""})
    assert download(repo.id, path).read_bytes() == wrong


def test_slow_bytes_arrive(hub: Hub, repo: Repo, download: Download) -> None:
    hub.fault(Slow(piece=50_000, seconds=0.05), method="GET")
    assert download(repo.id, LFS).read_bytes() == DATA


def test_a_token_that_expires_between_two_files(hub: Hub, alice: Token, tmp_path: Path) -> None:
    hub.create_repo("alice/private", private=True).commit({f"{n}.json": DATA for n in range(4)})
    hub.fault(Before(alice.expire), path=r"/2\.json", times=1)
    with pytest.raises(RepositoryNotFoundError, match="is expired"):
        snapshot_download("alice/private", endpoint=hub.url, token=alice.value, local_dir=tmp_path / "a", max_workers=1)
    assert len(list((tmp_path / "a").glob("*.json"))) == 2


def test_signed_urls_that_expire_meanwhile(hub: Hub, repo: Repo, download: Download) -> None:
    hub.configure(url_seconds=0.05)
    hub.fault(Before(lambda: threading.Event().wait(0.1)), host="files")
    with pytest.raises(HfHubHTTPError) as error:
        download(repo.id, LFS)
    assert error.value.response.status_code == 403


def test_ranged_reads_are_tried_again(hub: Hub, repo: Repo, naps: list[float]) -> None:
    with HfFileSystem(endpoint=hub.url, skip_instance_cache=True).open(f"{repo.id}/{LFS}", cache_type="none") as file:
        hub.fault(Answer(status=503), host="files", times=1)
        hub.fault(Cut(after=3), host="files", times=1, skip=1)
        assert file.read(10) == DATA[:10]
    assert naps == [1, 2]


def test_main_moves_on_between_two_files(hub: Hub, repo: Repo, download: Download) -> None:
    first = repo.head
    hub.fault(Before(lambda: repo.commit({LFS: b"new"})), path=LFS, method="HEAD", times=1)
    assert first in str(download(repo.id, REGULAR))
    assert download(repo.id, LFS).read_bytes() == b"new"  # two commits in one load, unless it pins one


def test_which_requests_are_hit(hub: Hub, repo: Repo) -> None:
    def statuses(count: int) -> list[int]:
        return [get_session().get(f"{hub.url}/api/models/{repo.id}").status_code for _ in range(count)]

    with hub.fault(Answer(status=404), skip=1, times=2) as fault:
        assert statuses(5) == [200, 404, 404, 200, 200]
        assert fault.hits == 2
    with hub.fault(Answer(status=404), path="/api/models/alice/none"), hub.fault(Answer(status=404), method="HEAD"):
        assert statuses(1) == [200]
    with hub.fault(Answer(status=404), host="files"):
        assert statuses(1) == [200]
    with hub.fault(Answer(status=404)):
        assert statuses(1) == [404]
    assert statuses(1) == [200]
