"""A zoo folder as it stands in a Hub repo, planted without a request: for tests of reading, hostile ones among them."""

import hashlib
from pathlib import Path

from tests.hub.server import Hub
from tests.hub.store import Repo
from vitzoo import layout
from vitzoo.manifest import FileRecord, Manifest
from vitzoo.records import load_zoo_record

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
