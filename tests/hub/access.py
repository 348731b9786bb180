"""Tokens, and the state of the server that a request may reach with its token.

Nothing is registered beforehand: a user exists with the first token, an organisation when `orgs` names it.
"""

import secrets
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from starlette.requests import Request

from tests.hub.errors import Forbidden, RepoNotFound, Unauthorized
from tests.hub.store import Repo, Store

Role = Literal["read", "write"]


class Token:
    """A token of a user. `str(token)` is the text that a client sends."""

    def __init__(self, user: str, role: Role, orgs: tuple[str, ...]) -> None:
        self.value = f"hf_{secrets.token_hex(17)}"
        self.role: Role = role
        self.namespaces = {user, *orgs}
        self._left: int | None = None

    def __str__(self) -> str:
        return self.value

    def expire(self, *, after: int = 0) -> None:
        """Refuse the token from now on, or after some more requests."""
        self._left = after

    def spend(self) -> None:
        """Count a request."""
        if self._left == 0:
            raise Unauthorized("User Access Token is expired")
        if self._left is not None:
            self._left -= 1

    def owns(self, repo_id: str) -> bool:
        """Tell whether a repo is in a namespace of the user."""
        return repo_id.split("/")[0] in self.namespaces


@dataclass(slots=True)
class Service:
    """The state of the server."""

    hub_url: str
    files_url: str
    store: Store = field(default_factory=Store)
    tokens: dict[str, Token] = field(default_factory=dict)

    def authenticate(self, authorization: str | None) -> Token | None:
        """Return the token of an Authorization header; None without a header."""
        if authorization is None:
            return None
        token = self.tokens.get(authorization.removeprefix("Bearer "))
        if token is None:  # this sentence tells the client a bad token from a hidden repo
            raise Unauthorized("Invalid credentials in Authorization header")
        token.spend()
        return token

    def web_url(self, repo: Repo) -> str:
        """Return the URL of the repo's page."""
        return f"{self.hub_url}/{'datasets/' if repo.type == 'dataset' else ''}{repo.id}"


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the hub host, with its checked token and the type of the repo in its path."""

    service: Service
    request: Request
    token: Token | None
    repo_type: str

    def __getitem__(self, name: str) -> str:
        """Return a part of the path, unquoted."""
        return unquote(self.request.path_params[name])

    @property
    def repo(self) -> Repo:
        """The repo in the path. To a stranger a private repo is absent."""
        absent = RepoNotFound(status=404 if self.token else 401)
        try:
            repo = self.service.store.get(f"{self['org']}/{self['name'].removesuffix('.git')}", self.repo_type)
        except RepoNotFound:
            raise absent from None
        if repo.private and not (self.token and self.token.owns(repo.id)):
            raise absent
        return repo

    def check_write(self, repo_id: str) -> None:
        """Refuse a token that may not write to a repo."""
        if self.token is None:
            raise Unauthorized("Invalid username or password.")
        if self.token.role != "write":
            raise Forbidden("Forbidden: you must use a write token to upload to a repository.")
        if not self.token.owns(repo_id):
            raise Forbidden(f"You don't have the rights to write to {repo_id}")

    def repo_to_write(self) -> Repo:
        """Return the repo in the path, if the token may write to it."""
        repo = self.repo
        self.check_write(repo.id)
        return repo
