"""The hub host: its routes, who is asking, and how an error is said.

Handlers are in `reading` and `writing`. Paths are matched as they were sent, still quoted, so that the `%2F` of a
`tree` path is no separator.
"""

import re
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from tests.hub import reading, writing
from tests.hub.call import Call, Handler, Json, Service
from tests.hub.errors import EntryNotFound, HubError, RepoNotFound

# Each route that names a repo is made once for models and once for datasets; on the web, models have no folder.
_API = "/api/<kind>/{org}/{name}"
_WEB = "<web>/{org}/{name}"
_REPO_URL = re.compile(r"^/api/(models|datasets|spaces)/.+|^/.+/resolve/.+")

_ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "/api/whoami-v2", writing.whoami),
    ("POST", "/api/validate-yaml", writing.validate_yaml),
    ("POST", "/api/repos/create", writing.create_repo),
    ("GET", _API, reading.info),
    ("GET", _API + "/revision/{revision}", reading.info),
    ("GET", _API + "/refs", reading.refs),
    ("GET", _API + "/tree/{revision}", reading.tree),
    ("GET", _API + "/tree/{revision}/{path:path}", reading.tree),
    ("POST", _API + "/paths-info/{revision}", reading.paths_info),
    ("GET", _API + "/auth-check", reading.auth_check),
    ("GET", _API + "/auth-check/{write}", reading.auth_check),
    ("POST", _API + "/preupload/{revision}", writing.preupload),
    ("POST", _API + "/commit/{revision}", writing.commit),
    ("POST", _API + "/tag/{revision}", writing.create_tag),
    ("GET", _WEB + "/resolve/{revision}/{path:path}", reading.resolve),
    ("POST", _WEB + "/info/lfs/objects/batch", writing.lfs_batch),
    ("POST", _WEB + "/info/lfs/objects/verify", writing.lfs_verify),
]


def hub_app(service: Service) -> Router:
    """The routes of the hub host."""

    def endpoint(handler: Handler) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def answer(request: Request) -> Response:
            try:
                token = service.accounts.authenticate(request.headers.get("Authorization"))
                return await handler(Call(service, request, token))
            except HubError as error:
                return _refusal(error, request.url.path)

        return answer

    async def no_repo(call: Call) -> Response:
        raise RepoNotFound(status=404 if call.token else 401)

    routes = [
        Route(
            path.replace("<kind>", kind).replace("<web>", "/datasets" if kind == "datasets" else ""),
            endpoint(_of_kind(handler, kind)),
            methods=[method],
        )
        for kind in ("datasets", "models")
        for method, path, handler in _ROUTES
    ]
    rest = Route("/{rest:path}", endpoint(no_repo), methods=["GET", "POST", "PUT", "DELETE"])
    return Router([*routes, rest])


def _of_kind(handler: Handler, kind: str) -> Handler:
    async def handle(call: Call) -> Response:
        call.request.path_params["kind"] = kind
        return await handler(call)

    return handle


def _refusal(error: HubError, path: str) -> Response:
    code = error.code
    # Clients take any 401 for a hidden repo, unless it is about credentials, but only on https. Here it has to be said.
    if error.status == 401 and _REPO_URL.search(path) and "Invalid credentials" not in str(error):
        code = RepoNotFound.code
    message = str(error).encode("ascii", "backslashreplace").decode()
    headers = {"X-Error-Message": "".join(letter if letter.isprintable() else "?" for letter in message)}
    if code is not None:
        headers["X-Error-Code"] = code
    if isinstance(error, EntryNotFound) and error.commit is not None:
        headers["X-Repo-Commit"] = error.commit
    return Json({"error": str(error)}, error.status, headers=headers)
