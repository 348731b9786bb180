"""Contract tests with the real clients, one for each fact of the Hub's protocol that the library relies on."""

import hashlib
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, get_session, hf_hub_download
from huggingface_hub.errors import (
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

REGULAR, LFS = "pt-0/config.json", "pt-0/model.safetensors"
DATA = bytes(index % 251 for index in range(100_000))


@pytest.fixture
def repo(hub: Hub) -> Repo:
    """A regular and an LFS file in a folder."""
    made = hub.create_repo("alice/zoo")
    made.commit({REGULAR: DATA, LFS: DATA})
    return made


def download(repo: Repo, path: str, **options: str | bool | None) -> bytes:
    return Path(hf_hub_download(repo.id, path, **options)).read_bytes()  # pyright: ignore


@pytest.mark.parametrize(("path", "host"), [(REGULAR, "hub"), (LFS, "files")])
def test_download_is_cached_by_commit(hub: Hub, repo: Repo, path: str, host: str) -> None:
    counts = []
    for revision in ("main", "main", repo.head):
        with hub.recorded() as requests:
            assert download(repo, path, revision=revision) == DATA
        counts.append([f"{request.host} {request.method}" for request in requests])
    assert counts == [["hub HEAD", f"{host} GET"], ["hub HEAD"], []]


def test_missing_repo_revision_and_file_have_their_errors(hub: Hub, repo: Repo) -> None:
    for error, arguments, revision in (
        (RemoteEntryNotFoundError, (repo.id, "pt-1/config.json"), None),
        (RevisionNotFoundError, (repo.id, REGULAR), "v9"),
        (RepositoryNotFoundError, ("zoos/none", REGULAR), None),
    ):
        with pytest.raises(error):
            hf_hub_download(*arguments, revision=revision)


def test_info_tree_and_paths_describe_a_commit(
    hub: Hub, repo: Repo, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit({f"pt-{n}/x.json": b"" for n in range(1, 4)})
    info = api.model_info(repo.id)
    assert (info.sha, info.private) == (repo.head, False)
    monkeypatch.setattr("tests.hub.reading.PAGE_SIZE", 4)
    with hub.recorded() as requests:
        listed = {entry.path for entry in api.list_repo_tree(repo.id, recursive=True)}
    assert listed == {*repo.files(), "pt-0", "pt-1", "pt-2", "pt-3"}
    assert len(requests) == 3  # 10 entries
    (found,) = api.get_paths_info(repo.id, [LFS, "none"])
    assert getattr(found, "lfs", {})["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_tags_do_not_move_and_branches_do(hub: Hub, repo: Repo, api: HfApi) -> None:
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
def test_a_range_is_answered_with_its_place(hub: Hub, repo: Repo, path: str) -> None:
    answer = get_session().get(f"{hub.url}/{repo.id}/resolve/main/{path}", headers={"Range": "bytes=5-9"})
    assert (answer.status_code, answer.content) == (206, DATA[5:10])
    assert answer.headers["Content-Range"] == "bytes 5-9/100000"


def test_the_file_host_wants_a_signature_and_no_token(hub: Hub, repo: Repo, alice: Token) -> None:
    session = get_session()
    signed = session.get(f"{hub.url}/{repo.id}/resolve/main/{LFS}", follow_redirects=False).headers["Location"]
    assert session.get(signed).content == DATA
    assert session.get(signed.split("?")[0]).status_code == 403
    assert session.put(signed, content=b"x").status_code == 403
    with hub.recorded() as requests:
        download(repo, LFS, token=alice.value)
    assert [(request.host, request.token) for request in requests] == [("hub", alice.value), ("files", None)]


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_upload_sends_large_files_once(hub: Hub, api: HfApi, tmp_path: Path, repo_type: str) -> None:
    files = {"README.md": b"---\nlicense: mit\n---\n", REGULAR: b"{}", LFS: DATA}
    for path, data in files.items():
        (tmp_path / "zoo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "zoo" / path).write_bytes(data)
    api.create_repo("zoos/tiny", repo_type=repo_type, private=True)
    with hub.recorded() as first:
        made = api.upload_folder(repo_id="zoos/tiny", folder_path=tmp_path / "zoo", repo_type=repo_type)
    repo = hub.repo("zoos/tiny", repo_type)  # pyright: ignore[reportArgumentType]
    assert repo.private
    assert repo.files().items() >= files.items()
    assert (repo.file(LFS).sha256, repo.file(REGULAR).sha256) == (hashlib.sha256(DATA).hexdigest(), None)
    assert [len(first.of(host="files", method="PUT")), len(first.of(path="verify$"))] == [1, 1]
    with hub.recorded() as second:
        again = api.upload_folder(repo_id="zoos/tiny", folder_path=tmp_path / "zoo", repo_type=repo_type)
    assert again.oid == made.oid
    assert not second.of(host="files")


def test_a_commit_on_a_stale_parent_is_refused(hub: Hub, repo: Repo, api: HfApi) -> None:
    first = repo.head
    for name in ("a", "b"):
        add = CommitOperationAdd(path_in_repo=name, path_or_fileobj=b"x")
        if name == "a":
            api.create_commit(repo.id, [add], commit_message="a", parent_commit=first)
            continue
        with pytest.raises(HfHubHTTPError) as stale:
            api.create_commit(repo.id, [add], commit_message="b", parent_commit=first)
        assert stale.value.response.status_code == 412
    assert "b" not in repo.files()


def test_a_private_repo_is_hidden_from_strangers(hub: Hub, alice: Token) -> None:
    private = hub.create_repo("zoos/private", private=True)
    private.commit({"a.safetensors": b"a"})
    for token, status in ((False, 401), (hub.add_token("mallory", role="write").value, 404)):
        with pytest.raises(RepositoryNotFoundError) as hidden:
            download(private, "a.safetensors", token=token)
        assert hidden.value.response.status_code == status
    assert download(private, "a.safetensors", token=alice.value) == b"a"


def test_only_write_tokens_write_and_only_to_their_namespaces(hub: Hub, api: HfApi) -> None:
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


def test_an_expired_token_is_refused(hub: Hub, repo: Repo, alice: Token, api: HfApi) -> None:
    alice.expire(after=1)
    assert api.model_info(repo.id).id == repo.id
    with pytest.raises(RepositoryNotFoundError) as expired:
        api.model_info(repo.id)
    assert expired.value.response.status_code == 401


def test_answers_ask_the_client_to_wait(hub: Hub, repo: Repo, waits: list[float]) -> None:
    hub.fault(too_many_requests(retry_after=30), method="GET", times=1)
    hub.fault(too_many_requests(retry_after=40, rate_limit_headers=True), method="GET", times=1, skip=1)
    assert download(repo, LFS) == DATA
    assert waits == [31, 41]  # one more than asked
    with hub.fault(Answer(status=503), method="HEAD") as fault, pytest.raises(LocalEntryNotFoundError):
        download(repo, REGULAR)
    assert fault.hits


@pytest.mark.parametrize("kind", [Cut(after=40_000), Drop(), Lose()])
def test_broken_connections_are_retried(hub: Hub, repo: Repo, waits: list[float], kind: Cut | Drop | Lose) -> None:
    hub.fault(kind, method="GET", times=1)
    assert download(repo, LFS) == DATA
    assert waits == [1]


def test_wrong_short_and_slow_bodies_arrive_as_such(hub: Hub, repo: Repo) -> None:
    with hub.fault(Truncate(keep=99_999), method="GET"), pytest.raises(OSError, match="but has size 99999"):
        download(repo, LFS)
    with hub.fault(Flip(at=7), method="GET"):
        assert download(repo, LFS) == DATA[:7] + bytes([DATA[7] ^ 0xFF]) + DATA[8:]
    with hub.fault(Slow(piece=50_000, seconds=0.01), method="GET"):
        assert download(repo, REGULAR) == DATA


def test_a_commit_with_a_lost_answer_is_made_once(hub: Hub, repo: Repo, api: HfApi) -> None:
    seen: list[set[str]] = []
    hub.fault(Before(lambda: seen.append(set(repo.files()))), path="/commit/")
    hub.fault(After(lambda: seen.append(set(repo.files()))), path="/commit/")
    with hub.fault(Lose(), path="/commit/", times=1), pytest.raises(httpx2.RemoteProtocolError):
        api.upload_file(repo_id=repo.id, path_in_repo="a.json", path_or_fileobj=b"{}")
    assert (len(repo.commits()), repo.read("a.json")) == (3, b"{}")
    assert seen[1] - seen[0] == {"a.json"}
