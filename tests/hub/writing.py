"""What the hub host is told: repos, commits, LFS objects and tags."""

import base64
import binascii
import json
import re
from typing import Any

import yaml
from starlette.responses import Response

from tests.hub.accounts import check_write
from tests.hub.call import Call, Json
from tests.hub.errors import BadCommit, RevisionNotFound, Unauthorized
from tests.hub.files import object_path
from tests.hub.gitattributes import is_lfs_path
from tests.hub.store import Commit, File, Repo


async def whoami(call: Call) -> Response:
    """The user of a token."""
    if call.token is None:
        raise Unauthorized("Invalid username or password.")
    user = {"type": "user", "id": call.token.user, "name": call.token.user, "fullname": call.token.user}
    orgs = [{"type": "org", "id": org, "name": org, "roleInOrg": call.token.role} for org in call.token.orgs]
    access = {"displayName": call.token.user, "role": call.token.role}
    return Json({**user, "orgs": orgs, "auth": {"type": "access_token", "accessToken": access}})


async def validate_yaml(call: Call) -> Response:
    """Whether the block on top of a README is YAML; having none is a warning."""
    content = (await call.request.json())["content"]
    match = re.match(r"---\s*\n(.*?)\n---", content, re.DOTALL)
    try:
        card = yaml.safe_load(match.group(1)) if match else None
    except yaml.YAMLError as error:
        return Json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return Json({"errors": [], "warnings": warnings})


async def create_repo(call: Call) -> Response:
    """A new repo in the user's namespace or an organisation's."""
    wanted = await call.request.json()
    repo_id = _named(call, wanted)
    private = wanted.get("visibility") == "private" or wanted.get("private") is True
    user = check_write(repo_id, call.token).user
    repo_type = wanted.get("type") or "model"
    if repo_type not in ("model", "dataset"):
        raise BadCommit(f"No repos of type {repo_type} here")
    taken = call.service.store.repos.get((repo_type, repo_id))
    repo = taken or call.service.store.create(repo_id, repo_type, private=private, author=user)
    about: dict[str, Any] = {"url": call.service.web_url(repo), "name": repo_id}
    # `exist_ok` reads the url of the refusal, too.
    if taken:
        return Json({"error": f"You already created this {repo_type} repo", **about}, 409)
    return Json(about)


def _named(call: Call, wanted: dict[str, Any]) -> str:
    owner = wanted.get("organization") or (call.token.user if call.token else "")
    return f"{owner}/{wanted['name']}"


async def preupload(call: Call) -> Response:
    """Of files about to be committed: LFS or regular, and which content the path has now."""
    repo, _ = call.repo_to_write()
    commit = repo.resolve(call["revision"])
    wanted = (await call.request.json())["files"]
    rules = _rules(repo, commit, wanted)
    answer = []
    for file in wanted:
        # A NUL in the first 512 bytes is what git, too, calls binary.
        binary = b"\0" in base64.b64decode(file["sample"])
        lfs = binary or file["size"] > call.service.settings.lfs_above or is_lfs_path(file["path"], rules)
        about: dict[str, Any] = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        if there := commit.files.get(file["path"]):
            about["oid"] = there.key
        answer.append(about)
    return Json({"files": answer, "commitOid": commit.sha})


def _rules(repo: Repo, commit: Commit, wanted: list[dict[str, Any]]) -> bytes:
    new = [file["sample"] for file in wanted if file["path"] == ".gitattributes"]
    if new:
        return base64.b64decode(new[0])
    old = commit.files.get(".gitattributes")
    return repo.objects[old.key] if old else b""


async def lfs_batch(call: Call) -> Response:
    """Where to put each LFS object; nothing for those that the repo has."""
    repo, _ = call.repo_to_write()
    service, settings = call.service, call.service.settings
    asked = await call.request.json()
    objects = []
    for wanted in asked["objects"]:
        sha256, size = wanted["oid"], wanted["size"]
        about: dict[str, Any] = {"oid": sha256, "size": size}
        objects.append(about)
        if sha256 in repo.objects:
            continue
        path = object_path(repo, sha256)
        upload = service.signer.url(service.files_url, path, method="PUT", seconds=settings.url_seconds)
        verify = f"{service.web_url(repo)}.git/info/lfs/objects/verify"
        about["actions"] = {"upload": {"href": upload, "header": {}}, "verify": {"href": verify}}
    return Json({"transfer": "basic", "objects": objects})


async def lfs_verify(call: Call) -> Response:
    """Whether an object arrived."""
    repo, _ = call.repo_to_write()
    wanted = await call.request.json()
    _stored(repo, wanted["oid"], wanted["size"], path=wanted["oid"])
    return Json({})


def _stored(repo: Repo, sha256: str, size: int | None, *, path: str) -> File:
    data = repo.objects.get(sha256)
    if data is None:
        raise BadCommit(
            "Your push was rejected because an LFS pointer pointed to a file that does not exist."
            f" Offending file: {path}"
        )
    if size not in (None, len(data)):
        raise BadCommit(f"LFS object {sha256} has {len(data)} bytes, not {size}. Offending file: {path}")
    return File.lfs(sha256, len(data))


async def commit(call: Call) -> Response:
    """One commit from NDJSON: a header, then files and LFS files."""
    repo, user = call.repo_to_write()
    branch, settings = call["revision"], call.service.settings
    lines = [json.loads(line) for line in (await call.request.body()).splitlines() if line.strip()]
    header = next((line["value"] for line in lines if line["key"] == "header"), None)
    operations = [line for line in lines if line["key"] != "header"]
    if header is None:
        raise BadCommit("The header is missing")
    if len(operations) > settings.files_a_commit:
        raise BadCommit(f"Too many operations in one commit: {len(operations)}", status=413)
    if branch not in repo.branches:
        raise RevisionNotFound(branch)
    with repo.lock:
        changes = _changes(repo, operations)
        made = repo.apply(
            changes,
            title=header["summary"],
            message=header.get("description", ""),
            branch=branch,
            author=user,
            parent=header.get("parentCommit"),
        )
    url = f"{call.service.web_url(repo)}/commit/{made.sha}"
    return Json({"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""})


def _changes(repo: Repo, operations: list[dict[str, Any]]) -> dict[str, File | None]:
    changes: dict[str, File | None] = {}
    for operation in operations:
        key, value = operation["key"], operation["value"]
        path = _checked(value["path"])
        if key == "file":
            changes[path] = repo.store_regular(_decode(value))
        elif key == "lfsFile":
            changes[path] = _stored(repo, value["oid"], value.get("size"), path=path)
        else:
            raise BadCommit(f"Unknown operation {key}")
    return changes


def _checked(path: str) -> str:
    parts = path.rstrip("/").split("/")
    if any(part in ("", ".", "..", ".git") for part in parts) or not path.isprintable():
        raise BadCommit(f"Invalid path: {path!r}")
    return path


def _decode(value: dict[str, Any]) -> bytes:
    if value.get("encoding") != "base64":
        return value["content"].encode()
    try:
        return base64.b64decode(value["content"], validate=True)
    except binascii.Error as error:
        raise BadCommit(f"Not base64: {value['path']}") from error


async def create_tag(call: Call) -> Response:
    """A tag on a revision."""
    repo, _ = call.repo_to_write()
    repo.tag((await call.request.json())["tag"], call["revision"])
    return Json({})
