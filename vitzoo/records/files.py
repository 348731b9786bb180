"""Files of a zoo folder: written whole or not at all, linked, hashed, and compared with what is recorded."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Protocol, runtime_checkable

from vitzoo.errors import VitZooError


@runtime_checkable
class RecordedFile(Protocol):
    """Size and hash of a file, as a record or a manifest has them."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def sha256(self) -> str:
        """Digest of the whole file, 64 hex digits."""
        ...


def check_file(path: Path, expected: RecordedFile, *, by: str, error: type[VitZooError], hashed: bool = True) -> None:
    """Refuse a file whose size or hash differs from what is recorded.

    Args:
        path: The file.
        expected: The recorded size and hash.
        by: Where they are recorded, such as "the manifest of org/zoo".
        error: Class of the error; it takes ``path``.
        hashed: Whether to read the file and compare its hash (about .6 ms a MB), too.

    Raises:
        VitZooError: Of class ``error``: the file is truncated, too long or altered.
    """
    size = path.stat().st_size
    fix = "Get the file again, or train the member again."
    if size != expected.size:
        how = "truncated" if size < expected.size else "too long"
        raise error(f"{path} is {how}: it has {size} bytes, {by} says {expected.size}", fix=fix, path=path)
    if hashed and (found := file_sha256(path)) != expected.sha256:
        raise error(
            f"{path} was altered: it has sha256 {found[:16]}..., {by} says {expected.sha256[:16]}...",
            fix=fix,
            path=path,
        )


def file_sha256(path: Path) -> str:
    """Hash a whole file; return 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content so that a crash leaves either all of the old bytes or all of the new."""
    partial = partial_path(path)
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Return the temporary name of a file while it is written. A killed process leaves it behind."""
    return path.with_name(f".{path.name}.partial")


def link_or_copy(path: Path, link: Path) -> None:
    """Make or replace a second name for a file, as a hard link, or as a copy on file systems without links."""
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        shutil.copyfile(path, link)


def sync(path: Path) -> None:
    """Write a file or a folder's entries through to the disk. Windows cannot open a folder."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
