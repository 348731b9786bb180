"""Handlers that read: repos, trees, refs, and files."""

from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.responses import JSONResponse, RedirectResponse, Response

from tests.hub.access import Call
from tests.hub.errors import EntryNotFound
from tests.hub.files import body_response, signed_url
from tests.hub.store import Commit, git_sha1

PAGE_SIZE = 1000  # entries


async def info(call: Call) -> Response:
    """Describe a repo at a revision."""
    repo, query = call.repo, call.request.query_params
    commit = repo.resolve(call["revision"] if "revision" in call.request.path_params else "main")
    about: dict[str, Any] = {
        "_id": git_sha1(repo.id.encode())[:24],
        "id": repo.id,
        "author": repo.id.split("/")[0],
        "sha": commit.sha,
        "lastModified": commit.date.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": path} for path in sorted(commit.files)],
    }
    if expanded := query.getlist("expand") + query.getlist("expand[]"):
        about = {key: value for key, value in about.items() if key in ("_id", "id", *expanded)}
    return JSONResponse(about)


async def refs(call: Call) -> Response:
    """List branches and tags."""

    def listed(names: dict[str, str], folder: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha} for name, sha in names.items()]

    repo = call.repo
    return JSONResponse({"branches": listed(repo.branches, "heads"), "converts": [], "tags": listed(repo.tags, "tags")})


async def tree(call: Call) -> Response:
    """List a folder, or everything below it, in pages."""
    query = dict(call.request.query_params)
    commit = call.repo.resolve(call["revision"])
    folder = call["path"].strip("/") if "path" in call.request.path_params else ""
    prefix = f"{folder}/" if folder else ""
    files = [path for path in commit.files if path.startswith(prefix)]
    if folder and not files:
        raise EntryNotFound(f'{folder} does not exist on "{call["revision"]}"', commit=commit.sha)
    paths = {*files, *(path for path in _folders(files) if path.startswith(prefix))}
    if query.get("recursive", "").lower() not in ("1", "true"):
        paths = {path for path in paths if "/" not in path.removeprefix(prefix).lstrip("/")}
    ordered = sorted(paths, key=lambda path: (path.count("/"), path))
    start = int(query.get("cursor", 0))
    headers = {}
    if start + PAGE_SIZE < len(ordered):
        after = urlencode({**query, "cursor": start + PAGE_SIZE})
        headers["Link"] = f'<{call.service.hub_url}{call.request.url.path}?{after}>; rel="next"'
    return JSONResponse([_entry(commit, path) for path in ordered[start : start + PAGE_SIZE]], headers=headers)


async def paths_info(call: Call) -> Response:
    """Describe some files and folders, and leave out unknown ones."""
    commit = call.repo.resolve(call["revision"])
    paths = parse_qs((await call.request.body()).decode()).get("paths", [])
    known = {*commit.files, *_folders(commit.files)}
    return JSONResponse([_entry(commit, path) for path in (path.rstrip("/") for path in paths) if path in known])


def _folders(paths: Any) -> set[str]:
    return {path[:end] for path in paths for end in range(1, len(path)) if path[end] == "/"}


def _entry(commit: Commit, path: str) -> dict[str, Any]:
    file = commit.files.get(path)
    if file is None:
        return {"type": "directory", "oid": git_sha1(path.encode(), kind="tree"), "size": 0, "path": path}
    entry = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
    return (
        entry if file.sha256 is None else {**entry, "lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 130}}
    )


async def resolve(call: Call) -> Response:
    """Send a regular file, or redirect to the signed URL of an LFS file on the file host."""
    repo = call.repo
    commit = repo.resolve(call["revision"])
    file = repo.file(call["path"], commit.sha)
    headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
    if file.sha256:
        headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.sha256}"'}
        url = signed_url(call.service.files_url, repo, file.sha256, method="GET")
        return RedirectResponse(url, 302, headers=headers)
    return body_response(call.request, repo.objects[file.key], headers={**headers, "ETag": f'"{file.oid}"'})
