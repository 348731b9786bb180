"""The HTTP rules that reading and publishing share: retries, waits, error texts, and logs without signed links.

See `vitzoo.sources.hub` for reading a zoo and `training.publish.remote` for writing one. The Hub serves large files by
signed links, and whoever has such a link can read its file. `retry` and `quiet` therefore keep them out of logs.
"""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

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

FIRST_WAIT = 1.0  # seconds; doubled for each try
LONGEST_WAIT = 60.0
LONGEST_ASKED = 600.0  # seconds; a longer pause is refused
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_RESET = re.compile(r"\br=0;t=(?P<seconds>\d{1,5})\b")
_SIGNED = re.compile(r"\?[^\s'\"?]*sig(?:nature)?=[^\s'\"]*", re.IGNORECASE)
_LOGS_WITH_LINKS = (
    *("huggingface_hub.file_download", "huggingface_hub.utils._http", "httpx", "httpx2"),
    *("httpcore.http11", "httpcore.http2", "httpcore2.http11", "httpcore2.http2"),
)
_log = logging.getLogger(__name__)

T = TypeVar("T")


class HubUnavailableError(HubError):
    """The Hub did not answer, or was busy, in every try. The same request may succeed later."""


def retry(
    ask: Callable[[], T],
    *,
    repo: str,
    refuse: Callable[[Exception], Exception],
    tries: int = 5,
    say: Callable[[str], None] = _log.warning,
) -> T:
    """Return the value of a call to the Hub, which is repeated after a pause if the error is transient.

    Args:
        ask: Makes the request.
        repo: The repo, for messages.
        refuse: Makes the raised error from one that is not transient, or from the last try's.
        tries: Number of tries.
        say: Takes a line about a pause of two seconds or more.

    Raises:
        HubUnavailableError: The Hub asks for a pause longer than `LONGEST_ASKED`.
    """
    _hide_signatures()
    attempt = 0
    while True:
        try:
            return ask()
        except VitZooError:
            raise
        except (OSError, RuntimeError, ValueError, EntryNotFoundError, transport_error()) as caught:
            error = _cause(caught)
        if attempt + 1 == tries or not is_transient(error):
            raise refuse(error)
        seconds, status = retry_after(error), status_of(error)
        reason = "no answer" if status is None else f"status {status}"
        if seconds is None:
            seconds = _backoff(attempt)
        elif seconds > LONGEST_ASKED:
            raise HubUnavailableError(
                f"{repo}: {reason}, and the Hub asks to wait {seconds:,.0f} seconds",
                expected=f"at most {LONGEST_ASKED:.0f}",
                fix="Try again later; finished files are kept.",
                repo=repo,
                status=status,
            )
        if seconds >= 2:
            say(f"{repo}: {reason}; trying again in {seconds:.0f} s")
        time.sleep(seconds)
        attempt += 1


def pause(attempt: int) -> None:
    """Sleep after a failed try. The first try is number 0."""
    time.sleep(_backoff(attempt))


def _backoff(attempt: int) -> float:
    return min(FIRST_WAIT * 2**attempt, LONGEST_WAIT)


def _cause(error: Exception) -> Exception:
    """Return the error inside the RuntimeError of a failed transfer thread."""
    while isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error, or None if there was no answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


class _SignaturesHidden(logging.Filter):
    """Replace a link's signature in log lines.

    The loggers have this filter, not `quiet`: download threads outlive an interrupted `quiet` block.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Remove signatures from a line and let it through."""
        text = record.getMessage()
        hidden = _SIGNED.sub("?(signed)", text)
        if hidden != text:
            record.msg, record.args = hidden, ()
        return True


@cache
def _hide_signatures() -> None:
    """Install the filter once per process."""
    for name in _LOGS_WITH_LINKS:
        logging.getLogger(name).addFilter(_SignaturesHidden())


@contextmanager
def quiet() -> Iterator[None]:
    """Silence huggingface_hub's progress bars and its log, except errors."""
    _hide_signatures()
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
    """Strip a token, or raise a HubError, which does not show it, if a header cannot carry it."""
    token = token.strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise HubError(
            "The token is empty or contains a space or an unprintable character",
            expected="printable ASCII characters",
            fix="Copy it again from the Hub's settings, or log in: hf auth login.",
        )
    return token


def transport_error() -> type[Exception]:
    """Return the error class that huggingface_hub's HTTP library raises when there is no answer."""
    for client in type(get_session()).__mro__:  # a user's own client is a subclass
        error = getattr(sys.modules[client.__module__.partition(".")[0]], "TransportError", None)
        if error is not None:
            return error
    raise TypeError(f"{type(get_session())} is not a client that huggingface_hub knows.")


def is_transient(error: Exception) -> bool:
    """Tell whether the same request may succeed later, as after a broken connection."""
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in _TRANSIENT or is_refusal_of_files_host(error)
    if type(error).__name__ in ("LocalProtocolError", "UnsupportedProtocol"):  # the request is wrong
        return False
    if isinstance(error, (ValueError, PermissionError)):  # Xet's refusal of a token is a PermissionError
        return False
    if isinstance(error, (LocalEntryNotFoundError, LocalTokenNotFoundError, OfflineModeIsEnabled, HfHubHTTPError)):
        return False
    if isinstance(error, ConnectionError):
        return True
    return not isinstance(error, OSError) or error.errno is None  # a full disk has an errno, a short body does not


def is_refusal_of_files_host(error: Exception) -> bool:
    """Tell whether the host of large files refused, as it does an expired link. A new link may work."""
    response = getattr(error, "response", None)
    return (
        response is not None
        and response.status_code in (401, 403)
        and not str(response.url).startswith(constants.ENDPOINT)
    )


def retry_after(error: Exception) -> float | None:
    """Return the seconds to wait by Retry-After or RateLimit, or None without such a header."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])  # 30 years are enough
    reset = _RESET.search(headers.get("RateLimit", "").replace(" ", ""))
    return float(reset["seconds"]) if reset else None


def at(revision: str | None) -> str:
    """Format a revision for a message."""
    return "" if revision is None else f' at revision "{revision}"'


def explain(error: BaseException, *, what: str, repo: str, revision: str | None, offline: bool) -> VitZooError:
    """Convert an error about a file of a repo into a VitZooError.

    The error's text is not quoted, because it may hold signed links or the token.
    """
    status = status_of(error)
    where = f"{repo}{at(revision)}"
    if isinstance(error, LocalTokenNotFoundError):
        return HubError(f"token=True for {repo}, but nobody is logged in", fix="Log in: hf auth login.", repo=repo)
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return DownloadError(
            f"{what} of {where} cannot be written: {error.strerror}",
            fix="Make room, or name another cache_dir; downloaded files are kept.",
            path=Path(error.filename or what),
        )
    if isinstance(error, RevisionNotFoundError):
        return ZooNotFoundError(
            f'''The Hub's repo "{repo}" has no revision "{revision}"''',
            fix="Name a branch, a tag or a commit.",
            zoo=repo,
        )
    refused = status in (401, 403) and not (isinstance(error, Exception) and is_refusal_of_files_host(error))
    if isinstance(error, RepositoryNotFoundError) or refused:
        fix = "Check the name. For a private repo log in (hf auth login) or give a valid token= or HF_TOKEN."
        if isinstance(error, GatedRepoError):
            fix = "The repo is gated: ask for access on its page."
        return ZooNotFoundError(f'The Hub has no repo "{repo}" that you may read (status {status})', fix=fix, zoo=repo)
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        why = "only the cache may be used (local_files_only, HF_HUB_OFFLINE)" if offline else "the Hub did not answer"
        return HubError(
            f"{what} of {where} is not in the cache, and {why}",
            fix="Load it once with a connection, or name the revision and the cache_dir of an earlier load.",
            repo=repo,
            status=status,
        )
    if isinstance(error, EntryNotFoundError):
        return RecordError(f"{where} has no {what}", path=Path(what))
    why = type(error).__name__ if status is None else f"status {status}"
    return HubError(
        f"{what} of {where} could not be read from the Hub: {why}",
        fix="Try again later; downloaded files are kept.",
        repo=repo,
        status=status,
    )
