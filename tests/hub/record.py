"""The log of requests, which tests count."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, overload

Host = Literal["hub", "files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request and its answer."""

    host: Host
    method: str
    path: str  # quoted, without the query
    query: str
    range: str | None
    token: str | None
    status: int | None  # None if the connection was closed before an answer
    sent: int  # bytes of the body

    def __str__(self) -> str:
        query = f"?{self.query}" if self.query and self.host == "hub" else ""
        asked = f" [{self.range}]" if self.range else ""
        return f"{self.host} {self.method} {self.path}{query}{asked} -> {self.status}, {self.sent} B"


class RequestLog(Sequence[Request]):
    """Requests in the order of their answers. The server's thread writes it and a test's reads it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._listeners: list[RequestLog] = []

    def append(self, request: Request) -> None:
        """Add a request, also to the logs of `recorded`."""
        with self._lock:
            self._requests.append(request)
            listeners = list(self._listeners)
        for listener in listeners:
            listener.append(request)

    def clear(self) -> None:
        """Delete all requests."""
        with self._lock:
            self._requests.clear()

    @contextmanager
    def recorded(self) -> Iterator["RequestLog"]:
        """Return a log of the requests within the block."""
        log = RequestLog()
        with self._lock:
            self._listeners.append(log)
        try:
            yield log
        finally:
            with self._lock:
                self._listeners.remove(log)

    def of(self, *, host: Host | None = None, method: str | None = None, path: str = "") -> list[Request]:
        """Return the requests of a host and a method whose path matches a pattern."""
        return [
            request
            for request in self
            if host in (None, request.host) and method in (None, request.method) and re.search(path, request.path)
        ]

    def __len__(self) -> int:
        with self._lock:
            return len(self._requests)

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> list[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | list[Request]:
        with self._lock:
            return self._requests[index]

    def __iter__(self) -> Iterator[Request]:
        return iter(self[:])

    def __str__(self) -> str:
        return "\n".join(map(str, self))
