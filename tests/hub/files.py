"""The file host, which has LFS objects and knows no users: a signed URL is all it asks for."""

import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from tests.hub.call import REPO_TYPES, Service
from tests.hub.errors import HubError
from tests.hub.ranges import body_response
from tests.hub.store import Repo

_OBJECT = "/{kind}/{org}/{name}/{sha256}"


def object_path(repo: Repo, sha256: str) -> str:
    """Where the file host has an object: repos do not share them."""
    return f"/{repo.type}s/{repo.id}/{sha256}"


def files_app(service: Service) -> Router:
    """The routes of the file host."""

    def signed(
        handle: Callable[[Service, Request], Coroutine[Any, Any, Response]],
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def endpoint(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            try:
                service.signer.check(request.url.path, request.query_params, method=method)
                return await handle(service, request)
            except HubError as error:
                return Response(f"<Error><Code>{error}</Code></Error>", error.status, media_type="application/xml")

        return endpoint

    return Router(
        [
            Route(_OBJECT, signed(_get), methods=["GET"]),
            Route(_OBJECT, signed(_put), methods=["PUT"]),
        ]
    )


async def _get(service: Service, request: Request) -> Response:
    sha256 = request.path_params["sha256"]
    data = _repo(service, request).objects.get(sha256)
    if data is None:
        return Response("<Error><Code>NoSuchKey</Code></Error>", 404, media_type="application/xml")
    return body_response(request, data, headers={"ETag": f'"{sha256}"'})


async def _put(service: Service, request: Request) -> Response:
    data, sha256 = await request.body(), request.path_params["sha256"]
    if hashlib.sha256(data).hexdigest() != sha256:
        return Response("<Error><Code>BadDigest</Code></Error>", 400, media_type="application/xml")
    _repo(service, request).objects.setdefault(sha256, data)
    return Response(headers={"ETag": f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'})


def _repo(service: Service, request: Request) -> Repo:
    params = request.path_params
    return service.store.get(f"{params['org']}/{params['name']}", REPO_TYPES[params["kind"]])
