"""The two hosts in one thread: sockets, the ASGI app in front of both, and the faults and the record around it."""

import asyncio
import socket
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.hub.accounts import Role, Token
from tests.hub.app import hub_app
from tests.hub.call import Service, Settings
from tests.hub.faults import Answer, Before, ConnectionCut, Drop, Fault, Faults, FaultySend, Kind
from tests.hub.files import files_app
from tests.hub.record import Host, Request, RequestLog
from tests.hub.store import Repo, RepoType

# Clients ask for it once a process, at any time, to fill in their User-Agent: it would make every count uncertain.
_UNRECORDED = "/api/agent-harnesses"


def bind_loopback(port: int = 0) -> socket.socket:
    """A listening socket on 127.0.0.1: who connects before the server runs waits for it."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    bound.listen()
    return bound


class Hub:
    """A Hub of two loopback hosts, with everything in memory.

    Args:
        sockets: the hub's and the file host's, bound beforehand; the hub closes them.
    """

    def __init__(self, sockets: tuple[socket.socket, socket.socket] | None = None) -> None:
        self._sockets = sockets or (bind_loopback(), bind_loopback())
        self.url, self.files_url = (f"http://127.0.0.1:{bound.getsockname()[1]}" for bound in self._sockets)
        for bound in self._sockets:
            # asyncio does so by itself only where IPPROTO_TCP was named; without it, an answer may wait 40 ms.
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._files_port = self._sockets[1].getsockname()[1]
        self._service = Service(hub_url=self.url, files_url=self.files_url)
        self._apps: dict[Host, ASGIApp] = {"hub": hub_app(self._service), "files": files_app(self._service)}
        self._faults = Faults()
        self.requests = RequestLog()
        self.failures: list[Exception] = []
        """Exceptions out of the server's own code, which clients see as a 500: a mistake in here."""
        self._transports: dict[tuple[str, int], asyncio.Transport] = {}
        self._server = _Server(self._serve, self._transports)
        self._thread = threading.Thread(target=self._server.run, args=(list(self._sockets),), daemon=True, name="hub")

    def start(self) -> "Hub":
        """Serve, in a thread."""
        self._thread.start()
        self._server.ready.wait()
        return self

    def close(self) -> None:
        """Stop serving; the sockets and the thread are gone afterwards."""
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
        """As if just started: no repos, tokens, faults and requests, and the real Hub's settings."""
        self._faults.clear()
        self._service.reset()
        self.requests.clear()
        self.failures.clear()

    @property
    def settings(self) -> Settings:
        """The numbers it works by."""
        return self._service.settings

    def configure(self, **settings: Any) -> None:
        """Change some of the numbers (`Settings`)."""
        self._service.settings = replace(self._service.settings, **settings)

    def add_token(self, user: str, *, role: Role = "read", orgs: tuple[str, ...] = ()) -> Token:
        """A token of a user, who is also of these organisations."""
        return self._service.accounts.add(user, role=role, orgs=orgs)

    def create_repo(self, repo_id: str, repo_type: RepoType = "model", *, private: bool = False) -> Repo:
        """A new repo, without a request."""
        return self._service.store.create(repo_id, repo_type, private=private, author=repo_id.split("/")[0])

    def repo(self, repo_id: str, repo_type: RepoType = "model") -> Repo:
        """A repo, without a request."""
        return self._service.store.get(repo_id, repo_type)

    def sign(self, path: str, *, method: str) -> str:
        """A URL of the file host, good for one method."""
        return self._service.signer.url(self.files_url, path, method=method, seconds=self.settings.url_seconds)

    def recorded(self) -> AbstractContextManager[RequestLog]:
        """A log of what is asked meanwhile."""
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
        """Let something go wrong from now on; also a context manager.

        Faults that are due for the same request act together; `skip` puts them in a row.

        Args:
            kind: what goes wrong, of `tests.hub.faults`.
            host: only there.
            method: only of such requests.
            path: a pattern found in the path, still quoted, or its query.
            times: how many requests are hit; None is all.
            skip: how many that would be hit are spared first.
        """
        return self._faults.add(Fault(kind, host=host, method=method, path=path, times=times, skip=skip))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request to either host."""
        host: Host = "files" if scope["server"][1] == self._files_port else "hub"
        path, query = scope["raw_path"].decode(), scope["query_string"].decode()
        kinds = self._faults.due(host=host, method=scope["method"], target=f"{path}?{query}" if query else path)
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
            pass  # killed while it was sending
        except Exception as error:
            self.failures.append(error)
            traceback.print_exception(error)
            raise
        finally:
            recorder.finish()


async def _read_ahead(receive: Receive) -> Receive:
    """Take all of a request in first.

    Then it makes no difference whether its client outlives what a fault does, and a connection can be closed without
    the reset that unread bytes would make of it.
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
    """An ASGI `send` that enters the request in the log before its client can have all of the answer."""

    def __init__(self, scope: Scope, *, host: Host, log: RequestLog, send: Send) -> None:
        self._scope, self._log, self._send = scope, log, send
        self._host: Host = host
        self._start: Message | None = None
        self._status: int | None = None
        self._sent = 0
        self._done = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # The headers alone are all of the answer to a HEAD: they wait for the request to be entered.
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
        """Enter it, once."""
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
    """Says when it is up, and remembers the connections, so that one can be closed in the middle of an answer."""

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
