"""Handlers that write: repos, commits, LFS objects and tags."""

import base64
import binascii
import json
import re
from typing import Any

import yaml
from starlette.responses import JSONResponse, Response

from tests.hub.access import Call
from tests.hub.errors import BadCommit
from tests.hub.files import signed_url
from tests.hub.store import File, Repo, is_lfs_path

_LICENCES = {"apache-2.0", "cc-by-4.0", "cc0-1.0", "mit", "other"}  # some of the real Hub's
_LFS_ABOVE = 10_000_000  # bytes


async def validate_yaml(call: Call) -> Response:
    """Check the YAML block of a README, and its licence."""
    match = re.match(r"---\s*\n(.*?)\n---", (await call.request.json())["content"], re.DOTALL)
    try:
        card = yaml.safe_load(match.group(1)) if match else None
    except yaml.YAMLError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if card and card.get("license", "mit") not in _LICENCES:
        message = f'"license" must be one of [{", ".join(sorted(_LICENCES))}]'
        return JSONResponse({"errors": [{"message": message}], "warnings": []}, 400)
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})


async def create_repo(call: Call) -> Response:
    """Make a repo in a namespace of the user."""
    asked, store = await call.request.json(), call.service.store
    repo_id, repo_type = f"{asked['organization']}/{asked['name']}", asked.get("type") or "model"
    call.check_write(repo_id)
    existing = store.repos.get((repo_type, repo_id))
    private = asked.get("visibility") == "private" or asked.get("private") is True
    repo = existing or store.create(repo_id, repo_type, private=private)
    about: dict[str, Any] = {"url": call.service.web_url(repo), "name": repo_id}
    if existing:  # with `exist_ok` the client reads the url of the refusal
        return JSONResponse({"error": f"You already created this {repo_type} repo", **about}, 409)
    return JSONResponse(about)


async def auth_check(call: Call) -> Response:
    """Check that the caller may write."""
    call.repo_to_write()
    return JSONResponse({})


async def preupload(call: Call) -> Response:
    """Tell for each file of a planned commit whether it goes to LFS, and which content its path has now."""
    repo = call.repo_to_write()
    commit, files = repo.resolve(call["revision"]), (await call.request.json())["files"]
    answer = []
    for file in files:
        binary = b"\0" in base64.b64decode(file["sample"])  # as git tells binary files
        lfs = binary or file["size"] > _LFS_ABOVE or is_lfs_path(file["path"], repo.gitattributes())
        about: dict[str, Any] = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        if existing := commit.files.get(file["path"]):
            about["oid"] = existing.key
        answer.append(about)
    return JSONResponse({"files": answer, "commitOid": commit.sha})


async def lfs_batch(call: Call) -> Response:
    """Return the upload URL of each LFS object that the repo does not have."""
    repo, service, objects = call.repo_to_write(), call.service, []
    for asked in (await call.request.json())["objects"]:
        about: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in repo.objects:
            upload = signed_url(service.files_url, repo, asked["oid"], method="PUT")
            verify = f"{service.web_url(repo)}.git/info/lfs/objects/verify"
            about["actions"] = {"upload": {"href": upload, "header": {}}, "verify": {"href": verify}}
        objects.append(about)
    return JSONResponse({"transfer": "basic", "objects": objects})


async def lfs_verify(call: Call) -> Response:
    """Check that an object arrived."""
    repo, asked = call.repo_to_write(), await call.request.json()
    _stored(repo, asked["oid"], asked["size"], path=asked["oid"])
    return JSONResponse({})


def _stored(repo: Repo, sha256: str, size: int | None, *, path: str) -> File:
    data = repo.objects.get(sha256)
    if data is None:
        raise BadCommit(f"An LFS pointer pointed to a file that does not exist. Offending file: {path}")
    if size not in (None, len(data)):
        raise BadCommit(f"LFS object {sha256} has {len(data)} bytes, not {size}. Offending file: {path}")
    return File.of_lfs(sha256, len(data))


async def commit(call: Call) -> Response:
    """Make a commit of `main` from NDJSON: a header, then files and LFS files."""
    repo = call.repo_to_write()
    lines = [json.loads(line) for line in (await call.request.body()).splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with repo.lock:
        changes: dict[str, File | None] = {}
        for line in lines:
            if line["key"] != "header":
                path = _check_path(line["value"]["path"])
                changes[path] = _read_operation(repo, line["key"], line["value"], path)
        made = repo.apply(changes, title=header["summary"], parent=header.get("parentCommit"))
    url = f"{call.service.web_url(repo)}/commit/{made.sha}"
    return JSONResponse({"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""})


def _check_path(path: str) -> str:
    if any(part in ("", ".", "..", ".git") for part in path.rstrip("/").split("/")) or not path.isprintable():
        raise BadCommit(f"Invalid path: {path!r}")
    return path


def _read_operation(repo: Repo, key: str, value: dict[str, Any], path: str) -> File:
    if key == "lfsFile":
        return _stored(repo, value["oid"], value.get("size"), path=path)
    if key != "file":
        raise BadCommit(f"Unknown operation {key}")
    try:
        return repo.store_regular(base64.b64decode(value["content"], validate=True))
    except binascii.Error as error:
        raise BadCommit(f"Not base64: {path}") from error


async def create_tag(call: Call) -> Response:
    """Tag a revision."""
    call.repo_to_write().tag((await call.request.json())["tag"], call["revision"])
    return JSONResponse({})
