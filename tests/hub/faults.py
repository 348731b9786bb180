"""Faults between a client and the Hub: kinds of faults, and the requests that they hit.

`Faults` returns the kinds for a request, and `FaultySend` changes an answer by them.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.types import Message, Send

from tests.hub.record import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Answer with an error and do nothing."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def too_many_requests(*, retry_after: int = 1, rate_limit_headers: bool = False) -> Answer:
    """Return a 429 that asks to wait, by `Retry-After` or by the `RateLimit` headers."""
    if rate_limit_headers:
        headers = {"RateLimit": f'"api";r=0;t={retry_after}', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
        return Answer(status=429, headers=headers)
    return Answer(status=429, headers={"Retry-After": str(retry_after)})


def gated(*, status: int = 403) -> Answer:
    """Return the refusal of a repo whose terms the user has not accepted."""
    headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to it is restricted."}
    return Answer(status=status, headers=headers)


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection before the request is served."""


@dataclass(frozen=True, slots=True)
class Lose:
    """Serve the request, and close the connection before the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Close the connection after some bytes of a longer body."""

    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    """Send a body that is complete as HTTP and shorter than the file."""

    keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Change one byte of the body."""

    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """Send a body in pieces, with a pause before each."""

    piece: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """Replace headers of the answer; None deletes one."""

    values: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endless:
    """Send pieces of this size after the body, until the client leaves, without a length."""

    piece: int


@dataclass(frozen=True, slots=True)
class Before:
    """Call a function in a thread before the request is served, such as for a race.

    The request has arrived whole, so it is served even if the call kills its client.
    """

    call: Callable[[], object]


@dataclass(frozen=True, slots=True)
class After:
    """Call a function in a thread after the request was served and before the answer."""

    call: Callable[[], object]


Kind = Answer | Drop | Lose | Cut | Truncate | Flip | Slow | Headers | Endless | Before | After


class Fault:
    """A kind of fault and a filter of requests. As a context manager it ends with the block."""

    def __init__(
        self, kind: Kind, *, host: Host | None, method: str | None, path: str, times: int | None, skip: int
    ) -> None:
        self.kind = kind
        self.host, self.method, self.path = host, method, re.compile(path)
        self.times, self.skip = times, skip
        self.hits = 0  # requests
        self._seen = 0

    def hit(self, *, host: Host, method: str, target: str) -> bool:
        """Count a request that the filter matches, and tell whether it is hit."""
        if self.host not in (None, host) or self.method not in (None, method) or not self.path.search(target):
            return False
        self._seen += 1
        if self._seen <= self.skip or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True

    def __enter__(self) -> "Fault":
        return self

    def __exit__(self, *_: object) -> None:
        self.times = 0


class Faults:
    """The active faults."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Start a fault."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """End all faults."""
        with self._lock:
            self._faults.clear()

    def hit(self, *, host: Host, method: str, target: str) -> list[Kind]:
        """Return the kinds that hit a request, in the order of their start."""
        with self._lock:
            return [fault.kind for fault in self._faults if fault.hit(host=host, method=method, target=target)]


class ConnectionCut(Exception):
    """Raised inside the server when a fault closes the connection."""


class FaultySend:
    """An ASGI `send` with faults."""

    def __init__(self, send: Send, kinds: list[Kind]) -> None:
        self._send = send
        self._kinds = kinds
        self._offset = 0

    async def __call__(self, message: Message) -> None:
        """Send a message, altered."""
        if message["type"] == "http.response.start":
            await self._start(message)
        else:
            await self._body(message)

    async def _start(self, message: Message) -> None:
        for kind in self._kinds:
            if isinstance(kind, After):
                await asyncio.to_thread(kind.call)
            elif isinstance(kind, Lose):
                raise ConnectionCut
            elif isinstance(kind, Truncate):
                message["headers"] = [
                    (name, str(min(int(value), kind.keep)).encode() if name == b"content-length" else value)
                    for name, value in message["headers"]
                ]
            elif isinstance(kind, Headers | Endless):
                values = kind.values if isinstance(kind, Headers) else {"content-length": None}
                changed = {name.lower().encode(): value for name, value in values.items()}
                message["headers"] = [
                    *((name, value) for name, value in message["headers"] if name.lower() not in changed),
                    *((name, value.encode()) for name, value in changed.items() if value is not None),
                ]
        await self._send(message)

    async def _body(self, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        start, self._offset = self._offset, self._offset + len(body)
        piece, pause, cut = max(len(body), 1), 0.0, False
        endless = any(isinstance(kind, Endless) for kind in self._kinds)
        for kind in self._kinds:
            if isinstance(kind, Flip) and start <= kind.at < start + len(body):
                at = kind.at - start
                body = body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]
            elif isinstance(kind, Truncate):
                body = body[: max(kind.keep - start, 0)]
            elif isinstance(kind, Cut) and start + len(body) > kind.after:
                body, cut = body[: kind.after - start], True
            elif isinstance(kind, Slow):
                piece, pause = kind.piece, kind.seconds
        for offset in range(0, max(len(body), 1), piece):
            last = offset + piece >= len(body)
            if pause:
                await asyncio.sleep(pause)
            await self._send(
                {
                    "type": "http.response.body",
                    "body": body[offset : offset + piece],
                    "more_body": more or cut or endless or not last,
                }
            )
        if cut:
            raise ConnectionCut
        for kind in self._kinds:
            while isinstance(kind, Endless) and not more:
                await self._send({"type": "http.response.body", "body": bytes(kind.piece), "more_body": True})
                await asyncio.sleep(0)
