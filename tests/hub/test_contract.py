"""One contract test for each thing that the loopback Hub does, with the real clients."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    HfFileSystem,
    get_session,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub import (
    After,
    Answer,
    Before,
    Cut,
    Drop,
    Flip,
    Hub,
    Lose,
    Repo,
    Slow,
    Token,
    Truncate,
    too_many_requests,
)
from tests.hub.gitattributes import default_gitattributes
from tests.hub.store import git_sha1

Download = Callable[..., Path]
REGULAR, LFS = "pt-0/config.json", "pt-0/model.safetensors"
DATA = bytes(index % 251 for index in range(100_000))


@pytest.fixture
def repo(hub: Hub) -> Repo:
    """One regular and one LFS file in a folder."""
    made = hub.create_repo("alice/zoo")
    made.commit({REGULAR: DATA, LFS: DATA})
    return made


def add(path: str, data: bytes = DATA) -> CommitOperationAdd:
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=data)


class TestReading:
    @pytest.mark.parametrize(("path", "host"), [(REGULAR, "hub"), (LFS, "files")])
    def test_download_is_cached_by_commit(self, hub: Hub, repo: Repo, download: Download, path: str, host: str) -> None:
        counts = []
        for revision in ("main", "main", repo.head):
            with hub.recorded() as requests:
                assert download(repo.id, path, revision=revision).read_bytes() == DATA
            counts.append([f"{request.host} {request.method}" for request in requests])
        assert counts == [["hub HEAD", f"{host} GET"], ["hub HEAD"], []]

    def test_missing_things_have_their_errors(self, hub: Hub, repo: Repo, download: Download) -> None:
        for expected, arguments in (
            (RemoteEntryNotFoundError, (repo.id, "pt-1/config.json")),
            (RevisionNotFoundError, (repo.id, REGULAR, "v9")),
            (RepositoryNotFoundError, ("zoos/none", REGULAR)),
        ):
            with pytest.raises(expected):
                download(*arguments[:2], **({"revision": arguments[2]} if len(arguments) > 2 else {}))

    def test_info_tree_and_paths(self, hub: Hub, repo: Repo) -> None:
        repo.commit({"README.md": b"---\nlicense: mit\n---\n", **{f"pt-{n}/x.json": b"" for n in range(1, 4)}})
        repo.tag("v1")
        api = HfApi(endpoint=hub.url)
        info = api.model_info(repo.id, revision="v1", files_metadata=True)
        assert (info.sha, info.private, info.author) == (repo.head, False, "alice")
        assert {file.rfilename: (file.size, file.blob_id) for file in info.siblings or []} == {
            path: (file.size, file.oid) for path, file in repo.resolve().files.items()
        }
        hub.configure(page_size=4)
        with hub.recorded() as requests:
            listed = {entry.path for entry in api.list_repo_tree(repo.id, recursive=True)}
        assert listed == {*repo.files(), "pt-0", "pt-1", "pt-2", "pt-3"}
        assert len(requests) == 3  # 11 entries
        (found,) = api.get_paths_info(repo.id, [LFS, "none"])
        assert getattr(found, "lfs", {})["sha256"] == hashlib.sha256(DATA).hexdigest()

    def test_refs(self, hub: Hub, repo: Repo, api: HfApi) -> None:
        first = repo.head
        api.create_tag(repo.id, tag="v1")
        api.create_tag(repo.id, tag="v1", exist_ok=True)
        with pytest.raises(HfHubHTTPError) as conflict:
            api.create_tag(repo.id, tag="v1")
        assert conflict.value.response.status_code == 409
        made = api.upload_file(repo_id=repo.id, path_in_repo="a", path_or_fileobj=b"a")
        refs = api.list_repo_refs(repo.id)
        assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": made.oid}
        assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": first}

    @pytest.mark.parametrize("path", [REGULAR, LFS])
    def test_ranges(self, hub: Hub, repo: Repo, path: str) -> None:
        answer = get_session().get(f"{hub.url}/{repo.id}/resolve/main/{path}", headers={"Range": "bytes=5-9"})
        assert (answer.status_code, answer.content) == (206, DATA[5:10])
        assert answer.headers["Content-Range"] == "bytes 5-9/100000"
        with HfFileSystem(endpoint=hub.url, skip_instance_cache=True).open(f"{repo.id}/{path}") as file:
            file.seek(100)
            assert file.read(20) == DATA[100:120]

    def test_the_file_host_wants_an_unexpired_signature(self, hub: Hub, repo: Repo) -> None:
        session, url = get_session(), f"{hub.url}/{repo.id}/resolve/main/{LFS}"
        signed = session.get(url, follow_redirects=False).headers["Location"]
        assert session.get(signed).content == DATA
        assert session.get(signed.split("?")[0]).status_code == 403
        assert session.put(signed, content=b"x").status_code == 403
        hub.configure(url_seconds=-1)
        assert session.get(url).status_code == 403

    @pytest.mark.parametrize("path", ["../x", "/etc/x", "a\0b"])
    def test_hostile_paths_can_be_planted(self, hub: Hub, repo: Repo, path: str, tmp_path: Path) -> None:
        repo.commit({path: b"planted"})
        assert path in HfApi(endpoint=hub.url).list_repo_files(repo.id)
        with pytest.raises(ValueError, match=r"Invalid filename|embedded null byte"):
            snapshot_download(repo.id, endpoint=hub.url, local_dir=tmp_path / "local" / "zoo")


class TestWriting:
    @pytest.mark.parametrize("repo_type", ["model", "dataset"])
    def test_upload_folder_and_again(self, hub: Hub, api: HfApi, tmp_path: Path, repo_type: str) -> None:
        files = {"README.md": b"---\nlicense: mit\n---\n", REGULAR: b"{}", LFS: DATA}
        for path, data in files.items():
            (tmp_path / "zoo" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "zoo" / path).write_bytes(data)
        api.create_repo("zoos/tiny", repo_type=repo_type, private=True)
        with hub.recorded() as first:
            made = api.upload_folder(repo_id="zoos/tiny", folder_path=tmp_path / "zoo", repo_type=repo_type)
        repo = hub.repo("zoos/tiny", repo_type)  # pyright: ignore[reportArgumentType]
        assert repo.private
        assert repo.files() == {**files, ".gitattributes": default_gitattributes(repo_type)}
        assert (repo.file(LFS).sha256, repo.file(REGULAR).oid) == (hashlib.sha256(DATA).hexdigest(), git_sha1(b"{}"))
        assert [len(first.of(host="files", method="PUT")), len(first.of(path="verify$"))] == [1, 1]
        assert all(request.token is None for request in first.of(host="files"))
        with hub.recorded() as second:
            again = api.upload_folder(repo_id="zoos/tiny", folder_path=tmp_path / "zoo", repo_type=repo_type)
        assert again.oid == made.oid
        assert not second.of(host="files")

    def test_a_stale_parent_is_refused(self, hub: Hub, repo: Repo, api: HfApi) -> None:
        first = repo.head
        api.create_commit(repo.id, [add("a")], commit_message="a", parent_commit=first)
        with pytest.raises(HfHubHTTPError) as stale:
            api.create_commit(repo.id, [add("b")], commit_message="b", parent_commit=first)
        assert stale.value.response.status_code == 412
        assert "b" not in repo.files()

    def test_bad_commits_are_refused(self, hub: Hub, repo: Repo, api: HfApi) -> None:
        hub.configure(files_a_commit=3)
        with pytest.raises(HfHubHTTPError) as refused:
            api.create_commit(repo.id, [add(f"{n}", b"") for n in range(4)], commit_message="four")
        assert refused.value.response.status_code == 413
        bad = add("x")
        bad.path_in_repo = "../x"
        with pytest.raises(BadRequestError, match="Invalid path"):
            api.create_commit(repo.id, [bad], commit_message="x")
        lost = add("x.safetensors", b"x")
        api.preupload_lfs_files(repo.id, [lost], free_memory=False)
        del repo.objects[hashlib.sha256(b"x").hexdigest()]
        with pytest.raises(BadRequestError, match="does not exist"):
            api.create_commit(repo.id, [lost], commit_message="x")
        url = hub.sign(f"/models/{repo.id}/{hashlib.sha256(b'right').hexdigest()}", method="PUT")
        assert get_session().put(url, content=b"wrong").status_code == 400


class TestAccess:
    def test_a_private_repo_is_hidden_from_strangers(self, hub: Hub, alice: Token, download: Download) -> None:
        hub.create_repo("zoos/private", private=True).commit({"a.safetensors": b"a"})
        for token, status in ((None, 401), (hub.add_token("mallory", role="write"), 404)):
            with pytest.raises(RepositoryNotFoundError) as hidden:
                download("zoos/private", "a.safetensors", token=str(token) if token else False)
            assert hidden.value.response.status_code == status
        with hub.recorded() as requests:
            assert download("zoos/private", "a.safetensors", token=alice.value).read_bytes() == b"a"
        assert [(request.host, request.token) for request in requests] == [("hub", alice.value), ("files", None)]

    def test_only_write_tokens_write_and_only_to_their_namespaces(self, hub: Hub, api: HfApi) -> None:
        repo = hub.create_repo("bob/zoo")
        reader = HfApi(endpoint=hub.url, token=hub.add_token("bob").value)
        for attempt in (
            lambda: reader.create_repo("bob/zoo-2"),
            lambda: reader.upload_file(repo_id="bob/zoo", path_in_repo="a", path_or_fileobj=b"a"),
            lambda: reader.create_tag("bob/zoo", tag="v1"),
            lambda: reader.auth_check("bob/zoo", write=True),
            lambda: api.upload_file(repo_id="bob/zoo", path_in_repo="a", path_or_fileobj=b"a"),
        ):
            with pytest.raises(HfHubHTTPError) as error:
                attempt()
            assert error.value.response.status_code == 403
        assert (len(repo.commits()), repo.tags) == (1, {})
        api.create_repo("zoos/tiny")
        api.auth_check("zoos/tiny", write=True)

    def test_an_expired_token_is_refused(self, hub: Hub, repo: Repo, alice: Token, api: HfApi) -> None:
        alice.expire(after=1)
        assert api.model_info(repo.id).id == repo.id
        with pytest.raises(RepositoryNotFoundError) as expired:
            api.model_info(repo.id)
        assert expired.value.response.status_code == 401


class TestFaults:
    def test_answers_and_pauses(self, hub: Hub, repo: Repo, download: Download, naps: list[float]) -> None:
        hub.fault(too_many_requests(retry_after=30), method="GET", times=1)
        hub.fault(too_many_requests(retry_after=40, rate_limit_headers=True), method="GET", times=1, skip=1)
        assert download(repo.id, LFS).read_bytes() == DATA
        assert naps == [31, 41]  # one more than told
        with hub.fault(Answer(status=503), method="HEAD"), pytest.raises(LocalEntryNotFoundError):
            download(repo.id, REGULAR)

    @pytest.mark.parametrize("kind", [Cut(after=40_000), Drop(), Lose()])
    def test_connections_that_break(
        self, hub: Hub, repo: Repo, download: Download, naps: list[float], kind: Cut | Drop | Lose
    ) -> None:
        hub.fault(kind, method="GET", times=1)
        assert download(repo.id, LFS).read_bytes() == DATA
        assert naps == [1]

    def test_wrong_short_and_slow_bodies(self, hub: Hub, repo: Repo, download: Download) -> None:
        with hub.fault(Truncate(keep=99_999), method="GET"), pytest.raises(OSError, match="but has size 99999"):
            download(repo.id, LFS)
        with hub.fault(Flip(at=7), method="GET"):
            assert download(repo.id, LFS).read_bytes() == DATA[:7] + bytes([DATA[7] ^ 0xFF]) + DATA[8:]
        with hub.fault(Slow(piece=50_000, seconds=0.01), method="GET"):
            assert download(repo.id, REGULAR).read_bytes() == DATA
        repo.tamper(LFS, b"x" * len(DATA))
        assert repo.read(LFS) == b"x" * len(DATA)

    def test_a_commit_whose_answer_is_lost_is_made_once(self, hub: Hub, repo: Repo, api: HfApi) -> None:
        with hub.fault(Lose(), path="/commit/", times=1), pytest.raises(httpx2.RemoteProtocolError):
            api.upload_file(repo_id=repo.id, path_in_repo="a.json", path_or_fileobj=b"{}")
        assert (len(repo.commits()), repo.read("a.json")) == (3, b"{}")

    def test_hooks_run_before_the_request_and_after_it(self, hub: Hub, repo: Repo, api: HfApi) -> None:
        seen: list[set[str]] = []
        hub.fault(Before(lambda: seen.append(set(repo.files()))), path="/commit/")
        hub.fault(After(lambda: seen.append(set(repo.files()))), path="/commit/")
        api.upload_file(repo_id=repo.id, path_in_repo="a.json", path_or_fileobj=b"{}")
        assert seen[1] - seen[0] == {"a.json"}

    def test_filters_and_reset(self, hub: Hub, repo: Repo) -> None:
        def statuses(count: int) -> list[int]:
            return [get_session().get(f"{hub.url}/api/models/{repo.id}").status_code for _ in range(count)]

        with hub.fault(Answer(status=404), skip=1, times=2) as fault:
            assert statuses(5) == [200, 404, 404, 200, 200]
        assert fault.hits == 2
        with hub.fault(Answer(status=404), path="/none"), hub.fault(Answer(status=404), method="HEAD"):
            assert statuses(1) == [200]
        hub.reset()
        assert statuses(1) == [401]
        assert [request.status for request in hub.requests] == [401]


def test_close_leaves_no_thread_and_no_socket(hub: Hub) -> None:
    before = threading.active_count()
    with Hub() as other:
        assert get_session().get(f"{other.url}/api/models/a/b").status_code == 401
    assert threading.active_count() == before
