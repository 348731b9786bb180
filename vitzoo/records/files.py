"""Files of a zoo folder: written whole or not at all, linked, hashed, and compared with what is recorded."""

import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from vitzoo.errors import MemberOverwriteError, UnreadableError, UnsafePathError, VitZooError
from vitzoo.ids import MemberId
from vitzoo.records.layout import ZOO_JSON

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)  # there is no such file
_PARTIAL = ".partial"


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


def check_file(
    path: Path,
    expected: RecordedFile,
    *,
    by: str,
    error: type[VitZooError],
    hashed: bool = True,
    content: bytes | bytearray | None = None,
) -> None:
    """Refuse a file whose size or hash differs from what is recorded.

    Args:
        path: The file.
        expected: The recorded size and hash.
        by: Where they are recorded, such as "the manifest of org/zoo".
        error: Class of the error; it takes ``path``.
        hashed: Whether to read the file and compare its hash (about .6 ms a MB), too.
        content: Bytes of the file that the caller read and goes on to use. They are compared instead of the file.

    Raises:
        VitZooError: Of class ``error``: the file is truncated, too long or altered.
    """
    size = path.stat().st_size if content is None else len(content)
    sha256 = None
    if hashed and size == expected.size:
        sha256 = file_sha256(path) if content is None else hashlib.sha256(content).hexdigest()
    difference = describe_difference(expected, size=size, sha256=sha256, by=by)
    if difference is not None:
        raise error(f"{path} {difference}", fix="Get the file again, or train the member again.", path=path)


def describe_difference(expected: RecordedFile, *, size: int, sha256: str | None, by: str) -> str | None:
    """Describe how a file differs from its record, as the end of a sentence; None if it does not.

    Args:
        expected: The recorded size and hash.
        size: Bytes of the file.
        sha256: Digest of the file; None if it was not read.
        by: Where the record is, such as "member.json".
    """
    if size != expected.size:
        how = "truncated" if size < expected.size else "too long"
        return f"is {how}: it has {size} bytes, {by} says {expected.size}"
    if sha256 is not None and sha256 != expected.sha256:
        return f"was altered: it has sha256 {sha256[:16]}..., {by} says {expected.sha256[:16]}..."
    return None


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes. A FIFO or a device would wait, or never end.

    Raises:
        UnsafePathError: It is not a regular file.
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafePathError(f"{path} is not a regular file", fix="Get the file again.", path=path)
    return os.fdopen(descriptor, "rb")


def refuse_member_folder(path: str | os.PathLike[str]) -> None:
    """Raise MemberOverwriteError if a folder is a member's, existing or not, or lies inside of one."""
    real = Path(os.path.realpath(path))
    for root in (parent for parent in real.parents if (parent / ZOO_JSON).is_file()):
        parts = real.relative_to(root).parts
        member = MemberId.match("/".join(parts[:2])) or MemberId.match(parts[0])
        if member is not None:
            raise MemberOverwriteError(
                f"{real} belongs to member {member} of the zoo {root}",
                expected="a folder outside of a zoo's members, which are never changed",
                fix="Save it elsewhere, for instance in ./tuned.",
                path=real,
                member=member,
            )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read a file or folder of a zoo into an UnreadableError.

    A missing file keeps its own error.
    """
    try:
        yield
    except VitZooError:
        raise
    except OSError as error:
        if error.errno is None or error.errno in _ABSENT:
            raise
        raise UnreadableError(
            f"{path} cannot be read: {error.strerror}",
            fix="Make it readable for you, or get the zoo again.",
            path=path,
        ) from error


def check_readable(path: Path) -> None:
    """Raise an UnreadableError if the system refuses to look a path up. A missing file passes."""
    try:
        with reading(path):
            os.stat(path)
    except UnreadableError:
        raise
    except (OSError, ValueError):
        return


def file_sha256(path: Path) -> str:
    """Hash a whole file; return 64 hex digits."""
    with reading(path), open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace a file's content so that a crash leaves either all of the old bytes or all of the new.

    Args:
        path: The file.
        content: All of its bytes.
        sync: Whether to wait for the disk. Without it, a power failure may leave a short file.
    """
    partial = partial_path(path)
    try:
        with open(partial, "xb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Return a new temporary name for a file while it is written. A killed process leaves the file behind.

    Nobody can plant a link under a random name. Open it with mode "x", which follows no link.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PARTIAL}")


def is_partial(path: Path, *, of: str) -> bool:
    """Return whether `partial_path` makes this name for a file with the name ``of``."""
    return path.name.startswith(f".{of}.") and path.name.endswith(_PARTIAL)


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
