"""What the Hub's HTTP means to its users: what may pass, how long to wait, what an error says, who is to be quiet.

Reading (`vitzoo.sources.hub`) and publishing (`training.publish.remote`) share this and nothing else. Large files
come by
signed links, which serve them to whoever has one: once this module is imported, huggingface_hub's log and that of the
HTTP library under it show none.
"""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_session
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from huggingface_hub.utils import logging as hf_logging

from vitzoo.errors import DownloadError, HubError, RecordError, VitZooError, ZooNotFoundError

TRANSIENT = (408, 429, 500, 502, 503, 504)
_RESET = re.compile(r"\br=0;t=(?P<seconds>\d{1,5})\b")
_SIGNED = re.compile(r"\?[^\s'\"]*sig(?:nature)?=[^\s'\"]*", re.IGNORECASE)
_LOGS_WITH_LINKS = (
    "huggingface_hub.file_download",
    "huggingface_hub.utils._http",
    "httpx",
    "httpcore.http11",
    "httpcore.http2",
    "httpx2",
    "httpcore2.http11",
    "httpcore2.http2",
)


class _SignaturesHidden(logging.Filter):
    """Leaves a link's signature out of a log.

    Where the line is made, so that it makes no difference which thread it comes from, when, and who shows it: files
    under way outlive the `quiet` of who was interrupted.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every line through."""
        said = record.getMessage()
        hidden = _SIGNED.sub("?(signed)", said)
        if hidden != said:
            record.msg, record.args = hidden, ()
        return True


for _name in _LOGS_WITH_LINKS:
    logging.getLogger(_name).addFilter(_SignaturesHidden())


@contextmanager
def quiet() -> Iterator[None]:
    """Without huggingface_hub's own bars, a file each, and without its log, some lines a retry."""
    bars, verbosity = not are_progress_bars_disabled(), hf_logging.get_verbosity()
    disable_progress_bars()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()


def clean_token(token: str) -> str:
    """A token as a header carries it: without the line's end that a file brings.

    Raises:
        HubError: It holds what no token does. The message does not show it.
    """
    token = token.strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise HubError(
            "The token holds characters that no token has, or none at all. Copy it again from the Hub's settings, or "
            "log in: hf auth login.",
            repo=None,
            status=None,
        )
    return token


def transport_error() -> type[Exception]:
    """What the HTTP library under huggingface_hub, whichever it is, raises when there is no answer."""
    for client in type(get_session()).__mro__:  # a user's own client is a subclass
        error = getattr(sys.modules[client.__module__.partition(".")[0]], "TransportError", None)
        if error is not None:
            return error
    raise TypeError(f"{type(get_session())} is no client that huggingface_hub knows.")


def is_transient(error: Exception) -> bool:
    """Whether the same request may do later: the Hub is busy or failing, or the connection broke."""
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in TRANSIENT or is_refusal_of_files_host(error)
    if type(error).__name__ in ("LocalProtocolError", "UnsupportedProtocol"):  # what was asked, not the way there
        return False
    if isinstance(error, (LocalEntryNotFoundError, LocalTokenNotFoundError, OfflineModeIsEnabled, HfHubHTTPError)):
        return False
    if isinstance(error, ConnectionError):
        return True
    return not isinstance(error, OSError) or error.errno is None  # a full disk has a number, a short body has none


def is_refusal_of_files_host(error: Exception) -> bool:
    """Whether another host than the Hub refused: a signed link that expired, say. A new one may do."""
    response = getattr(error, "response", None)
    return (
        response is not None
        and response.status_code in (401, 403)
        and not str(response.url).startswith(constants.ENDPOINT)
    )


def retry_after(error: Exception) -> float | None:
    """Seconds that the Hub asked to wait, by Retry-After or the RateLimit headers; None where it did not say."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])  # more than 30 years is none
    reset = _RESET.search(headers.get("RateLimit", "").replace(" ", ""))
    return float(reset["seconds"]) if reset else None


def at(revision: str | None) -> str:
    """Which revision was asked for, as a message says it."""
    return "" if revision is None else f' at revision "{revision}"'


def explain(error: BaseException, *, what: str, repo: str, revision: str | None, offline: bool) -> VitZooError:
    """An error of ours for one of huggingface_hub's or of the network's, with what to do.

    Args:
        error: What was raised. Its own text is not quoted: it may tell signed URLs, or the token.
        what: The file that was asked for.
        repo: Where.
        revision: At which revision.
        offline: Whether only the cache may be used.
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    where = f"{repo}{at(revision)}"
    if isinstance(error, LocalTokenNotFoundError):
        return HubError(
            f"token=True was given for {repo}, but nobody is logged in: hf auth login.", repo=repo, status=None
        )
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return DownloadError(
            f"{what} of {where} cannot be written: {error.strerror}. Make room, or name another cache_dir; what was "
            "downloaded is kept.",
            path=Path(error.filename or what),
        )
    if isinstance(error, RevisionNotFoundError):
        return ZooNotFoundError(
            f'The Hub\'s repo "{repo}" has no revision "{revision}". Name a branch, a tag or a commit.', zoo=repo
        )
    refused = status in (401, 403) and not (isinstance(error, Exception) and is_refusal_of_files_host(error))
    if isinstance(error, RepositoryNotFoundError) or refused:
        gated = " It is gated: ask for access on its page." if isinstance(error, GatedRepoError) else ""
        return ZooNotFoundError(
            f'The Hub has no repo "{repo}" that you may read (status {status}).{gated} Check the name; for a private '
            "repo log in (hf auth login), set HF_TOKEN or give token=; a token may have expired.",
            zoo=repo,
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return RecordError(f"{where} has no {what}.", path=Path(what))
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
        why = "only the cache may be used (local_files_only, HF_HUB_OFFLINE)" if offline else "the Hub did not answer"
        return HubError(
            f"{what} of {where} is not in the cache, and {why}. Load it once with a connection, or name the revision "
            "and the cache_dir that it was loaded with.",
            repo=repo,
            status=status,
        )
    why = type(error).__name__ if status is None else f"status {status}"
    return HubError(
        f"{what} of {where} could not be read from the Hub: {why}. Try again later; what was downloaded is kept.",
        repo=repo,
        status=status,
    )
