"""What every handler gets: the server's state, the request, and who asks."""

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.hub.accounts import Accounts, Token, check_read, check_write
from tests.hub.errors import RepoNotFound
from tests.hub.signing import Signer
from tests.hub.store import Repo, RepoType, Store

REPO_TYPES: dict[str, RepoType] = {"models": "model", "datasets": "dataset"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The numbers of the real Hub; tests set smaller ones (`Hub.configure`)."""

    page_size: int = 1000
    """Entries of a `tree` page."""
    expanded_page_size: int = 50
    """The same where `expand` asks for the last commit of each."""
    lfs_above: int = 10_000_000
    """Bytes from which any file goes to LFS."""
    files_a_commit: int = 25_000
    """Operations that one commit may have."""
    url_seconds: float = 3600
    """How long a signed URL of the file host is good for."""


@dataclass(slots=True)
class Service:
    """The state of the server."""

    hub_url: str
    files_url: str
    settings: Settings = field(default_factory=Settings)
    store: Store = field(default_factory=Store)
    accounts: Accounts = field(default_factory=Accounts)
    signer: Signer = field(default_factory=Signer)

    def reset(self) -> None:
        """Everything as it was at first."""
        self.settings, self.store, self.accounts = Settings(), Store(), Accounts()

    def web_url(self, repo: Repo) -> str:
        """Where a person would look at the repo."""
        return f"{self.hub_url}/{'datasets/' if repo.type == 'dataset' else ''}{repo.id}"


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the hub host, its token checked."""

    service: Service
    request: Request
    token: Token | None

    def __getitem__(self, name: str) -> str:
        """A part of the path, unquoted."""
        return unquote(self.request.path_params[name])

    @property
    def repo_id(self) -> str:
        """`org/name`, whether or not there is such a repo."""
        return f"{self['org']}/{self['name'].removesuffix('.git')}"

    def find(self, repo_id: str, repo_type: str) -> Repo:
        """A repo that the caller may see; without a token, absent and hidden ones look the same."""
        try:
            repo = self.service.store.get(repo_id, repo_type)
        except RepoNotFound:
            raise RepoNotFound(status=404 if self.token else 401) from None
        check_read(repo, self.token)
        return repo

    def repo(self) -> Repo:
        """The repo that the path names."""
        return self.find(self.repo_id, REPO_TYPES[self.request.path_params.get("kind", "models")])

    def repo_to_write(self) -> tuple[Repo, str]:
        """The repo that the path names, and the user, who may write there."""
        repo = self.repo()
        return repo, check_write(repo.id, self.token).user


class Json(JSONResponse):
    """JSON in ASCII, which can say any path: lone surrogates, too."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content).encode()


Handler = Callable[[Call], Coroutine[Any, Any, Response]]
