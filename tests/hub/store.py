"""Repos without HTTP: commits are immutable snapshots, branches and tags point at one.

A file is a record (`File`) of what the server says about it. Its bytes are kept apart, under the sha256 of an LFS file
or the git sha1 of a regular one. `Repo.tamper` changes the bytes and not the record, as a server that lies would.
"""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Literal

from tests.hub.errors import BadCommit, Conflict, EntryNotFound, RepoNotFound, RevisionNotFound, StaleParent

RepoType = Literal["model", "dataset"]
GITATTRIBUTES = "".join(
    f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n"
    for kind in ("arrow", "bin", "gz", "h5", "npy", "parquet", "pkl", "pt", "safetensors", "tar", "zip")
).encode()


def git_sha1(data: bytes, *, kind: str = "blob") -> str:
    """Return git's id of an object with these bytes."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def is_lfs_path(path: str, gitattributes: bytes) -> bool:
    """Tell whether the last matching line says `filter=lfs`. Patterns are of the form `*.ending`."""
    answer = False
    for line in gitattributes.decode(errors="replace").splitlines():
        pattern, *attributes = line.split() or [""]
        if fnmatchcase(path, pattern):
            answer = "filter=lfs" in attributes
    return answer


@dataclass(frozen=True, slots=True)
class File:
    """The server's record of a file: git's blob id (of the pointer, for LFS), size, and the sha256 of an LFS file."""

    oid: str
    size: int
    sha256: str | None = None

    @property
    def key(self) -> str:
        """The key of its bytes, and its ETag."""
        return self.sha256 or self.oid

    @classmethod
    def of_lfs(cls, sha256: str, size: int) -> "File":
        """Make the record of an LFS file."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return cls(git_sha1(pointer.encode()), size, sha256)


@dataclass(frozen=True)
class Commit:
    """A snapshot of every file."""

    sha: str
    parent: str | None
    title: str
    date: datetime
    files: Mapping[str, File] = field(repr=False)


class Repo:
    """A repo. Every change goes through `apply`, under the lock."""

    def __init__(self, repo_id: str, repo_type: RepoType, *, private: bool) -> None:
        self.id = repo_id
        self.type: RepoType = repo_type
        self.private = private
        self.objects: dict[str, bytes] = {}
        self.history: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.lock = threading.RLock()
        self.apply({".gitattributes": self.store_regular(GITATTRIBUTES)}, title="initial commit")

    @property
    def head(self) -> str:
        """The commit of `main`."""
        return self.branches["main"]

    def resolve(self, revision: str = "main") -> Commit:
        """Return the commit of a branch, a tag or a full sha."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.history:
            raise RevisionNotFound(revision)
        return self.history[sha]

    def commits(self) -> list[Commit]:
        """Return the commits of `main`, newest first."""
        found = [self.resolve()]
        while (parent := found[-1].parent) is not None:
            found.append(self.history[parent])
        return found

    def file(self, path: str, revision: str = "main") -> File:
        """Return the record of a file."""
        commit = self.resolve(revision)
        if path not in commit.files:
            raise EntryNotFound("Entry not found", commit=commit.sha)
        return commit.files[path]

    def read(self, path: str, revision: str = "main") -> bytes:
        """Return the bytes that the server sends for a file."""
        return self.objects[self.file(path, revision).key]

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Return every path with its bytes."""
        return {path: self.objects[file.key] for path, file in self.resolve(revision).files.items()}

    def gitattributes(self, revision: str = "main") -> bytes:
        """Return the repo's `.gitattributes`; empty without one."""
        file = self.resolve(revision).files.get(".gitattributes")
        return self.objects[file.key] if file else b""

    def commit(self, changes: Mapping[str, bytes | None]) -> Commit:
        """Add, replace and (None) delete files, unchecked: any path at all."""
        with self.lock:
            rules = self.gitattributes()
            records: dict[str, File | None] = {}
            for path, data in changes.items():
                if data is None:
                    records[path] = None
                else:
                    records[path] = self.store_lfs(data) if is_lfs_path(path, rules) else self.store_regular(data)
            return self.apply(records, title="commit")

    def store_regular(self, data: bytes) -> File:
        """Store bytes in git itself."""
        file = File(git_sha1(data), len(data))
        self.objects.setdefault(file.key, data)
        return file

    def store_lfs(self, data: bytes) -> File:
        """Store bytes as an LFS object."""
        file = File.of_lfs(hashlib.sha256(data).hexdigest(), len(data))
        self.objects.setdefault(file.key, data)
        return file

    def apply(self, changes: Mapping[str, File | None], *, title: str, parent: str | None = None) -> Commit:
        """Move `main` on by one commit, even if nothing changes, as the Hub does.

        `parent` is the sha that `main` must be at.
        """
        with self.lock:
            before = self.resolve() if self.history else None
            if parent is not None and (before is None or before.sha != parent):
                raise StaleParent("A commit has happened since. Please refresh and try again.")
            files = dict(before.files) if before else {}
            for path, file in changes.items():
                if file is None:
                    del files[path]
                else:
                    files[path] = file
            date, origin = datetime.now(UTC), before.sha if before else None
            tree = "".join(f"{path}\0{file.oid}\n" for path, file in sorted(files.items()))
            about = f"{origin} {date.timestamp()} {len(self.history)}\n{title}\n{tree}"
            sha = git_sha1(about.encode(errors="surrogatepass"), kind="commit")
            self.history[sha] = Commit(sha, origin, title, date, files)
            self.branches["main"] = sha
            return self.history[sha]

    def tamper(self, path: str, data: bytes) -> None:
        """Serve other bytes for a file, under the size, oid and sha256 that it was committed with."""
        self.objects[self.file(path).key] = data

    def tag(self, name: str, revision: str = "main") -> None:
        """Make a tag. Tags do not move."""
        with self.lock:
            if name in self.tags:
                raise Conflict(f"Tag reference exists already: {name}")
            self.tags[name] = self.resolve(revision).sha


class Store:
    """Every repo of the server."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}

    def create(self, repo_id: str, repo_type: RepoType, *, private: bool) -> Repo:
        """Make a repo with its first commit."""
        if (repo_type, repo_id) in self.repos:
            raise Conflict(f"You already created this {repo_type} repo: {repo_id}")
        if repo_id.count("/") != 1:
            raise BadCommit(f"Not a repo id: {repo_id}")
        return self.repos.setdefault((repo_type, repo_id), Repo(repo_id, repo_type, private=private))

    def get(self, repo_id: str, repo_type: str) -> Repo:
        """Return a repo."""
        if (repo_type, repo_id) not in self.repos:
            raise RepoNotFound
        return self.repos[repo_type, repo_id]
