"""A body, whole or the one range of it that was asked for."""

import re

from starlette.requests import Request
from starlette.responses import Response


def body_response(request: Request, data: bytes, *, headers: dict[str, str]) -> Response:
    """200 with everything, 206 with a range, or 416; several ranges at once get everything, as object stores do."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if match is None or match.group() == "bytes=-":
        return Response(data, headers=headers)
    first, last = match.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    end = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= end:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return Response(data[start:end], status_code=206, headers=headers)
