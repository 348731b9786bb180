"""The store without HTTP: git's ids, snapshots, hostile paths and altered bytes."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.hub.errors import BadCommit, Conflict, EntryNotFound, RevisionNotFound, StaleParent
from tests.hub.gitattributes import default_gitattributes, is_lfs_path
from tests.hub.store import File, Repo, Store, git_sha1, lfs_pointer


@pytest.mark.parametrize(
    ("repo_type", "size", "oid"),
    [
        ("model", 1519, "a6344aac8c09253b3b630fb776ae94478aa0275b"),
        ("dataset", 2461, "1ef325f1b111266a6b26e0196871bd78baa8c2f3"),
    ],
)
def test_gitattributes_are_those_of_public_repos(repo_type: str, size: int, oid: str) -> None:
    text = default_gitattributes(repo_type)
    assert (len(text), git_sha1(text)) == (size, oid)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("model.safetensors", True),
        ("pt-0/ft-1/model.epoch-07.safetensors", True),
        ("metadata/members.parquet", True),
        ("saved_model/a/b.json", True),
        ("a/saved_model.json", False),
        ("logs/events.out.tfevents.1", True),
        ("config.json", False),
        ("safetensors", False),
    ],
)
def test_lfs_paths(path: str, expected: bool) -> None:
    assert is_lfs_path(path, default_gitattributes("model")) is expected


def test_the_last_matching_line_decides() -> None:
    assert not is_lfs_path("small.bin", b"*.bin filter=lfs -text\nsmall.bin text\n")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")
def test_blob_ids_are_those_of_git(tmp_path: Path) -> None:
    pointer = lfs_pointer(hashlib.sha256(b"x").hexdigest(), 1)
    for data in (b"", b"hello\n", pointer):
        (tmp_path / "file").write_bytes(data)
        found = subprocess.run(
            ["git", "hash-object", str(tmp_path / "file")], capture_output=True, check=True, text=True
        )
        assert found.stdout.strip() == git_sha1(data)
    assert File.lfs(hashlib.sha256(b"x").hexdigest(), 1).oid == git_sha1(pointer)


def test_snapshots_stay_as_they_were() -> None:
    repo = Repo("a/b", "model")
    first = repo.commit({"x": b"1", "y": b"1"})
    repo.tag("v1")
    repo.branch("next", "v1")
    second = repo.commit({"x": b"2", "y": None})
    third = repo.commit({"z": b"3"}, branch="next")
    assert set(repo.files(first.sha)) == set(repo.files("v1")) == {".gitattributes", "x", "y"}
    assert (repo.read("x"), repo.read("x", "v1")) == (b"2", b"1")
    assert set(repo.files("next")) == {".gitattributes", "x", "y", "z"}
    assert [commit.sha for commit in repo.commits()][:2] == [second.sha, first.sha]
    assert third.parent == first.sha
    assert len({commit.sha for commit in repo.history.values()}) == 4
    assert repo.commit({}).files == repo.commit({}).files
    assert len(repo.history) == 6
    with pytest.raises(EntryNotFound):
        repo.read("y")
    with pytest.raises(RevisionNotFound):
        repo.read("x", "v2")
    with pytest.raises(Conflict):
        repo.tag("v1")
    with pytest.raises(StaleParent):
        repo.apply({}, title="late", parent=first.sha)


def test_any_path_can_be_planted() -> None:
    repo = Repo("a/b", "model")
    paths = ["../x", "/etc/x", "a\nb", "a\0b", "..", "a//b", "\udcff", "con:x", "x" * 5000]
    repo.commit(dict.fromkeys(paths, b"planted"))
    assert set(repo.files()) == {".gitattributes", *paths}


def test_a_file_can_be_stored_as_the_other_kind() -> None:
    repo = Repo("a/b", "model")
    repo.commit({"x.safetensors": b"x"})
    assert repo.file("x.safetensors").sha256
    repo.commit({"x.safetensors": b"x"}, lfs=False)
    assert repo.file("x.safetensors").sha256 is None
    repo.commit({"x.json": b"{}"}, lfs=True)
    assert repo.file("x.json").sha256 == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize("path", ["x.safetensors", "x.json"])
def test_tampering_leaves_the_record(path: str) -> None:
    repo = Repo("a/b", "model")
    repo.commit({path: b"right"})
    before = repo.file(path)
    repo.tamper(path, b"wrong")
    assert repo.read(path) == b"wrong"
    assert repo.file(path) == before
    repo.commit({path: b"right"})  # pushing the same bytes again does not heal it
    assert repo.read(path) == b"wrong"


def test_store_names() -> None:
    store = Store()
    store.create("a/b", "model")
    store.create("a/b", "dataset")
    with pytest.raises(Conflict):
        store.create("a/b", "model")
    with pytest.raises(BadCommit):
        store.create("b", "model")
