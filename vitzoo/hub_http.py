"""The HTTP rules that reading and publishing share: retries, limits, error texts, and logs without signed links.

See `vitzoo.sources.hub` for reading a zoo and `training.publish.remote` for writing one. The Hub serves large files by
signed links, and whoever has such a link can read its file. `retry` and `quiet` therefore keep them out of logs.

A Hub is not trusted, and huggingface_hub follows its answers. So `retry` limits every request that its call makes: see
`_check_request` and `_check_response`. Other users of huggingface_hub in this process are not limited.
"""

import errno
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from huggingface_hub import constants, get_session, set_client_factory
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import _http, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from huggingface_hub.utils import logging as hf_logging

from vitzoo.errors import DownloadError, HubError, NotCachedError, RecordError, VitZooError, ZooNotFoundError, shown

FIRST_WAIT = 1.0  # seconds; doubled for each try
LONGEST_WAIT = 60.0
LONGEST_ASKED = 600.0  # seconds; a longer pause is refused
LONGEST_SILENCE = 300.0  # seconds without a byte, where huggingface_hub sets no timeout
SLOWEST = 1000  # bytes a second, over `LONGEST_ASKED`
MOST_REQUESTS = 1000  # of one call: a listing of 100,000 files has 100 pages
MOST_BYTES = 2**26  # of a listing, and of a file that is not weights
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_SECONDS = re.compile(r"(?P<seconds>\d+)", re.ASCII)
_RESET = re.compile(r"\br=0+;t=(?P<seconds>\d+)\b", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r'(W/)?"?([0-9a-f]{40}|[0-9a-f]{64})"?')  # a git or LFS hash
_SIGNED = re.compile(r"\?[^\s'\"?]*sig(?:nature)?=[^\s'\"]*", re.IGNORECASE)
_LOGS_WITH_LINKS = (
    *("huggingface_hub.file_download", "huggingface_hub.utils._http", "httpx", "httpx2"),
    *("httpcore.http11", "httpcore.http2", "httpcore2.http11", "httpcore2.http2"),
)
_FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Make the folder writable"),
}
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
    most: float = MOST_BYTES,
) -> T:
    """Return the value of a call to the Hub, which is limited, and repeated after a pause if the error is transient.

    Args:
        ask: Makes the request.
        repo: The repo, for messages.
        refuse: Makes the raised error from one that is not transient, or from the last try's.
        tries: Number of tries.
        say: Takes a line about a pause of two seconds or more.
        most: Bytes that the call may receive.

    Raises:
        HubUnavailableError: The Hub asks for a pause longer than `LONGEST_ASKED`.
        HubError: An answer is refused: see `_check_request` and `_check_response`.
    """
    _hide_signatures()
    _limit_clients()
    attempt = 0
    while True:
        outer = _call.set(_Call(repo=repo, most=most))
        try:
            return ask()
        except Exception as caught:  # noqa: BLE001 - huggingface_hub and its HTTP library have no common base
            error = _cause(caught)
        finally:
            _call.reset(outer)
        if isinstance(error, VitZooError):
            raise error
        if attempt + 1 == tries or not is_transient(error):
            raise refuse(error)
        status, asked = status_of(error), _asked_pause(getattr(getattr(error, "response", None), "headers", {}))
        seconds = _backoff(attempt) if asked is None else asked
        reason = "no answer" if status is None else f"status {status}"
        if seconds >= 2:
            say(f"{repo}: {reason}; trying again in {seconds:.0f} s")
        time.sleep(seconds)
        attempt += 1


@dataclass(slots=True, kw_only=True)
class _Call:
    """A call to the Hub with its limits.

    Args:
        repo: The repo, for messages.
        most: Bytes that it may receive.
        requests: Number of requests so far.
        received: Bytes of the current file, or of all pages of a listing.
        size: Bytes of the file, according to the last HEAD; None for a listing.
    """

    repo: str
    most: float
    requests: int = 0
    received: int = 0
    size: int | None = None

    def refuse(self, problem: str, *, expected: str, status: int | None = None) -> HubError:
        """Make the error for an answer that is not accepted."""
        fix = "Check that HF_ENDPOINT is a Hub; do not trust this one."
        return HubError(f"{self.repo}: the Hub {problem}", expected=expected, fix=fix, repo=self.repo, status=status)


_call: ContextVar[_Call | None] = ContextVar("_call", default=None)
_silence: float | None = None  # of every request in the process; see `limit_waiting`


def limit_waiting(seconds: float | None = LONGEST_SILENCE) -> float | None:
    """Set a timeout for every request of this process, and refuse hostile answers, also outside of `retry`.

    Other libraries make requests in threads of their own, which `retry` does not limit.

    Args:
        seconds: Longest time without a byte; None for no limits outside of `retry`.

    Returns:
        The time before.
    """
    global _silence
    before, _silence = _silence, seconds
    _limit_clients()
    return before


def _current_call(url: Any) -> _Call | None:
    """Return the call that makes a request, or one without a size limit under `limit_waiting`; None for no limits."""
    call = _call.get()
    return call if call is not None or _silence is None else _Call(repo=url.host, most=math.inf)


def _limit_clients() -> None:
    """Limit all clients that huggingface_hub makes. It makes a new one after a failed connection."""
    factory = _http._GLOBAL_CLIENT_FACTORY  # no public function returns it
    if getattr(factory, "func", None) is not _make_limited_client:
        set_client_factory(partial(_make_limited_client, factory))


def _make_limited_client(make: Callable[[], Any]) -> Any:
    client = make()
    hooks = client.event_hooks
    if _check_request not in hooks["request"]:
        client.event_hooks = {
            "request": [*hooks["request"], _check_request],
            "response": [*hooks["response"], _check_response],
        }
    return client


def _check_request(request: Any) -> None:
    """Set a timeout, keep the token from other hosts, and limit the number of a call's requests."""
    call = _current_call(request.url)
    if call is None:
        return
    asked, longest = request.extensions.get("timeout", {}), _silence or LONGEST_SILENCE
    request.extensions["timeout"] = {
        phase: asked.get(phase) or longest for phase in ("connect", "read", "write", "pool")
    }
    if not _is_hub(str(request.url)):
        request.headers.pop("Authorization", None)
    request.headers["Accept-Encoding"] = "identity"  # a compressed answer may be of any size
    call.requests += 1
    if call.requests > MOST_REQUESTS:
        raise call.refuse(f"asked for more than {MOST_REQUESTS} requests", expected="an answer that ends")


def _check_response(response: Any) -> None:
    """Refuse a long pause, names that leave the cache, and answers without an end.

    huggingface_hub would sleep, write to a path with `..`, or send the token to another host.
    """
    call = _current_call(response.request.url)
    if call is None:
        return
    seconds, status = _asked_pause(response.headers), response.status_code
    if status in _TRANSIENT and seconds is not None and seconds > LONGEST_ASKED:
        raise HubUnavailableError(
            f"{call.repo}: status {status}, and the Hub asks to wait {seconds:,.0f} seconds",
            expected=f"at most {LONGEST_ASKED:.0f}",
            fix="Try again later; finished files are kept.",
            repo=call.repo,
            status=status,
        )
    if response.request.method == "HEAD":
        _check_head(response, call)
    elif status < 300 and response.headers.get("Content-Encoding", "identity") != "identity":
        raise call.refuse("compressed its answer", expected="the bytes themselves", status=status)
    else:
        _limit_body(response, call)


def _check_head(response: Any, call: _Call) -> None:
    """Check the headers from which huggingface_hub makes paths in the cache and requests with the token."""
    headers, status = response.headers, response.status_code
    commit, etag = headers.get("X-Repo-Commit"), headers.get("X-Linked-ETag") or headers.get("ETag")
    if commit is not None and not COMMIT.fullmatch(commit):
        raise call.refuse(f"names the commit {shown(commit)}", expected="40 hex digits", status=status)
    if status >= 400 or (response.has_redirect_location and _is_hub(urljoin(str(response.url), headers["Location"]))):
        return  # huggingface_hub follows a redirect on the Hub, and uses the headers of the last answer
    if commit is not None and etag is not None and not _ETAG.fullmatch(etag):
        raise call.refuse(f"names a file's hash {shown(etag)}", expected="40 or 64 hex digits", status=status)
    if "X-Xet-Hash" in headers:
        route = response.links.get("xet-auth", {}).get("url") or headers.get("X-Xet-Refresh-Route", "")
        if not _is_hub(route):
            raise call.refuse("wants the token sent to another host", expected="its own address", status=status)
    size = headers.get("X-Linked-Size") or (None if response.is_redirect else headers.get("Content-Length"))
    call.size = int(size) if size is not None else None
    if call.size is not None and call.size > call.most:
        raise call.refuse(f"has a file of {call.size} bytes", expected=f"at most {call.most:.0f}", status=status)


def _limit_body(response: Any, call: _Call) -> None:
    """End an answer that is longer than its file or the call's limit, or too slow to end."""
    stream, start, most = response.stream, monotonic(), call.most
    if call.size is not None:
        call.received = 0
        most = min(most, max(call.size, 2**20))  # redirects and errors have texts of their own

    class Limited(_http_library().SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for part in stream:
                call.received += len(part)
                if call.received > most:
                    raise call.refuse("sent an answer without an end", expected=f"at most {most:.0f} bytes")
                elapsed = monotonic() - start
                if elapsed > LONGEST_ASKED and call.received < SLOWEST * elapsed:
                    raise call.refuse("sends too slowly", expected=f"at least {SLOWEST} bytes a second")
                yield part

        def close(self) -> None:
            stream.close()

    response.stream = Limited()


def _is_hub(url: str) -> bool:
    """Tell whether a URL is on the Hub's own host, which may get the token. Mirrors redirect to huggingface.co."""
    return _origin(url) in (_origin(constants.ENDPOINT), ("https", "huggingface.co", 443))


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


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
    return _http_library().TransportError


def _http_library() -> Any:
    """Return the HTTP library of huggingface_hub: httpx, or httpx2 since version 2."""
    for client in type(get_session()).__mro__:  # a user's own client is a subclass
        library = sys.modules[client.__module__.partition(".")[0]]
        if hasattr(library, "TransportError"):
            return library
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
    local = (LocalEntryNotFoundError, LocalTokenNotFoundError, OfflineModeIsEnabled, FileMetadataError, HfHubHTTPError)
    if isinstance(error, local):
        return False
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return error.errno is None  # a full disk has an errno, a short body does not
    return isinstance(error, (ConnectionError, RuntimeError, transport_error()))  # Xet raises RuntimeError


def is_refusal_of_files_host(error: Exception) -> bool:
    """Tell whether the host of large files refused, as it does an expired link. A new link may work."""
    response = getattr(error, "response", None)
    return response is not None and response.status_code in (401, 403) and not _is_hub(str(response.url))


def _asked_pause(headers: Mapping[str, str]) -> float | None:
    """Return the longer of the seconds of Retry-After and RateLimit: huggingface_hub takes either. None for neither."""
    matches = (
        _SECONDS.fullmatch(headers.get("Retry-After", "").strip()),
        _RESET.search("".join(headers.get("RateLimit", "").split())),
    )
    return max((float(match["seconds"][:9]) for match in matches if match), default=None)


def at(revision: str | None) -> str:
    """Format a revision for a message."""
    return "" if revision is None else f' at revision "{revision}"'


def explain(error: BaseException, *, what: str, repo: str, revision: str | None, offline: bool) -> VitZooError:
    """Convert an error about a file of a repo into a VitZooError.

    The error's text is not quoted, because it may hold signed links or the token.
    """
    answer = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None
    if isinstance(answer, Exception) and not is_transient(answer):
        error = answer
    status = status_of(error)
    where = f"{repo}{at(revision)}"
    if isinstance(error, LocalTokenNotFoundError):
        return HubError(f"token=True for {repo}, but nobody is logged in", fix="Log in: hf auth login.", repo=repo)
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return DownloadError(
            f"{what} of {where} cannot be written: {error.strerror}",
            fix=f"{_FIXES.get(error.errno, 'Check the folder')}, or name another cache_dir; downloaded files are kept.",
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
        return NotCachedError(
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
