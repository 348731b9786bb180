"""Repos as git keeps them, without HTTP: commits are immutable snapshots, branches and tags point at one.

A file is a record (`File`) of what the server says about it; its bytes lie apart, under the sha256 of an LFS file or
the git sha1 of a regular one. `Repo.tamper` changes the bytes and leaves the record, as a server that lies would.
"""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from tests.hub.errors import BadCommit, Conflict, EntryNotFound, RepoNotFound, RevisionNotFound, StaleParent
from tests.hub.gitattributes import default_gitattributes, is_lfs_path

RepoType = Literal["model", "dataset"]


def git_sha1(data: bytes, *, kind: str = "blob") -> str:
    """The id git gives an object of these bytes."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """What git itself holds for an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True, slots=True)
class File:
    """What the server says of a file: git's blob id (of the pointer, for LFS), size, and the sha256 of an LFS file."""

    oid: str
    size: int
    sha256: str | None = None

    @property
    def key(self) -> str:
        """Where its bytes lie, and the ETag it is served under."""
        return self.sha256 or self.oid

    @classmethod
    def lfs(cls, sha256: str, size: int) -> "File":
        """The record of an LFS file."""
        return cls(git_sha1(lfs_pointer(sha256, size)), size, sha256)


@dataclass(frozen=True)
class Commit:
    """One snapshot of every file."""

    sha: str
    parent: str | None
    title: str
    message: str
    author: str
    date: datetime
    files: Mapping[str, File] = field(repr=False)

    @cached_property
    def names(self) -> list[str]:
        """Every path, in order."""
        return sorted(self.files)


class Repo:
    """One repo; every change goes through `_advance`, under the lock."""

    def __init__(self, repo_id: str, repo_type: RepoType, *, private: bool = False, author: str = "system") -> None:
        self.id = repo_id
        self.type: RepoType = repo_type
        self.private = private
        self.created = datetime.now(UTC)
        self.objects: dict[str, bytes] = {}
        self.history: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.lock = threading.RLock()
        self.commit({".gitattributes": default_gitattributes(repo_type)}, message="initial commit", author=author)

    @property
    def head(self) -> str:
        """The sha that `main` points at."""
        return self.branches["main"]

    def resolve(self, revision: str = "main") -> Commit:
        """The commit of a branch, a tag or a full sha."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.history:
            raise RevisionNotFound(revision)
        return self.history[sha]

    def commits(self, revision: str = "main") -> list[Commit]:
        """The commits of a revision, newest first."""
        found = [self.resolve(revision)]
        while (parent := found[-1].parent) is not None:
            found.append(self.history[parent])
        return found

    def file(self, path: str, revision: str = "main") -> File:
        """What the server says of one file."""
        commit = self.resolve(revision)
        if path not in commit.files:
            raise EntryNotFound("Entry not found", commit=commit.sha)
        return commit.files[path]

    def read(self, path: str, revision: str = "main") -> bytes:
        """The bytes that the server would send."""
        return self.objects[self.file(path, revision).key]

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Every path and its bytes."""
        return {path: self.objects[file.key] for path, file in self.resolve(revision).files.items()}

    def is_lfs_path(self, path: str, revision: str = "main") -> bool:
        """Whether the repo's own `.gitattributes` sends this path to LFS."""
        commit = self.resolve(revision)
        rules = commit.files.get(".gitattributes")
        return rules is not None and is_lfs_path(path, self.objects[rules.key])

    def commit(
        self,
        changes: Mapping[str, bytes | None],
        *,
        message: str = "commit",
        branch: str = "main",
        author: str = "system",
        lfs: bool | None = None,
    ) -> Commit:
        """Add, replace and (None) delete files, unchecked: any path at all.

        `lfs` says how the files are stored; by default `.gitattributes` does.
        """
        records: dict[str, File | None] = {}
        with self.lock:
            for path, data in changes.items():
                if data is None:
                    records[path] = None
                elif self.is_lfs_path(path, branch) if lfs is None and branch in self.branches else lfs:
                    records[path] = self.store_lfs(data)
                else:
                    records[path] = self.store_regular(data)
            return self.apply(records, title=message, branch=branch, author=author)

    def store_regular(self, data: bytes) -> File:
        """Keep bytes in git itself."""
        file = File(git_sha1(data), len(data))
        self.objects.setdefault(file.key, data)
        return file

    def store_lfs(self, data: bytes) -> File:
        """Keep bytes as an LFS object."""
        file = File.lfs(hashlib.sha256(data).hexdigest(), len(data))
        self.objects.setdefault(file.key, data)
        return file

    def apply(
        self,
        changes: Mapping[str, File | None],
        *,
        title: str,
        message: str = "",
        branch: str = "main",
        author: str = "system",
        parent: str | None = None,
    ) -> Commit:
        """Move a branch on by one commit; one that changes nothing is made all the same, as the Hub does.

        `parent` is the sha, or its first digits, that the branch has to be at.
        """
        with self.lock:
            before = self.resolve(branch) if self.history else None
            if before is not None and branch not in self.branches:
                raise RevisionNotFound(branch)
            if parent is not None and not (before and before.sha.startswith(parent)):
                raise StaleParent
            files = dict(before.files) if before else {}
            for path, file in changes.items():
                if file is None:
                    del files[path]
                else:
                    files[path] = file
            date = datetime.now(UTC)
            tree = "".join(f"{path}\0{file.oid}\n" for path, file in sorted(files.items()))
            origin = before.sha if before else None
            about = f"{origin} {author} {date.timestamp()} {len(self.history)}\n{title}\n{message}\n{tree}"
            sha = git_sha1(about.encode(errors="surrogatepass"), kind="commit")
            self.history[sha] = Commit(sha, origin, title, message, author, date, files)
            self.branches[branch] = sha
            return self.history[sha]

    def tamper(self, path: str, data: bytes, *, revision: str = "main") -> None:
        """Serve other bytes for a file, under the size, oid and sha256 it was committed with."""
        self.objects[self.file(path, revision).key] = data

    def tag(self, name: str, revision: str = "main") -> None:
        """Make a tag; tags do not move."""
        with self.lock:
            if name in self.tags:
                raise Conflict(f"Tag reference exists already: {name}")
            self.tags[name] = self.resolve(revision).sha

    def branch(self, name: str, revision: str = "main") -> None:
        """Make a branch."""
        with self.lock:
            if name in self.branches:
                raise Conflict(f"Reference already exists: {name}")
            self.branches[name] = self.resolve(revision).sha


class Store:
    """Every repo of the server."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}

    def create(self, repo_id: str, repo_type: RepoType, *, private: bool = False, author: str = "system") -> Repo:
        """A new repo with its first commit."""
        if (repo_type, repo_id) in self.repos:
            raise Conflict(f"You already created this {repo_type} repo: {repo_id}")
        if repo_id.count("/") != 1:
            raise BadCommit(f"Not a repo id: {repo_id}")
        return self.repos.setdefault((repo_type, repo_id), Repo(repo_id, repo_type, private=private, author=author))

    def get(self, repo_id: str, repo_type: str) -> Repo:
        """The repo, or RepoNotFound."""
        if (repo_type, repo_id) not in self.repos:
            raise RepoNotFound
        return self.repos[repo_type, repo_id]
