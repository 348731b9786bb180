"""What the Hub refuses, each with the status and the `X-Error-Code` that its clients turn into their own exceptions.

HubError
├── RepoNotFound        404, and 401 without a token: whether a private repo exists is not told
├── RevisionNotFound    404
├── EntryNotFound       404; knows the commit it looked in
├── Unauthorized        401
├── Forbidden           403
├── Conflict            409  the repo, tag or branch is there already
├── StaleParent         412  the branch has moved on from `parentCommit`
└── BadCommit           400
"""


class HubError(Exception):
    """An answer other than success."""

    status = 500
    code: str | None = None


class RepoNotFound(HubError):
    """No such repo, or none that the caller may see."""

    status, code = 404, "RepoNotFound"

    def __init__(self, *, status: int = 404) -> None:
        super().__init__("Repository not found" if status == 404 else "Invalid username or password.")
        self.status = status


class RevisionNotFound(HubError):
    """Neither a branch, nor a tag, nor a commit."""

    status, code = 404, "RevisionNotFound"

    def __init__(self, revision: str) -> None:
        super().__init__(f"Invalid rev id: {revision}")


class EntryNotFound(HubError):
    """No file or folder of that path at that commit."""

    status, code = 404, "EntryNotFound"

    def __init__(self, message: str, *, commit: str | None = None) -> None:
        super().__init__(message)
        self.commit = commit


class Unauthorized(HubError):
    """A token that is unknown or expired, or none where one is needed."""

    status = 401


class Forbidden(HubError):
    """A token that may not do this."""

    status = 403


class Conflict(HubError):
    """It exists already."""

    status = 409


class StaleParent(HubError):
    """Somebody else committed in between."""

    status = 412

    def __init__(self) -> None:
        super().__init__("A commit has happened since. Please refresh and try again.")


class BadCommit(HubError):
    """A commit, an upload or a name that the Hub does not take."""

    status = 400

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
