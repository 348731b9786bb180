"""What became of a release: what was taken, what was not and why, and what its reader should know."""

from dataclasses import dataclass, field
from threading import Lock

from vitzoo.errors import printable


@dataclass(kw_only=True, slots=True)
class Findings:
    """What is found on the way; several threads may tell it.

    Args:
        skipped: Models that are not taken: their folder to why.
        notes: What should be known of models that are: their folder to a line each.
    """

    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def skip(self, folder: str, why: str) -> None:
        """A model is not taken."""
        with self._lock:
            self.skipped[printable(folder)] = printable(why)

    def note(self, folder: str, what: str) -> None:
        """Something is to be known of a model."""
        with self._lock:
            lines = self.notes.setdefault(printable(folder), [])
            if printable(what) not in lines:
                lines.append(printable(what))


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport:
    """What became of a release.

    Args:
        taken: Ids of the members that stand in the zoo to their folders in the release.
        checkpoints: Weights files that they have, final ones not counted twice.
        skipped: Folders that were not taken to why.
        notes: Folders to what should be known of them: what was missing, doubtful or left out.
        read: Bytes of checkpoints read by this call.
        checked: Ids to the largest difference of logits before and after, for those that were compared.
    """

    taken: dict[str, str]
    checkpoints: int
    skipped: dict[str, str]
    notes: dict[str, tuple[str, ...]]
    read: int
    checked: dict[str, float]

    @property
    def complete(self) -> bool:
        """Whether every model of the release was taken."""
        return not self.skipped
