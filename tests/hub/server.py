"""The server: both hosts in one thread, with their sockets, faults and log."""

import asyncio
import socket
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.hub.access import Role, Service, Token
from tests.hub.app import hub_app
from tests.hub.faults import Answer, Before, ConnectionCut, Drop, Fault, Faults, FaultySend, Kind
from tests.hub.files import files_app
from tests.hub.record import Host, Request, RequestLog
from tests.hub.store import Repo, RepoType

# Clients request it once per process, at any time, for their User-Agent. Counts of requests leave it out.
_UNRECORDED = "/api/agent-harnesses"


def bind_loopback(port: int = 0) -> socket.socket:
    """Return a listening socket on 127.0.0.1. Early connections wait for the server."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    bound.listen()
    return bound


class Hub:
    """A Hub of two loopback hosts in memory. It closes the given sockets of the hub and the file host."""

    def __init__(self, sockets: tuple[socket.socket, socket.socket] | None = None) -> None:
        self._sockets = sockets or (bind_loopback(), bind_loopback())
        # Two host names, as the real ones have: huggingface_hub before 2 compares names without ports.
        hosts = zip(("127.0.0.1", "localhost"), self._sockets, strict=True)
        self.url, self.files_url = (f"http://{host}:{bound.getsockname()[1]}" for host, bound in hosts)
        for bound in self._sockets:
            # Without it, an answer may wait 40 ms.
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._files_port = self._sockets[1].getsockname()[1]
        self._service = Service(hub_url=self.url, files_url=self.files_url)
        self._apps: dict[Host, ASGIApp] = {"hub": hub_app(self._service), "files": files_app(self._service.store)}
        self._faults = Faults()
        self.requests = RequestLog()
        self.failures: list[Exception] = []  # mistakes in the server's own code
        self._transports: dict[tuple[str, int], asyncio.Transport] = {}
        self._server = _Server(self._serve, self._transports)
        self._thread = threading.Thread(target=self._server.run, args=(list(self._sockets),), daemon=True, name="hub")

    def start(self) -> "Hub":
        """Serve in a thread."""
        self._thread.start()
        self._server.ready.wait()
        return self

    def close(self) -> None:
        """Stop serving, and close the sockets and the thread."""
        if self._thread.is_alive():
            self._faults.clear()
            self._server.should_exit = True
            self._thread.join()
        for bound in self._sockets:
            bound.close()

    def __enter__(self) -> "Hub":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self) -> None:
        """Delete repos, tokens, faults and the log."""
        self._faults.clear()
        self._service.store.repos.clear()
        self._service.tokens.clear()
        self.requests.clear()
        self.failures.clear()

    def add_token(self, user: str, *, role: Role = "read", orgs: tuple[str, ...] = ()) -> Token:
        """Make a token of a user in some organisations."""
        token = Token(user, role, orgs)
        return self._service.tokens.setdefault(token.value, token)

    def create_repo(self, repo_id: str, repo_type: RepoType = "model", *, private: bool = False) -> Repo:
        """Make a repo, without a request."""
        return self._service.store.create(repo_id, repo_type, private=private)

    def repo(self, repo_id: str, repo_type: RepoType = "model") -> Repo:
        """Return a repo, without a request."""
        return self._service.store.get(repo_id, repo_type)

    def recorded(self) -> AbstractContextManager[RequestLog]:
        """Return a log of the requests within the block."""
        return self.requests.recorded()

    def fault(
        self,
        kind: Kind,
        *,
        host: Host | None = None,
        method: str | None = None,
        path: str = "",
        times: int | None = None,
        skip: int = 0,
    ) -> Fault:
        """Start a fault, until it is used up or its block ends. Faults that hit the same request act together.

        Args:
            kind: A kind of `tests.hub.faults`.
            host: The host of the requests; None for both.
            method: The method of the requests; None for all.
            path: A pattern in the quoted path or the query.
            times: Number of requests to hit; None for all.
            skip: Number of matching requests to spare first.
        """
        return self._faults.add(Fault(kind, host=host, method=method, path=path, times=times, skip=skip))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request to either host, as an ASGI application."""
        host: Host = "files" if scope["server"][1] == self._files_port else "hub"
        path, query = scope["raw_path"].decode(), scope["query_string"].decode()
        kinds = self._faults.hit(host=host, method=scope["method"], target=f"{path}?{query}" if query else path)
        recorder = _Recorder(scope, host=host, log=self.requests, send=send)
        try:
            if kinds:
                receive = await _read_ahead(receive)
            for kind in kinds:
                if isinstance(kind, Before):
                    await asyncio.to_thread(kind.call)
            if any(isinstance(kind, Drop) for kind in kinds):
                raise ConnectionCut
            faulty = FaultySend(recorder, kinds)
            error = next((kind for kind in kinds if isinstance(kind, Answer)), None)
            if error is not None:
                await _answer(error, faulty)
            else:
                await self._apps[host]({**scope, "path": path}, receive, faulty)
        except ConnectionCut:
            recorder.finish()
            if transport := self._transports.get(scope["client"]):
                transport.close()
            while (await receive())["type"] != "http.disconnect":
                pass
        except ClientDisconnect:
            pass  # the client was killed while it was sending
        except Exception as error:
            self.failures.append(error)
            traceback.print_exception(error)
            raise
        finally:
            recorder.finish()


async def _read_ahead(receive: Receive) -> Receive:
    """Read the whole request before a fault acts.

    Then it is served even if its client ends, and closing the connection does not reset it.
    """
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    waiting = iter(messages)

    async def replay() -> Message:
        return next(waiting, None) or await receive()

    return replay


async def _answer(answer: Answer, send: Send) -> None:
    headers = {"content-length": str(len(answer.body)), **answer.headers}
    listed = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": listed})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


class _Recorder:
    """An ASGI `send` that logs the request before its client has the whole answer."""

    def __init__(self, scope: Scope, *, host: Host, log: RequestLog, send: Send) -> None:
        self._scope, self._log, self._send = scope, log, send
        self._host: Host = host
        self._start: Message | None = None
        self._status: int | None = None
        self._sent = 0
        self._done = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # The headers are the whole answer to a HEAD, so they wait until the request is logged.
            self._start = message
            return
        self._sent += len(message.get("body", b"")) if self._scope["method"] != "HEAD" else 0
        if self._start is not None:
            self._status = self._start["status"]
        if not message.get("more_body", False):
            self.finish()
        if self._start is not None:
            await self._send(self._start)
            self._start = None
        await self._send(message)

    def finish(self) -> None:
        """Log the request, once."""
        if self._done or self._scope["path"] == _UNRECORDED:
            return
        self._done = True
        headers = {name.decode(): value.decode("latin-1") for name, value in self._scope["headers"]}
        credential = headers.get("authorization")
        self._log.append(
            Request(
                host=self._host,
                method=self._scope["method"],
                path=self._scope["raw_path"].decode(),
                query=self._scope["query_string"].decode(),
                range=headers.get("range"),
                token=credential.removeprefix("Bearer ") if credential else None,
                status=self._status,
                sent=self._sent,
            )
        )


class _Server(uvicorn.Server):
    """Sets `ready` when it listens, and keeps the connections so that a fault can close one."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Any], transports: dict[tuple[str, int], asyncio.Transport]
    ) -> None:
        class Protocol(H11Protocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
                super().connection_made(transport)
                transports[transport.get_extra_info("peername")] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                transports.pop(self.transport.get_extra_info("peername"), None)
                super().connection_lost(exc)

        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                loop="asyncio",
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            )
        )
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()
