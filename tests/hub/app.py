"""The hub host: its routes, authentication, and refusals.

See `reading` and `writing` for the handlers. Paths are matched while quoted, so the `%2F` of a `tree` path is not a
separator.
"""

import re
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from tests.hub import reading, writing
from tests.hub.access import Call, Service
from tests.hub.errors import EntryNotFound, HubError, RepoNotFound

Handler = Callable[[Call], Coroutine[Any, Any, Response]]
# Each route with a repo exists for models and for datasets. On the web, models have no folder.
_API = "/api/<kind>/{org}/{name}"
_WEB = "<web>/{org}/{name}"
_REPO_URL = re.compile(r"^/api/(models|datasets)/.+|^/.+/resolve/.+")
_ROUTES: list[tuple[str, str, Handler]] = [
    ("POST", "/api/validate-yaml", writing.validate_yaml),
    ("POST", "/api/repos/create", writing.create_repo),
    ("GET", _API, reading.info),
    ("GET", _API + "/revision/{revision}", reading.info),
    ("GET", _API + "/refs", reading.refs),
    ("GET", _API + "/tree/{revision}", reading.tree),
    ("GET", _API + "/tree/{revision}/{path:path}", reading.tree),
    ("POST", _API + "/paths-info/{revision}", reading.paths_info),
    ("GET", _API + "/auth-check/write", writing.auth_check),
    ("POST", _API + "/preupload/{revision}", writing.preupload),
    ("POST", _API + "/commit/main", writing.commit),
    ("POST", _API + "/tag/{revision}", writing.create_tag),
    ("GET", _WEB + "/resolve/{revision}/{path:path}", reading.resolve),
    ("POST", _WEB + "/info/lfs/objects/batch", writing.lfs_batch),
    ("POST", _WEB + "/info/lfs/objects/verify", writing.lfs_verify),
]


def hub_app(service: Service) -> Router:
    """Return the routes of the hub host."""

    def route(path: str, handler: Handler, methods: list[str], repo_type: str) -> Route:
        async def answer(request: Request) -> Response:
            try:
                token = service.authenticate(request.headers.get("Authorization"))
                return await handler(Call(service, request, token, repo_type))
            except HubError as error:
                return _refuse(error, request.url.path)

        return Route(path, answer, methods=methods)

    async def refuse_all(call: Call) -> Response:
        raise RepoNotFound(status=404 if call.token else 401)

    routes = [
        route(path.replace("<kind>", f"{kind}s").replace("<web>", web), handler, [method], kind)
        for kind, web in (("dataset", "/datasets"), ("model", ""))
        for method, path, handler in _ROUTES
    ]
    return Router([*routes, route("/{rest:path}", refuse_all, ["GET", "POST", "PUT", "DELETE"], "model")])


def _refuse(error: HubError, path: str) -> Response:
    code = error.code
    # Clients take any 401 for a hidden repo unless it is about credentials, but only on https. Here the code says it.
    if error.status == 401 and _REPO_URL.search(path) and "Invalid credentials" not in str(error):
        code = RepoNotFound.code
    message = str(error).encode("ascii", "backslashreplace").decode()
    headers = {"X-Error-Message": "".join(letter if letter.isprintable() else "?" for letter in message)}
    if code is not None:
        headers["X-Error-Code"] = code
    if isinstance(error, EntryNotFound):
        headers["X-Repo-Commit"] = error.commit
    return JSONResponse({"error": str(error)}, error.status, headers=headers)
