"""What the hub host tells: repos, trees, refs, and files."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode

import yaml
from starlette.responses import RedirectResponse, Response

from tests.hub.accounts import check_write
from tests.hub.call import Call, Json
from tests.hub.errors import EntryNotFound
from tests.hub.files import object_path
from tests.hub.ranges import body_response
from tests.hub.store import Commit, File, Repo, git_sha1, lfs_pointer

T = TypeVar("T")


async def info(call: Call) -> Response:
    """One repo at one revision."""
    repo, query = call.repo(), call.request.query_params
    commit = repo.resolve(call["revision"] if "revision" in call.request.path_params else "main")
    card = read_card(repo, commit)
    wanted = query.getlist("expand") + query.getlist("expand[]")
    blobs = query.get("blobs", "").lower() in ("1", "true")
    about: dict[str, Any] = {
        "_id": git_sha1(repo.id.encode())[:24],
        "id": repo.id,
        "author": repo.id.split("/")[0],
        "sha": commit.sha,
        "lastModified": _time(commit),
        "createdAt": repo.created.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(card),
        "cardData": card,
        "siblings": [_sibling(path, file, blobs=blobs) for path, file in sorted(commit.files.items())],
        "usedStorage": sum({file.key: file.size for file in commit.files.values()}.values()),
    }
    if repo.type == "model":
        about |= {"modelId": repo.id, **{key: card[key] for key in ("library_name", "pipeline_tag") if key in card}}
    if wanted:
        about = {key: value for key, value in about.items() if key in ("_id", "id", *wanted)}
    return Json(about)


def read_card(repo: Repo, commit: Commit) -> dict[str, Any]:
    """The YAML block on top of README.md; a broken one counts as none."""
    readme = commit.files.get("README.md")
    text = repo.objects[readme.key].decode(errors="replace") if readme else ""
    match = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    try:
        card = yaml.safe_load(match.group(1)) if match else None
    except yaml.YAMLError:
        card = None
    return card if isinstance(card, dict) else {}


def _tags(card: dict[str, Any]) -> list[str]:
    tags = [str(tag) for tag in card.get("tags") or []]
    tags += [str(card[key]) for key in ("library_name", "pipeline_tag") if key in card]
    return tags + ([f"license:{card['license']}"] if "license" in card else [])


def _sibling(path: str, file: File, *, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if blobs:
        sibling |= {"size": file.size, "blobId": file.oid}
        if file.sha256:
            pointer = len(lfs_pointer(file.sha256, file.size))
            sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": pointer}
    return sibling


async def refs(call: Call) -> Response:
    """Branches and tags."""
    repo = call.repo()

    def listed(names: dict[str, str], folder: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha} for name, sha in names.items()]

    answer = {"branches": listed(repo.branches, "heads"), "converts": [], "tags": listed(repo.tags, "tags")}
    return Json(answer | ({"pullRequests": []} if "include_prs" in call.request.query_params else {}))


async def tree(call: Call) -> Response:
    """The entries of a folder, or of all below it, in pages."""
    repo, query = call.repo(), call.request.query_params
    commit = repo.resolve(call["revision"])
    path = call["path"].strip("/") if "path" in call.request.path_params else ""
    inside = {name: file for name, file in commit.files.items() if not path or name.startswith(f"{path}/")}
    if path and not inside:
        raise EntryNotFound(f'{path} does not exist on "{call["revision"]}"', commit=commit.sha)
    recursive = query.get("recursive", "").lower() in ("1", "true")
    expand = query.get("expand", "").lower() in ("1", "true")
    start = len(path) + 1 if path else 0
    folders = {name[:end] for name in inside for end in _slashes(name) if end > start}
    entries = [*sorted(folders), *sorted(inside)]
    if not recursive:
        entries = [name for name in entries if "/" not in name[start:].lstrip("/")]
    entries.sort(key=lambda name: name.count("/"))
    settings = call.service.settings
    size = settings.expanded_page_size if expand else settings.page_size
    return _page(call, entries, lambda name: _entry(repo, commit, name, expand=expand), size=size)


async def paths_info(call: Call) -> Response:
    """Chosen entries; those that are not there are left out."""
    repo = call.repo()
    commit = repo.resolve(call["revision"])
    form = parse_qs((await call.request.body()).decode())
    paths = form.get("paths", [])
    expand = form.get("expand", [""])[0].lower() == "true"
    folders = {name[:end] for name in commit.files for end in _slashes(name)}
    there = [path for path in (path.rstrip("/") for path in paths) if path in commit.files or path in folders]
    return Json([_entry(repo, commit, path, expand=expand) for path in there])


def _below(commit: Commit, folder: str) -> list[str]:
    names = commit.names
    return names[bisect_left(names, f"{folder}/") : bisect_left(names, f"{folder}0")]  # 0 comes after /


def _slashes(name: str) -> list[int]:
    return [at for at, letter in enumerate(name) if letter == "/" and at > 0]


def _entry(repo: Repo, commit: Commit, path: str, *, expand: bool) -> dict[str, Any]:
    file = commit.files.get(path)
    if file is None:
        below = "".join(f"{name}\0{commit.files[name].oid}\n" for name in _below(commit, path))
        oid = git_sha1(below.encode(errors="surrogatepass"), kind="tree")
        entry: dict[str, Any] = {"type": "directory", "oid": oid, "size": 0, "path": path}
    else:
        entry = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.sha256:
            pointer = len(lfs_pointer(file.sha256, file.size))
            entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": pointer}
    if expand:
        changed = _last_change(repo, commit, path)
        entry["lastCommit"] = {"id": changed.sha, "title": changed.title, "date": _time(changed)}
    return entry


def _last_change(repo: Repo, commit: Commit, path: str) -> Commit:
    def below(at: Commit) -> dict[str, File | None]:
        return {name: at.files.get(name) for name in (path, *_below(at, path))}

    while commit.parent is not None and below(repo.history[commit.parent]) == below(commit):
        commit = repo.history[commit.parent]
    return commit


def _page(call: Call, entries: Sequence[T], told: Callable[[T], dict[str, Any]], *, size: int) -> Response:
    query = dict(call.request.query_params)
    start = int(query.get("cursor", 0))
    size = min(size, int(query.get("limit", size)))
    headers = {}
    if start + size < len(entries):
        after = urlencode({**query, "cursor": start + size})
        headers["Link"] = f'<{call.service.hub_url}{call.request.url.path}?{after}>; rel="next"'
    return Json([told(entry) for entry in entries[start : start + size]], headers=headers)


async def resolve(call: Call) -> Response:
    """A file: regular ones from here, LFS ones by a signed URL of the file host."""
    repo, path = call.repo(), call["path"]
    commit = repo.resolve(call["revision"])
    file = repo.file(path, commit.sha)
    headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
    if file.sha256:
        service = call.service
        place = object_path(repo, file.sha256)
        url = service.signer.url(service.files_url, place, method="GET", seconds=service.settings.url_seconds)
        headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.sha256}"'}
        return RedirectResponse(url, 302, headers=headers)
    return body_response(call.request, repo.objects[file.key], headers={**headers, "ETag": f'"{file.oid}"'})


async def auth_check(call: Call) -> Response:
    """Whether the caller may read, or write."""
    repo = call.repo()
    if "write" in call.request.path_params:
        check_write(repo.id, call.token)
    return Json({})


def _time(commit: Commit) -> str:
    return commit.date.strftime("%Y-%m-%dT%H:%M:%S.000Z")
