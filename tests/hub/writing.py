"""What the hub host is told: repos, commits, LFS objects, branches and tags."""

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml
from starlette.responses import Response

from tests.hub.accounts import check_write
from tests.hub.call import Call, Json
from tests.hub.errors import BadCommit, EntryNotFound, RevisionNotFound, Unauthorized
from tests.hub.files import object_path, part_etag
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


async def delete_repo(call: Call) -> Response:
    """A repo less."""
    wanted = await call.request.json()
    repo = call.find(_named(call, wanted), wanted.get("type") or "model")
    check_write(repo.id, call.token)
    del call.service.store.repos[repo.type, repo.id]
    return Json({})


def _named(call: Call, wanted: dict[str, Any]) -> str:
    owner = wanted.get("organization") or (call.token.user if call.token else "")
    return f"{owner}/{wanted['name']}"


async def update_settings(call: Call) -> Response:
    """Whether the repo is private."""
    repo, _ = call.repo_to_write()
    wanted = await call.request.json()
    repo.private = wanted.get("visibility", "private" if repo.private else "public") == "private"
    return Json({"private": repo.private})


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
    multipart, objects = False, []
    for wanted in asked["objects"]:
        sha256, size = wanted["oid"], wanted["size"]
        about: dict[str, Any] = {"oid": sha256, "size": size}
        objects.append(about)
        if sha256 in repo.objects:
            continue
        path, header = object_path(repo, sha256), {}
        upload = service.signer.url(service.files_url, path, method="PUT", seconds=settings.url_seconds)
        chunk = settings.multipart_chunk
        if chunk is not None and size > chunk and "multipart" in asked["transfers"]:
            multipart, header = True, {"chunk_size": str(chunk)}
            for part in range(1, -(-size // chunk) + 1):
                place = f"{path}/{part}"
                header[f"{part:05}"] = service.signer.url(
                    service.files_url, place, method="PUT", seconds=settings.url_seconds
                )
            done = f"/api/complete-multipart{path}"
            upload = service.signer.url(service.hub_url, done, method="POST", seconds=settings.url_seconds)
        verify = f"{service.web_url(repo)}.git/info/lfs/objects/verify"
        about["actions"] = {"upload": {"href": upload, "header": header}, "verify": {"href": verify}}
    return Json({"transfer": "multipart" if multipart else "basic", "objects": objects})


async def complete_multipart(call: Call) -> Response:
    """Puts the parts of an LFS object together; the URL is signed, and comes without a token."""
    call.service.signer.check(call.request.url.path, call.request.query_params, method="POST")
    repo = call.service.store.get(call.repo_id, f"{call['kind'][:-1]}")
    parts = call.service.parts.get(object_path(repo, call["sha256"]), {})
    claimed = {part["partNumber"]: part["etag"] for part in (await call.request.json())["parts"]}
    if claimed != {number: part_etag(data) for number, data in parts.items()}:
        raise BadCommit("InvalidPart")
    data = b"".join(data for _, data in sorted(parts.items()))
    file = repo.store_lfs(data)
    if file.sha256 != call["sha256"]:
        raise BadCommit("BadDigest")
    del call.service.parts[object_path(repo, call["sha256"])]
    return Json({})


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
    """One commit from NDJSON: a header, then files, LFS files and deletions."""
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
        before = repo.resolve(branch)
        changes = _changes(repo, before, operations)
        _check_folders({**before.files, **changes}, settings.files_a_folder)
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


def _changes(repo: Repo, before: Commit, operations: list[dict[str, Any]]) -> dict[str, File | None]:
    changes: dict[str, File | None] = {}
    for operation in operations:
        key, value = operation["key"], operation["value"]
        path = _checked(value["path"])
        if key == "file":
            changes[path] = repo.store_regular(_decode(value))
        elif key == "lfsFile":
            changes[path] = _stored(repo, value["oid"], value.get("size"), path=path)
        elif key in ("deletedFile", "deletedFolder"):
            folder = path.rstrip("/") + "/"
            gone = [
                name for name in before.files if (name == path if key == "deletedFile" else name.startswith(folder))
            ]
            if not gone:
                raise EntryNotFound(f"A file with this name doesn't exist: {path}", commit=before.sha)
            changes |= dict.fromkeys(gone)
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


def _check_folders(files: Mapping[str, File | None], limit: int) -> None:
    counts = Counter(path.rpartition("/")[0] for path, file in files.items() if file is not None)
    folder, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if count > limit:
        raise BadCommit(
            "Your push was rejected because it contains too many files per directory. Each directory in your git repo"
            f" can only contain up to {limit} files. Offending directory: /{folder}/"
        )


async def create_branch(call: Call) -> Response:
    """A branch, from `main` or from where it is said."""
    repo, _ = call.repo_to_write()
    repo.branch(call["branch"], (await call.request.json()).get("startingPoint", "main"))
    return Json({})


async def delete_branch(call: Call) -> Response:
    """A branch less; never `main`."""
    repo, _ = call.repo_to_write()
    if call["branch"] == "main":
        raise BadCommit("Cannot delete the default branch")
    _pop(repo.branches, call["branch"])
    return Json({})


async def create_tag(call: Call) -> Response:
    """A tag on a revision."""
    repo, _ = call.repo_to_write()
    repo.tag((await call.request.json())["tag"], call["revision"])
    return Json({})


async def delete_tag(call: Call) -> Response:
    """A tag less."""
    repo, _ = call.repo_to_write()
    _pop(repo.tags, call["tag"])
    return Json({})


def _pop(names: dict[str, str], name: str) -> None:
    if names.pop(name, None) is None:
        raise RevisionNotFound(name)
