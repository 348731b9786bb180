"""What was verified of a zoo already by this process: a later publication of it reads those weights files no more.

That a file is still the same is told by its size, its times and its place on the disk, which every way of writing
changes; what a record or config says is compared whole. Where anything differs the member is read again.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from training.publish.files import PlannedFile
from vitzoo.ids import MemberId
from vitzoo.verification.problems import Problems

if TYPE_CHECKING:  # it imports torch, which a plan needs not
    from vitzoo.verification.members import Findings

Marks = dict[str, tuple[object, ...]]  # by path: the hash that the file is to have, and what the file system says of it


class Verified:
    """Members in which nothing was wrong, and how their files looked before they were read."""

    def __init__(self) -> None:
        self._members: dict[MemberId, tuple[Marks, "Findings"]] = {}
        self._files: Marks = {}

    def holds(self, file: PlannedFile) -> bool:
        """Whether this file was verified with this hash, and is the same still."""
        mark = self._files.get(file.path)
        return mark is not None and mark == _mark(file)

    def find(self, member: MemberId, files: Sequence[PlannedFile]) -> "Findings | None":
        """What was found of a member with these very files; None where it has to be looked at."""
        if member not in self._members:
            return None
        marks, findings = self._members[member]
        return replace(findings, problems=Problems(member)) if marks == mark_files(files) else None

    def add(self, findings: "Findings", marks: Marks) -> None:
        """Remember a member in which nothing was wrong.

        Args:
            findings: What was found of it.
            marks: From `mark_files`, made before it was read: what was written since makes it another.
        """
        if list(findings.problems):
            return
        self._members[findings.member] = marks, replace(findings, problems=Problems(findings.member))
        self._files |= marks


def mark_files(files: Sequence[PlannedFile]) -> Marks:
    """How a member's files look now."""
    return {file.path: _mark(file) for file in files}


def _mark(file: PlannedFile) -> tuple[object, ...]:
    if not isinstance(file.content, Path):
        return (file.sha256,)
    try:
        found = os.stat(file.content)
    except OSError:  # gone, or out of reach: equal to nothing that is there
        return (file.sha256, None)
    return (file.sha256, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino)
