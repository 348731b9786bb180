"""A repo as it stands at one moment, and whether it has a file already. Data: `training.publish.remote` gets it."""

import hashlib
from dataclasses import dataclass

from training.publish.files import PlannedFile


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the Hub says of a file.

    Args:
        size: Bytes.
        blob: Its git id, the pointer's for a large file.
        sha256: Of a large file; None for one that git holds itself.
    """

    size: int
    blob: str
    sha256: str | None

    def holds(self, file: PlannedFile) -> bool:
        """Whether it is this file, by size and hash."""
        if self.size != file.size:
            return False
        if self.sha256 is not None:
            return self.sha256 == file.sha256
        content = file.read()
        if hashlib.sha256(content).hexdigest() != file.sha256:  # a local file that is not what was planned any more
            return False
        return self.blob == hashlib.sha1(b"blob %d\0" % file.size + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A repo at one moment.

    Args:
        head: The commit that its branch was at.
        files: Every file there.
        tags: Names of the repo's tags.
    """

    head: str
    files: dict[str, RemoteFile]
    tags: frozenset[str]

    def holds(self, file: PlannedFile) -> bool:
        """Whether the repo has this file, by size and hash."""
        return file.path in self.files and self.files[file.path].holds(file)
