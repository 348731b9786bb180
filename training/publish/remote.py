"""One repo of the Hub, as publishing needs it: looked at, added to by commits, tagged. The only network code here.

What may pass (a busy or failing Hub, a broken connection) is tried again after a pause; anything else becomes an error
of ours, which never holds the token. A commit names its parent, so sending it twice is safe: where the first was made
and only its answer was lost, the second is refused, and `BranchMoved` makes the caller look again.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    constants,
    get_session,
    get_token,
    hf_hub_url,
    set_client_factory,
)
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile, RepoFolder
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from training.publish.files import PlannedFile, reading
from training.publish.look import Look, RemoteFile
from vitzoo.errors import HubError, VitZooError, WeightsError
from vitzoo.hub_http import TRANSIENT, clean_token, retry_after, transport_error

BRANCH = "main"
TRIES = 8
FIRST_WAIT = 1.0  # seconds; doubled for each try
_LONGEST_WAIT = 60.0
_LONGEST_ASKED = 600.0  # a Hub that asks for more is left to the user
_CONFLICTS = (409, 412)  # another commit is under way, or was made since
AGAIN = "The same command goes on from there."
_WRITE_TOKEN = "Use one with write access, of an account that may write there."

T = TypeVar("T")
RepoType = Literal["model", "dataset"]
Addition = CommitOperationAdd


class BranchMoved(Exception):
    """The branch is no longer at the commit that ours was to follow."""


class HubAway(HubError):
    """The Hub gave no answer, or was busy, however often it was asked: later it may do. Attributes: HubError's."""


class Remote:
    """A repo.

    Args:
        repo: ``org/name``.
        repo_type: Of models or of a dataset.
        token: A token that may write.
        say: Where it tells that it waits.
    """

    def __init__(self, repo: str, repo_type: RepoType, *, token: str, say: Callable[[str], None]):
        self.repo = repo
        self._type: RepoType = repo_type
        self._token = token
        self._say = say
        self._api = HfApi(token=token)
        self._read: dict[tuple[str, str], bytes] = {}

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self._api.endpoint}/{'datasets/' if self._type == 'dataset' else ''}{self.repo}"

    def is_private(self) -> bool | None:
        """Whether it is private; None where there is no such repo that the token may see."""

        def ask() -> bool | None:
            try:
                about = self._api.model_info if self._type == "model" else self._api.dataset_info
                info = about(self.repo, expand=["private"])
            except RepositoryNotFoundError as error:
                if error.response.status_code == 401:  # the token itself is refused
                    raise
                return None
            return bool(info.private)

        return self._retrying("be looked at", ask)

    def check_writable(self, *, there: bool) -> None:
        """Ask whether the token may write, before there is anything to write.

        Args:
            there: Whether there is such a repo; else it is asked whose the token is.

        Raises:
            HubError: It may not.
        """
        if there:
            ask = lambda: self._api.auth_check(self.repo, repo_type=self._type, write=True)  # noqa: E731
            self._retrying("be written to", ask)
            return
        owner = self.repo.partition("/")[0]
        said = self._retrying("be made", self._api.whoami)
        roles = {found.get("name"): found.get("roleInOrg") for found in said.get("orgs", ())}
        if said.get("auth", {}).get("accessToken", {}).get("role") == "read":
            why = "may only read"
        elif owner != said.get("name") and owner not in roles:
            why = f'is of an account ({said.get("name")}) that is not of "{owner}"'
        elif roles.get(owner) == "read":
            why = f'is of an account that may only read what is of "{owner}"'
        else:  # as far as can be told
            return
        raise HubError(f"{self.repo} cannot be made: the token {why}. {_WRITE_TOKEN}", repo=self.repo, status=403)

    def create(self, *, private: bool) -> None:
        """Make it."""
        self._retrying(
            "be made", lambda: self._api.create_repo(self.repo, repo_type=self._type, private=private, exist_ok=True)
        )

    def look(self) -> Look:
        """Its files at the commit that the branch is at now."""
        refs = self._retrying("be looked at", lambda: self._api.list_repo_refs(self.repo, repo_type=self._type))
        heads = [ref.target_commit for ref in refs.branches if ref.name == BRANCH]
        if not heads:
            raise HubError(
                f'{self.repo} has no branch "{BRANCH}". Make one on its page, or publish elsewhere.',
                repo=self.repo,
                status=None,
            )
        files = self._retrying(
            "be listed",
            lambda: _by_path(
                self._api.list_repo_tree(self.repo, recursive=True, revision=heads[0], repo_type=self._type)
            ),
        )
        return Look(head=heads[0], files=files, tags=frozenset(ref.name for ref in refs.tags))

    def files_at(self, revision: str, paths: Sequence[str]) -> dict[str, RemoteFile]:
        """Those of the paths that a revision has; none where there is no such revision."""

        def ask() -> dict[str, RemoteFile]:
            with suppress(RevisionNotFoundError):
                return _by_path(
                    self._api.get_paths_info(self.repo, list(paths), revision=revision, repo_type=self._type)
                )
            return {}

        return self._retrying("be looked at", ask)

    def read(self, path: str, *, commit: str) -> bytes:
        """A small file's bytes; what a commit has never changes, so they are asked for once."""
        if (path, commit) in self._read:
            return self._read[path, commit]
        url = hf_hub_url(self.repo, path, revision=commit, repo_type=self._type, endpoint=self._api.endpoint)

        def ask() -> bytes:
            response = get_session().get(url, headers=build_hf_headers(token=self._token), follow_redirects=True)
            hf_raise_for_status(response)
            return response.content

        self._read[path, commit] = self._retrying("be read", ask)
        return self._read[path, commit]

    def addition(self, file: PlannedFile) -> Addition:
        """A file ready to be sent, its hash compared with the record.

        Raises:
            WeightsError: The local file is gone, or not what its record says.
            TrainingError: It cannot be read.
        """
        if not isinstance(file.content, bytes) and not file.content.is_file():
            raise WeightsError(
                f"{file.content} was there when publishing began, and is not any more; nothing of this member was "
                "sent. Publish again when nobody changes the folder.",
                path=file.content,
            )
        with reading(file.path if isinstance(file.content, bytes) else file.content):
            addition = CommitOperationAdd(file.path, file.content)
        found = addition.upload_info.sha256.hex()
        if (addition.upload_info.size, found) != (file.size, file.sha256):
            raise WeightsError(
                f"{file.content if not isinstance(file.content, bytes) else file.path} has sha256 {found[:16]}..., but "
                f"the record says {file.sha256[:16]}...: it was altered, so nothing of this member was sent. Train "
                "the member again, or get the folder again.",
                path=file.content,
            )
        return addition

    def upload(self, additions: Sequence[Addition]) -> None:
        """Store large files, those of them that are not stored yet; a commit names them later."""
        self._retrying(
            "take files",
            lambda: self._api.preupload_lfs_files(
                self.repo, additions, repo_type=self._type, revision=BRANCH, free_memory=False
            ),
            local=additions[0].path_in_repo + (f", or one of {len(additions) - 1} more" if len(additions) > 1 else ""),
        )

    def commit(self, additions: Sequence[Addition], *, message: str, parent: str) -> str:
        """Add files, or replace them, in one commit.

        Returns:
            The commit.

        Raises:
            BranchMoved: The branch is not at ``parent``: somebody else's commit came first, or an earlier try's.
        """

        def send() -> str:
            with warnings.catch_warnings():
                # Tables belong into the model repo too: readers get them with the zoo, at its commit.
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

        return self._retrying("take a commit", send, conflict=BranchMoved)

    def tag(self, name: str, *, commit: str) -> None:
        """Tag a commit; where the tag is there already it stays as it is."""
        self._retrying(
            f'be tagged "{name}"',
            lambda: self._api.create_tag(self.repo, tag=name, revision=commit, repo_type=self._type, exist_ok=True),
        )

    def _retrying(
        self,
        what: str,
        ask: Callable[[], T],
        *,
        conflict: type[Exception] | None = None,
        local: str = "a local file",
    ) -> T:
        reason, status = "no answer", None
        for attempt in range(TRIES):
            try:
                return ask()
            except VitZooError:
                raise
            except (OSError, RuntimeError, ValueError, transport_error()) as caught:
                error = _cause(caught)
                status = _status(error)
                if conflict is not None and status in _CONFLICTS:
                    raise conflict from None
                if isinstance(error, OSError) and error.errno is not None:
                    with reading(error.filename or local):
                        raise error from None  # of this machine
                if status not in TRANSIENT and not isinstance(error, transport_error()):
                    raise self._refusal(what, error) from None
                reason = f"status {status}" if status is not None else "no answer"
                if attempt + 1 < TRIES:
                    self._wait(retry_after(error), attempt=attempt, reason=reason, status=status)
        raise HubAway(
            f"{self.repo} cannot {what}: {reason}, {TRIES} times. Try later. {AGAIN}", repo=self.repo, status=status
        )

    def _wait(self, asked: float | None, *, attempt: int, reason: str, status: int | None) -> None:
        if asked is not None and not asked <= _LONGEST_ASKED:
            raise HubAway(
                f"{self.repo}: {reason}, and the Hub asks to wait for {_duration(asked)}; this waits for "
                f"{_duration(_LONGEST_ASKED)} at most. Try later. {AGAIN}",
                repo=self.repo,
                status=status,
            )
        seconds = min(FIRST_WAIT * 2**attempt, _LONGEST_WAIT) if asked is None else asked
        if seconds >= 2:
            self._say(f"{self.repo}: {reason}; trying again in {seconds:.0f} s")
        time.sleep(seconds)

    def _refusal(self, what: str, error: Exception) -> HubError:
        """What does not pass, as an error of ours: with what to do, and without the token."""
        status = _status(error)
        if constants.is_offline_mode():
            why = "HF_HUB_OFFLINE is set. Unset it."
        elif status == 401:
            why = "the token is refused (status 401): wrong or expired. Set HF_TOKEN, or log in with hf auth login."
        elif status == 403:
            why = f"the token may not do that (status 403). {_WRITE_TOKEN}"
        elif isinstance(error, RepositoryNotFoundError):
            why = f"there is no such repo that the token may see (status {status}). Check the name and the token."
        else:
            said = error.server_message if isinstance(error, HfHubHTTPError) else str(error)
            said = " ".join((said or "").replace(self._token, "...").split())[:300]
            why = f"{f'status {status}' if status is not None else type(error).__name__}{f': {said}' if said else ''}."
        return HubError(f"{self.repo} cannot {what}: {why} {AGAIN}", repo=self.repo, status=status)


def limit_waiting(seconds: float) -> None:
    """Make a request of this process that gets no byte for so long an error; huggingface_hub's wait for ever."""
    client = get_session()
    kind, hooks = type(client), client.event_hooks
    phases = ("connect", "read", "write", "pool")

    def limit(request: Any) -> None:  # some of its calls ask for no limit themselves, which a client's own gives way to
        asked = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {phase: asked.get(phase) or seconds for phase in phases}

    limited = {**hooks, "request": [*hooks["request"], limit]}
    set_client_factory(lambda: kind(event_hooks=limited, follow_redirects=True, timeout=seconds))


def find_token(token: str | None = None) -> str:
    """The token that was given, else the environment's or the login's: as it goes into a header.

    Raises:
        HubError: There is none, or it is none.
    """
    token = get_token() if token is None else token
    if token is None:
        raise HubError(
            "Publishing needs a token with write access: set HF_TOKEN, or log in with hf auth login.",
            repo=None,
            status=None,
        )
    return clean_token(token)


def pause(attempt: int) -> None:
    """Let another publisher go on before the next look."""
    time.sleep(min(FIRST_WAIT * 2**attempt, _LONGEST_WAIT))


def _by_path(entries: Iterable[RepoFile | RepoFolder]) -> dict[str, RemoteFile]:
    return {
        entry.path: RemoteFile(entry.size, entry.blob_id, None if entry.lfs is None else entry.lfs.sha256)
        for entry in entries
        if isinstance(entry, RepoFile)
    }


def _cause(error: Exception) -> Exception:
    """What made an upload in a thread fail."""
    while isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _duration(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else "more than two days"


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
