"""Plant a zoo folder in a Hub repo without a request, for tests of reading."""

import hashlib
from pathlib import Path

from tests.hub.server import Hub
from tests.hub.store import Repo
from vitzoo.records import layout, load_zoo_record
from vitzoo.records.manifest import FileRecord, Manifest, load_manifest

REPO = "org/vit-zoo"


def zoo_files(folder: Path) -> dict[str, bytes]:
    """Return every file of a zoo folder that is published, by its path."""
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(paths.items()) if layout.is_zoo_file(name)}


def manifest_of(folder: Path, files: dict[str, bytes], *, epochs: str = "all") -> Manifest:
    """Make the manifest of some files."""
    return Manifest(
        recipe_sha256=load_zoo_record(folder / layout.ZOO_JSON).recipe_sha256,
        epochs=epochs,
        files={
            name: FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()
        },
    )


def plant(hub: Hub, folder: Path, *, repo: str = REPO, private: bool = False) -> Repo:
    """Make a repo with the zoo of a folder and its manifest."""
    files = zoo_files(folder)
    planted = hub.create_repo(repo, private=private)
    planted.commit({**files, str(layout.MANIFEST): manifest_of(folder, files).to_bytes()})
    return planted


def assert_never_half(repo: Repo, tmp_path: Path) -> None:
    """Check that every commit has no manifest, or a manifest of files that exist with their hashes."""
    for commit in repo.commits():
        files = repo.files(commit.sha)
        assert ("manifest.json" in files) == ("zoo.json" in files)
        if "manifest.json" not in files:
            continue
        path = tmp_path / "manifest.json"
        path.write_bytes(files["manifest.json"])
        for name, file in load_manifest(path).files.items():
            assert hashlib.sha256(files[name]).hexdigest() == file.sha256, (commit.title, name)
