"""The real client pushing: what arrives, what is refused, and how many requests it takes."""

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RemoteEntryNotFoundError, RevisionNotFoundError

from tests.hub import Hub
from tests.hub.gitattributes import default_gitattributes

# huggingface_hub passes the file of an upload as `data=`, which httpx2 would rather have as `content=`.


CARD = b"---\nlicense: mit\ntags: [zoo]\n---\n# A zoo\n"


def add(path: str, data: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A README, a config and three LFS files, two of them the same."""
    (tmp_path / "zoo" / "pt-0").mkdir(parents=True)
    (tmp_path / "zoo" / "README.md").write_bytes(CARD)
    (tmp_path / "zoo" / "pt-0" / "config.json").write_text("{}")
    for name, data in {"a": b"1" * 100, "b": b"2" * 100, "c": b"2" * 100}.items():
        (tmp_path / "zoo" / "pt-0" / f"{name}.safetensors").write_bytes(data)
    return tmp_path / "zoo"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_new_repo_has_the_gitattributes_of_the_hub(hub: Hub, api: HfApi, repo_type: str) -> None:
    url = api.create_repo("alice/zoo", repo_type=repo_type, private=True)
    assert url == f"{hub.url}/{'datasets/' if repo_type == 'dataset' else ''}alice/zoo"
    repo = hub.repo("alice/zoo", repo_type)  # pyright: ignore[reportArgumentType]
    assert repo.files() == {".gitattributes": default_gitattributes(repo_type)}
    assert repo.private
    with pytest.raises(HfHubHTTPError, match="You already created this"):
        api.create_repo("alice/zoo", repo_type=repo_type)
    assert api.create_repo("alice/zoo", repo_type=repo_type, exist_ok=True) == url
    api.update_repo_settings("alice/zoo", repo_type=repo_type, private=False)
    assert not repo.private
    api.delete_repo("alice/zoo", repo_type=repo_type)
    assert not api.repo_exists("alice/zoo", repo_type=repo_type)


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_upload_folder_and_again(hub: Hub, api: HfApi, folder: Path, repo_type: str) -> None:
    api.create_repo("zoos/tiny", repo_type=repo_type)
    with hub.recorded() as first:
        made = api.upload_folder(repo_id="zoos/tiny", folder_path=folder, repo_type=repo_type)
    repo = hub.repo("zoos/tiny", repo_type)  # pyright: ignore[reportArgumentType]
    assert repo.files() == {**contents(folder), ".gitattributes": default_gitattributes(repo_type)}
    assert made.oid == repo.head
    assert repo.commits()[0].author == "alice"
    assert repo.file("pt-0/a.safetensors").sha256 == hashlib.sha256(b"1" * 100).hexdigest()
    assert repo.file("README.md").sha256 is None
    # Of two files with the same bytes both are sent, and nobody's token ever gets to the file host.
    assert [len(first.of(host="files", method="PUT")), len(first.of(path="verify$"))] == [3, 3]
    assert all(request.token is None for request in first.of(host="files"))
    assert len(first) == 2 + 1 + 1 + 3 + 3 + 1  # README twice, preupload, batch, put, verify, commit

    with hub.recorded() as second:
        again = api.upload_folder(repo_id="zoos/tiny", folder_path=folder, repo_type=repo_type)
    assert again.oid == made.oid
    assert len(repo.commits()) == 2
    assert len(second) == 2 + 1 + 1 + 1  # README twice, preupload, batch, and which commit there is
    assert not second.of(host="files")


def test_what_is_stored_is_not_sent_again_but_repos_share_nothing(hub: Hub, api: HfApi) -> None:
    for name in ("alice/a", "alice/b"):
        api.create_repo(name)
    api.upload_file(repo_id="alice/a", path_in_repo="x.safetensors", path_or_fileobj=b"x")
    with hub.recorded() as requests:
        api.upload_file(repo_id="alice/a", path_in_repo="y.safetensors", path_or_fileobj=b"x")
    assert not requests.of(host="files")
    with hub.recorded() as requests:
        api.upload_file(repo_id="alice/b", path_in_repo="x.safetensors", path_or_fileobj=b"x")
    assert len(requests.of(host="files")) == 1


def test_lfs_by_pattern_by_size_and_by_content(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/zoo")
    hub.configure(lfs_above=1000)
    data = {
        "a.safetensors": b"a",
        "small.json": b"1" * 1000,
        "large.json": b"1" * 1001,
        "binary.dat": b"\0",
        "none": b"",
    }
    operations = [add(path, content) for path, content in data.items()]
    api.create_commit("alice/zoo", operations, commit_message="all kinds")
    repo = hub.repo("alice/zoo")
    lfs = {path for path in data if repo.file(path).sha256}
    assert lfs == {"a.safetensors", "large.json", "binary.dat"}
    assert {path: repo.read(path) for path in data} == data


def test_multipart_upload(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/zoo")
    hub.configure(multipart_chunk=40)
    data = bytes(range(100))
    with hub.recorded() as requests:
        api.upload_file(repo_id="alice/zoo", path_in_repo="x.safetensors", path_or_fileobj=data)
    assert hub.repo("alice/zoo").read("x.safetensors") == data
    assert len(requests.of(host="files", method="PUT")) == 3


def test_delete_copy_and_the_history_they_leave(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/zoo")
    files = {"pt-0/a.json": b"a", "pt-0/b.safetensors": b"b", "pt-1/c.json": b"c"}
    api.create_commit("alice/zoo", [add(*item) for item in files.items()], commit_message="three")
    before = hub.repo("alice/zoo").head
    copied = api.create_commit(
        "alice/zoo",
        [
            CommitOperationCopy("pt-0/a.json", "copy.json"),
            CommitOperationCopy("pt-0/b.safetensors", "copy.safetensors"),
            CommitOperationDelete("pt-1/", is_folder=True),
            CommitOperationDelete("pt-0/a.json"),
        ],
        commit_message="two copied, two deleted",
        commit_description="why",
    )
    repo = hub.repo("alice/zoo")
    assert set(repo.files()) == {".gitattributes", "copy.json", "copy.safetensors", "pt-0/b.safetensors"}
    assert set(repo.files(before)) == {".gitattributes", *files}
    listed = api.list_repo_commits("alice/zoo")
    assert [commit.title for commit in listed] == ["two copied, two deleted", "three", "initial commit"]
    assert (listed[0].commit_id, listed[0].message, listed[0].authors) == (copied.oid, "why", ["alice"])
    with pytest.raises(RemoteEntryNotFoundError, match="A file with this name doesn't exist"):
        api.delete_file("pt-1/c.json", "alice/zoo")


def test_branches_and_tags(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/zoo")
    first = hub.repo("alice/zoo").head
    api.create_tag("alice/zoo", tag="v1", tag_message="one")
    api.create_branch("alice/zoo", branch="next/one", revision="v1")
    made = api.upload_file(repo_id="alice/zoo", path_in_repo="a", path_or_fileobj=b"a", revision="next/one")
    refs = api.list_repo_refs("alice/zoo")
    assert {(ref.name, ref.ref, ref.target_commit) for ref in refs.branches} == {
        ("main", "refs/heads/main", first),
        ("next/one", "refs/heads/next/one", made.oid),
    }
    assert [(ref.name, ref.ref, ref.target_commit) for ref in refs.tags] == [("v1", "refs/tags/v1", first)]
    for revision, sha in {"v1": first, "next/one": made.oid, first: first, None: first}.items():
        assert api.model_info("alice/zoo", revision=revision).sha == sha

    with pytest.raises(HfHubHTTPError, match="Tag reference exists already") as conflict:
        api.create_tag("alice/zoo", tag="v1", revision="next/one")
    assert conflict.value.response.status_code == 409
    api.create_tag("alice/zoo", tag="v1", revision="next/one", exist_ok=True)
    assert hub.repo("alice/zoo").tags == {"v1": first}
    with pytest.raises(HfHubHTTPError, match="Reference already exists"):
        api.create_branch("alice/zoo", branch="next/one")
    with pytest.raises(RevisionNotFoundError):  # commits go to branches only
        api.upload_file(repo_id="alice/zoo", path_in_repo="b", path_or_fileobj=b"b", revision="v1")
    api.delete_tag("alice/zoo", tag="v1")
    api.delete_branch("alice/zoo", branch="next/one")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag("alice/zoo", tag="v1")
    with pytest.raises(BadRequestError):
        api.delete_branch("alice/zoo", branch="main")
    assert api.model_info("alice/zoo", revision=made.oid).sha == made.oid  # a commit outlives its branch


def test_a_stale_parent_is_refused(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/zoo")
    first = hub.repo("alice/zoo").head
    api.create_commit("alice/zoo", [add("a", b"a")], commit_message="a", parent_commit=first[:7])
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as stale:
        api.create_commit("alice/zoo", [add("b", b"b")], commit_message="b", parent_commit=first)
    assert stale.value.response.status_code == 412
    assert "b" not in hub.repo("alice/zoo").files()


def test_a_commit_without_changes_is_made(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/zoo")
    before = hub.repo("alice/zoo").head
    made = api.create_commit("alice/zoo", [], commit_message="nothing")
    assert made.oid == before  # the client does not even ask
    hub.repo("alice/zoo").commit({}, message="nothing")
    assert hub.repo("alice/zoo").commits()[0].title == "nothing"


def test_an_lfs_file_that_never_arrived_or_has_another_size_is_refused(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/zoo")
    operation = add("x.safetensors", b"x")
    api.preupload_lfs_files("alice/zoo", [operation], free_memory=False)
    repo = hub.repo("alice/zoo")
    sha256 = hashlib.sha256(b"x").hexdigest()
    del repo.objects[sha256]
    with pytest.raises(BadRequestError, match=r"does not exist\. Offending file: x\.safetensors"):
        api.create_commit("alice/zoo", [operation], commit_message="x")
    repo.objects[sha256] = b"xx"
    with pytest.raises(BadRequestError, match="has 2 bytes, not 1"):
        api.create_commit("alice/zoo", [operation], commit_message="x")
    assert len(repo.commits()) == 1


def test_too_many_files_in_a_commit_or_in_a_folder(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/zoo")
    hub.configure(files_a_commit=3, files_a_folder=2)
    with pytest.raises(HfHubHTTPError, match="Too many operations") as refused:
        api.create_commit("alice/zoo", [add(f"{n}", b"") for n in range(4)], commit_message="four")
    assert refused.value.response.status_code == 413
    with pytest.raises(BadRequestError, match="too many files per directory"):
        api.create_commit("alice/zoo", [add(f"a/{n}", b"") for n in range(3)], commit_message="three")
    api.create_commit("alice/zoo", [add(f"{n}/{m}", b"") for n, m in ((0, 0), (0, 1), (1, 0))], commit_message="three")


def test_paths_that_git_would_not_have_are_refused_over_http(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/zoo")
    for path in ("../x", "a/../x", "a//x", ".git/x", "a\nb", "/x"):
        operation = add("x", b"x")
        operation.path_in_repo = path
        with pytest.raises(BadRequestError, match="Invalid path"):
            api.create_commit("alice/zoo", [operation], commit_message="x")


def test_a_card_that_is_no_yaml(api: HfApi) -> None:
    api.create_repo("alice/zoo")
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.upload_file(repo_id="alice/zoo", path_in_repo="README.md", path_or_fileobj=b"---\na: [\n---\n")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(repo_id="alice/zoo", path_in_repo="README.md", path_or_fileobj=b"# no block\n")
