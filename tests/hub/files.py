"""The file host, which has LFS objects and knows no users. A signed URL is its only permission."""

import hashlib
import hmac
import re
import secrets

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from tests.hub.store import Repo, Store

_SECRET = secrets.token_bytes(32)


def signed_url(base: str, repo: Repo, sha256: str, *, method: str) -> str:
    """Return the URL of an object, good for one method. Repos do not share objects."""
    path = f"/{repo.type}s/{repo.id}/{sha256}"
    return f"{base}{path}?Signature={_sign(method, path)}"


def files_app(store: Store) -> Router:
    """Return the routes of the file host."""

    async def answer(request: Request) -> Response:
        method, params = "GET" if request.method == "HEAD" else request.method, request.path_params
        if not hmac.compare_digest(request.query_params.get("Signature", ""), _sign(method, request.url.path)):
            return _refuse("SignatureDoesNotMatch", 403)
        objects, sha256 = store.get(f"{params['org']}/{params['name']}", params["type"]).objects, params["sha256"]
        if method == "GET":
            if sha256 not in objects:
                return _refuse("NoSuchKey", 404)
            return body_response(request, objects[sha256], headers={"ETag": f'"{sha256}"'})
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != sha256:
            return _refuse("BadDigest", 400)
        objects.setdefault(sha256, data)
        return Response()

    return Router([Route("/{type}s/{org}/{name}/{sha256}", answer, methods=["GET", "PUT"])])


def body_response(request: Request, data: bytes, *, headers: dict[str, str]) -> Response:
    """Return 200 with everything, 206 with the requested range, or 416."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if match is None:
        return Response(data, headers=headers)
    start, end = int(match[1]), min(int(match[2]) + 1, len(data)) if match[2] else len(data)
    if start >= end:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return Response(data[start:end], status_code=206, headers=headers)


def _refuse(code: str, status: int) -> Response:
    return Response(f"<Error><Code>{code}</Code></Error>", status, media_type="application/xml")


def _sign(method: str, path: str) -> str:
    return hmac.new(_SECRET, f"{method} {path}".encode(), hashlib.sha256).hexdigest()
