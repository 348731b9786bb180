"""Refusals of the Hub, with the status and the `X-Error-Code` that clients convert into their own exceptions."""


class HubError(Exception):
    """An answer other than success."""

    status = 500
    code: str | None = None


class RepoNotFound(HubError):
    """The repo does not exist, or the caller may not see it; 401 without a token."""

    code = "RepoNotFound"

    def __init__(self, *, status: int = 404) -> None:
        super().__init__("Repository not found" if status == 404 else "Invalid username or password.")
        self.status = status


class RevisionNotFound(HubError):
    """The revision is not a branch, a tag or a commit."""

    status, code = 404, "RevisionNotFound"

    def __init__(self, revision: str) -> None:
        super().__init__(f"Invalid rev id: {revision}")


class EntryNotFound(HubError):
    """The commit has no such file or folder."""

    status, code = 404, "EntryNotFound"

    def __init__(self, message: str, *, commit: str) -> None:
        super().__init__(message)
        self.commit = commit


class Unauthorized(HubError):
    """The token is unknown, expired or missing."""

    status = 401


class Forbidden(HubError):
    """The token may not do this."""

    status = 403


class Conflict(HubError):
    """The repo or tag exists already."""

    status = 409


class StaleParent(HubError):
    """The branch has moved on from `parentCommit`."""

    status = 412


class BadCommit(HubError):
    """The Hub does not accept the commit, upload or name."""

    status = 400
