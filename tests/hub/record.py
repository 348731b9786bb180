"""What was asked of the server, request by request: what tests count."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, overload

Host = Literal["hub", "files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request and its answer."""

    host: Host
    method: str
    path: str
    """As sent, still quoted, without the query."""
    query: str
    range: str | None
    token: str | None
    """The credential that came along, on either host: the file host must never see one."""
    status: int | None
    """None where the connection was cut before an answer began."""
    sent: int
    """Bytes of body that left."""

    def __str__(self) -> str:
        query = f"?{self.query}" if self.query and self.host == "hub" else ""
        asked = f" [{self.range}]" if self.range else ""
        return f"{self.host} {self.method} {self.path}{query}{asked} -> {self.status}, {self.sent} B"


class RequestLog(Sequence[Request]):
    """Requests in the order in which they were answered; filled by the server's thread, read by a test's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._listeners: list[RequestLog] = []

    def append(self, request: Request) -> None:
        """Add one, here and to whoever listens."""
        with self._lock:
            self._requests.append(request)
            listeners = list(self._listeners)
        for listener in listeners:
            listener.append(request)

    def clear(self) -> None:
        """Forget what there is."""
        with self._lock:
            self._requests.clear()

    @contextmanager
    def recorded(self) -> Iterator["RequestLog"]:
        """A log of its own of what is asked meanwhile."""
        log = RequestLog()
        with self._lock:
            self._listeners.append(log)
        try:
            yield log
        finally:
            with self._lock:
                self._listeners.remove(log)

    def of(self, *, host: Host | None = None, method: str | None = None, path: str = "") -> list[Request]:
        """Those of a host, of a method and with a path in which the pattern is found."""
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
