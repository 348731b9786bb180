"""List a repo of the Hub, add files by commits, and tag it. All of publishing's network code is here.

A transient error is retried (`vitzoo.hub_http.retry`). Any other becomes an error of ours, which never holds the token.
A commit names its parent, so sending it twice is safe. If only the answer of the first was lost, the second is refused,
and `BranchMovedError` makes the caller list the repo again.

Files go through `HfApi.preupload_lfs_files` and `create_commit`, with or without Xet. huggingface_hub's `upload_folder`
(2.4.0, 2026-11-28) commits in batches only with Xet, and names no parent after its first commit. It also leaves no
moment between upload and commit in which hashes can be compared with the records.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    constants,
    get_session,
    get_token,
    hf_hub_url,
)
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile, RepoFolder
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status
from huggingface_hub.utils.sha import git_hash

from training.publish.plan import PlannedFile, read_error
from vitzoo.errors import HubError, TrainingError, WeightsError
from vitzoo.hub_http import HubUnavailableError, clean_token, is_transient, retry, status_of

BRANCH = "main"
TRIES = 8
AGAIN = "The same command continues from there."
_CONFLICTS = (409, 412)  # another commit is being made, or was made since
_LOG_IN = "Set HF_TOKEN, or log in with hf auth login."

T = TypeVar("T")
RepoType = Literal["model", "dataset"]


class BranchMovedError(Exception):
    """The branch is no longer at the parent of our commit."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file in a repo, as the Hub lists it.

    Args:
        size: Bytes.
        blob: Git id of the file, or of the pointer of a large file.
        sha256: Hash of a large file, in hex; None for a file that git holds itself.
    """

    size: int
    blob: str
    sha256: str | None

    def is_same(self, file: PlannedFile) -> bool:
        """Return whether size and hash equal a planned file's."""
        if self.size != file.size:
            return False
        if self.sha256 is not None:
            return self.sha256 == file.sha256
        content = file.read()
        is_planned = hashlib.sha256(content).hexdigest() == file.sha256  # not a local file that changed since the plan
        return is_planned and self.blob == git_hash(content)


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteTree:
    """Files and tags of a repo at one moment.

    Args:
        head: Commit of the branch.
        files: Every file of that commit, by path.
        tags: Names of the tags.
    """

    head: str
    files: dict[str, RemoteFile]
    tags: frozenset[str]

    def has(self, file: PlannedFile) -> bool:
        """Return whether the repo has a file, by path, size and hash."""
        return file.path in self.files and self.files[file.path].is_same(file)

    def missing(self, files: Iterable[PlannedFile]) -> list[PlannedFile]:
        """Return the files that are missing from the repo, or different there."""
        return [file for file in files if not self.has(file)]


class Remote:
    """A repo of the Hub.

    Args:
        repo: ``org/name``.
        repo_type: ``model`` or ``dataset``.
        token: A token with write access.
        say: Called with a line about a pause.
        tries: Number of tries of a request.
    """

    def __init__(self, repo: str, repo_type: RepoType, *, token: str, say: Callable[[str], None], tries: int = TRIES):
        self.repo = repo
        self._type: RepoType = repo_type
        self._token = token
        self._say, self._tries = say, tries
        self._api = HfApi(token=token)

    @property
    def url(self) -> str:
        """The repo's page."""
        return f"{self._api.endpoint}/{'datasets/' if self._type == 'dataset' else ''}{self.repo}"

    def is_private(self) -> bool | None:
        """Return whether the repo is private; None if the token sees no such repo."""

        def ask() -> bool | None:
            try:
                about = self._api.model_info if self._type == "model" else self._api.dataset_info
                return bool(about(self.repo, expand=["private"]).private)
            except RepositoryNotFoundError as error:
                if error.response.status_code == 401:  # the token itself is refused
                    raise
                return None

        return self._retry("be read", ask)

    def check_writable(self) -> None:
        """Raise a HubError if the token may not write to the repo."""
        self._retry("be written to", lambda: self._api.auth_check(self.repo, repo_type=self._type, write=True))

    def check_card(self, card: PlannedFile) -> None:
        """Ask the Hub whether it takes a card: only the Hub knows which licences it lists.

        Raises:
            TrainingError: It does not.
        """

        def ask() -> str | None:
            # ModelCard.validate ignores HF_ENDPOINT before huggingface_hub 2.2, and datasets 5.0 needs an older one.
            url, body = f"{self._api.endpoint}/api/validate-yaml", {"content": card.read().decode()}
            response = get_session().post(url, json=body | {"repoType": self._type})
            try:
                hf_raise_for_status(response)
            except BadRequestError as error:
                return error.server_message or str(error)
            return None

        refusal = self._retry("check the card", ask)
        if refusal is not None:
            raise TrainingError(
                f"The Hub refuses the card of {self.repo}: {' '.join(refusal.split())[:300]}",
                fix="If it is the licence, take a name from https://huggingface.co/docs/hub/repositories-licenses.",
            )

    def create(self, *, private: bool) -> None:
        """Create the repo, unless it exists."""
        self._retry(
            "be created", lambda: self._api.create_repo(self.repo, repo_type=self._type, private=private, exist_ok=True)
        )

    def load_tree(self) -> RemoteTree:
        """List the files at the branch's current commit."""
        refs = self._retry("be read", lambda: self._api.list_repo_refs(self.repo, repo_type=self._type))
        heads = [ref.target_commit for ref in refs.branches if ref.name == BRANCH]
        if not heads:
            raise HubError(
                f'{self.repo} has no branch "{BRANCH}"',
                fix="Create one on its page, or publish to another repo.",
                repo=self.repo,
            )
        files = self._retry(
            "be listed",
            lambda: _by_path(
                self._api.list_repo_tree(self.repo, recursive=True, revision=heads[0], repo_type=self._type)
            ),
        )
        return RemoteTree(head=heads[0], files=files, tags=frozenset(ref.name for ref in refs.tags))

    def has_at(self, revision: str, files: Sequence[PlannedFile]) -> bool:
        """Return whether a revision has all of these files, by path, size and hash."""
        paths = [file.path for file in files]
        entries = self._retry(
            "be read",
            lambda: self._api.get_paths_info(self.repo, paths, revision=revision, repo_type=self._type),
        )
        return not RemoteTree(head=revision, files=_by_path(entries), tags=frozenset()).missing(files)

    def read(self, path: str, *, commit: str) -> bytes:
        """Return the bytes of a small file."""
        url = hf_hub_url(self.repo, path, revision=commit, repo_type=self._type, endpoint=self._api.endpoint)

        def ask() -> bytes:
            response = get_session().get(url, headers=build_hf_headers(token=self._token), follow_redirects=True)
            hf_raise_for_status(response)
            return response.content

        return self._retry("be read", ask)

    def upload(self, files: Sequence[PlannedFile]) -> list[CommitOperationAdd]:
        """Store the weights files among some files, and compare the hashes of all files with the records.

        Equal files, such as a member's last and its final weights, are sent once. With Xet the hash comes from the same
        reading as the upload; without it huggingface_hub reads the file once more beforehand.

        Returns:
            The operations for `commit`.

        Raises:
            WeightsError: A local file was deleted or altered since it was verified.
            TrainingError: A local file cannot be read.
        """
        for file in files:
            if isinstance(file.content, Path) and not file.content.is_file():
                raise WeightsError(
                    f"{file.content} was deleted since publishing began, so its member was not published",
                    fix="Publish again when no process changes the folder.",
                    path=file.content,
                )
        additions: list[CommitOperationAdd] = []

        def ask() -> list[str]:
            if not additions:
                additions.extend(CommitOperationAdd(file.path, file.content) for file in files)
            large = {
                file.sha256: added
                for file, added in zip(files, additions, strict=True)
                if isinstance(file.content, Path)
            }
            self._api.preupload_lfs_files(
                self.repo, large.values(), repo_type=self._type, revision=BRANCH, free_memory=False
            )
            return [added.upload_info.sha256.hex() for added in additions]

        local = files[0].path + (f", or one of {len(files) - 1} more" if len(files) > 1 else "")
        for file, found in zip(files, self._retry("take files", ask, local=local), strict=True):
            if found != file.sha256:
                raise WeightsError(
                    f"{file.path} has sha256 {found[:16]}...: it was altered, so its member was not published",
                    expected=f"{file.sha256[:16]}..., as its record says",
                    fix="Train the member again, or get the folder again.",
                    path=file.content if isinstance(file.content, Path) else Path(file.path),
                )
        return additions

    def commit(self, additions: Sequence[CommitOperationAdd], *, message: str, parent: str) -> str:
        """Add files in one commit.

        Returns:
            The commit.

        Raises:
            BranchMovedError: The branch is not at ``parent``: another commit, or an earlier try, came first.
        """

        def send() -> str:
            with warnings.catch_warnings():
                # Readers get the tables with the zoo, at its commit.
                warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
                made = self._api.create_commit(
                    self.repo,
                    additions,
                    commit_message=message,
                    repo_type=self._type,
                    revision=BRANCH,
                    parent_commit=parent,
                )
            return made.oid

        return self._retry("take a commit", send, conflict=BranchMovedError())

    def tag(self, name: str, *, commit: str) -> None:
        """Tag a commit, unless the tag exists."""
        self._retry(
            f'be tagged "{name}"',
            lambda: self._api.create_tag(self.repo, tag=name, revision=commit, repo_type=self._type, exist_ok=True),
        )

    def _retry(
        self, what: str, ask: Callable[[], T], *, conflict: Exception | None = None, local: str = "a local file"
    ) -> T:
        def refuse(error: Exception) -> Exception:
            status = status_of(error)
            if conflict is not None and status in _CONFLICTS:
                return conflict
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
                return read_error(error.filename or local, error)
            if is_transient(error):
                reason = "no answer" if status is None else f"status {status}"
                problem = f"{self.repo} cannot {what}: {reason}, {self._tries} times"
                return HubUnavailableError(problem, fix=f"Try later. {AGAIN}", repo=self.repo, status=status)
            reason, fix = self._explain(error)
            problem, fix = f"{self.repo} cannot {what}: {reason}", f"{fix} {AGAIN}".strip()
            return HubError(problem, fix=fix, repo=self.repo, status=status)

        return retry(ask, repo=self.repo, refuse=refuse, tries=self._tries, say=self._say)

    def _explain(self, error: Exception) -> tuple[str, str]:
        """Return the reason of an error that no retry fixes, without the token, and what to do."""
        status = status_of(error)
        if constants.is_offline_mode():
            return "HF_HUB_OFFLINE is set", "Unset it."
        if status == 401:
            return "the token is refused (status 401): wrong or expired", _LOG_IN
        if status == 403:
            return "the token may not do that (status 403)", "Use one with write access to this account's repos."
        if isinstance(error, RepositoryNotFoundError):
            return f"the token sees no such repo (status {status})", "Check the name and the token."
        text = error.server_message if isinstance(error, HfHubHTTPError) else str(error)
        text = " ".join((text or "").replace(self._token, "...").split())[:300]
        kind = type(error).__name__ if status is None else f"status {status}"
        return f"{kind}: {text}" if text else kind, ""


def find_token(token: str | None = None) -> str:
    """Return the given token, else the token of the environment or the login, without white space.

    Raises:
        HubError: No token was found, or a header cannot carry it.
    """
    token = get_token() if token is None else token
    if token is None:
        raise HubError("Publishing needs a token with write access", fix=_LOG_IN)
    return clean_token(token)


def _by_path(entries: Iterable[RepoFile | RepoFolder]) -> dict[str, RemoteFile]:
    return {
        entry.path: RemoteFile(entry.size, entry.blob_id, None if entry.lfs is None else entry.lfs.sha256)
        for entry in entries
        if isinstance(entry, RepoFile)
    }
