"""A file as it is to be in a repo, and how a local one is read: whole, and never through a link.

A link inside the zoo may lead to what is no part of it, such as the trainer's logs under ``.training/``.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vitzoo.errors import RecordError, TrainingError, UnsafePathError, VitZooError
from vitzoo.sources.folder import FolderSource


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedFile:
    """A file as it is to be in a repo.

    Args:
        path: Its place in the repo.
        size: Bytes.
        sha256: Of the whole file.
        content: Its bytes, or the local file that holds them.
    """

    path: str
    size: int
    sha256: str
    content: bytes | Path = field(repr=False)

    @classmethod
    def of(cls, path: PurePosixPath | str, content: bytes) -> "PlannedFile":
        """A file whose bytes are at hand."""
        return cls(path=str(path), size=len(content), sha256=hashlib.sha256(content).hexdigest(), content=content)

    def read(self) -> bytes:
        """Its bytes as they are now, which of a local file may be others than planned.

        Raises:
            TrainingError: The local file cannot be read.
        """
        if isinstance(self.content, bytes):
            return self.content
        with reading(self.content):
            return self.content.read_bytes()


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Make an error of ours of what keeps a local file from being read."""
    try:
        yield
    except VitZooError:
        raise
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be read: {error.strerror or error}. Make it readable for you, and publish again."
        ) from None


def existing(source: FolderSource, relative: PurePosixPath) -> Path:
    """A file that is to be published.

    Raises:
        RecordError: It is not there.
        UnsafePathError: It is a symbolic link, or lies in a folder that is one.
    """
    path = source.path(relative)
    if os.path.realpath(path) != os.path.join(os.path.realpath(source.root), relative):
        raise UnsafePathError(
            f"{path} is a symbolic link, or goes through one; what is published is no link. Copy the file in.",
            path=path,
        )
    if not path.is_file():
        raise RecordError(
            f"{path} is missing, so this member cannot be published. Train it again or get the folder again; where "
            "only some epochs are there, choose them with --epochs.",
            path=path,
        )
    return path
