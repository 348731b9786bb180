"""What can go wrong between a client and the Hub, as a table: a kind of fault, and the requests that it befalls.

Kinds are frozen dataclasses. `Faults` says which are due for a request; `FaultySend` does those that change an answer.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

from starlette.types import Message, Send

from tests.hub.record import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An error in place of serving; nothing is done."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def too_many_requests(*, retry_after: int = 1, rate_limit_headers: bool = False) -> Answer:
    """A 429, telling when to come back by `Retry-After` or by the `RateLimit` headers."""
    if rate_limit_headers:
        headers = {"RateLimit": f'"api";r=0;t={retry_after}', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
        return Answer(status=429, headers=headers)
    return Answer(status=429, headers={"Retry-After": str(retry_after)})


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection closes before anything is done."""


@dataclass(frozen=True, slots=True)
class Lose:
    """What was asked for is done, and the connection closes before a byte of the answer leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The connection closes after so many bytes of a longer body."""

    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    """A body that is complete as HTTP and shorter than the file."""

    keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One wrong byte, at this offset of the body; the length is right."""

    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """A body in pieces, with a pause before each."""

    piece: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Before:
    """Calls something, in a thread of its own, before the request is looked at: a race, or a token that expires.

    The request has arrived whole: it is served even where the call kills its client. With `Drop` it is not.
    """

    call: Callable[[], object]


@dataclass(frozen=True, slots=True)
class After:
    """Calls something, in a thread of its own, once the request is done and before its answer leaves."""

    call: Callable[[], object]


Kind = Answer | Drop | Lose | Cut | Truncate | Flip | Slow | Before | After


class Fault:
    """A kind of fault and whom it befalls; as a context manager it ends with the block."""

    def __init__(
        self, kind: Kind, *, host: Host | None, method: str | None, path: str, times: int | None, skip: int
    ) -> None:
        self.kind = kind
        self.host, self.method, self.path = host, method, re.compile(path)
        self.times, self.skip = times, skip
        self.hits = 0
        """How many requests it befell."""
        self._seen = 0

    def befalls(self, *, host: Host, method: str, target: str) -> bool:
        """Whether this request is hit, which counts it."""
        if self.host not in (None, host) or self.method not in (None, method) or not self.path.search(target):
            return False
        self._seen += 1
        if self._seen <= self.skip or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True

    def off(self) -> None:
        """No further request is hit."""
        self.times = 0

    def __enter__(self) -> "Fault":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.off()


class Faults:
    """All that are on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Switch one on."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Switch all off."""
        with self._lock:
            for fault in self._faults:
                fault.off()
            self._faults.clear()

    def due(self, *, host: Host, method: str, target: str) -> list[Kind]:
        """The kinds that befall this request, in the order in which they were switched on."""
        with self._lock:
            return [fault.kind for fault in self._faults if fault.befalls(host=host, method=method, target=target)]


class ConnectionCut(Exception):
    """Raised inside the server when a fault wants the connection closed now."""


class FaultySend:
    """An ASGI `send` that does to an answer what the faults say."""

    def __init__(self, send: Send, kinds: list[Kind]) -> None:
        self._send = send
        self._kinds = kinds
        self._offset = 0

    async def __call__(self, message: Message) -> None:
        """Pass one message on, altered."""
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
        await self._send(message)

    async def _body(self, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        start, self._offset = self._offset, self._offset + len(body)
        piece, pause, cut = max(len(body), 1), 0.0, False
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
                    "more_body": more or cut or not last,
                }
            )
        if cut:
            raise ConnectionCut
