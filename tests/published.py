"""A zoo folder as it stands in a Hub repo, planted without a request: for tests of reading, hostile ones among them."""

import hashlib
from pathlib import Path

from tests.hub.server import Hub
from tests.hub.store import Repo
from vitzoo.records import layout, load_zoo_record
from vitzoo.records.manifest import FileRecord, Manifest, load_manifest

REPO = "org/vit-zoo"


def zoo_files(folder: Path) -> dict[str, bytes]:
    """Every file of a zoo folder that is published, by its path."""
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(paths.items()) if layout.is_zoo_file(name)}


def manifest_of(folder: Path, files: dict[str, bytes], *, epochs: str = "all") -> Manifest:
    """The manifest of these files."""
    return Manifest(
        recipe_sha256=load_zoo_record(folder / layout.ZOO_JSON).recipe_sha256,
        epochs=epochs,
        files={
            name: FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()
        },
    )


def plant(hub: Hub, folder: Path, *, repo: str = REPO, private: bool = False) -> Repo:
    """A repo that holds the zoo of a folder, with its manifest."""
    files = zoo_files(folder)
    planted = hub.create_repo(repo, private=private)
    planted.commit({**files, str(layout.MANIFEST): manifest_of(folder, files).to_bytes()})
    return planted


def assert_never_half(repo: Repo, tmp_path: Path) -> None:
    """At every commit of its history there is no manifest, or one whose files are all there and right."""
    for commit in repo.commits():
        files = repo.files(commit.sha)
        if "manifest.json" not in files:
            continue
        path = tmp_path / "manifest.json"
        path.write_bytes(files["manifest.json"])
        for name, file in load_manifest(path).files.items():
            assert hashlib.sha256(files[name]).hexdigest() == file.sha256, (commit.title, name)
