"""Users, organisations and tokens: who may see a private repo, and who may write.

Nothing is registered beforehand: a user exists with its first token, an organisation by being named in `orgs`.
"""

import secrets
from typing import Literal

from tests.hub.errors import Forbidden, RepoNotFound, Unauthorized
from tests.hub.store import Repo

Role = Literal["read", "write"]


class Token:
    """One token of a user; `str(token)` is what a client sends."""

    def __init__(self, user: str, role: Role, orgs: tuple[str, ...]) -> None:
        self.value = f"hf_{secrets.token_hex(17)}"
        self.user = user
        self.role: Role = role
        self.orgs = orgs
        self._left: int | None = None

    def __str__(self) -> str:
        return self.value

    def expire(self, *, after: int = 0) -> None:
        """Refuse the token from now on, or once it has been good for this many more requests."""
        self._left = after

    @property
    def expired(self) -> bool:
        """Whether the next request with it is refused."""
        return self._left == 0

    def spend(self) -> None:
        """Count one request."""
        if self.expired:
            raise Unauthorized(f'User Access Token "{self.user}" is expired')
        if self._left is not None:
            self._left -= 1

    def owns(self, namespace: str) -> bool:
        """Whether this namespace is the user's own, or one of its organisations."""
        return namespace == self.user or namespace in self.orgs


class Accounts:
    """The tokens that the server knows."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    def add(self, user: str, *, role: Role, orgs: tuple[str, ...]) -> Token:
        """A new token."""
        token = Token(user, role, orgs)
        self._tokens[token.value] = token
        return token

    def authenticate(self, authorization: str | None) -> Token | None:
        """The token of an Authorization header; None is nobody."""
        if authorization is None:
            return None
        token = self._tokens.get(authorization.removeprefix("Bearer "))
        if token is None:
            # The client tells a bad token from a hidden repo by this very sentence.
            raise Unauthorized("Invalid credentials in Authorization header")
        token.spend()
        return token


def check_read(repo: Repo, token: Token | None) -> None:
    """A private repo is as good as absent for those who are not of its namespace."""
    if repo.private and not (token and token.owns(_namespace(repo.id))):
        raise RepoNotFound(status=404 if token else 401)


def check_write(repo_id: str, token: Token | None) -> Token:
    """A write token of the namespace's owner, or an error."""
    if token is None:
        raise Unauthorized("Invalid username or password.")
    if token.role != "write":
        raise Forbidden("Forbidden: you must use a write token to upload to a repository.")
    if not token.owns(_namespace(repo_id)):
        raise Forbidden(f"You don't have the rights to write under the namespace {_namespace(repo_id)!r}")
    return token


def _namespace(repo_id: str) -> str:
    return repo_id.split("/", 1)[0]
