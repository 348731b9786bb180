"""What publishing shows: the bytes verified, then what a repo lacks, and the bytes that it got since."""

import time
from collections.abc import Sequence

from rich.console import Console

from training.publish.files import PlannedFile
from vitzoo.progress import ByteProgress, in_bytes


class Progress(ByteProgress):
    """The display of a publication, measured in bytes that the Hub does not have yet.

    Args:
        console: Where it is shown; None for standard error.
    """

    def __init__(self, *, console: Console | None = None) -> None:
        super().__init__("publishing", console=console)
        self._sent = self._committed = self._total = 0

    def start(self, what: str) -> None:
        """Show other work from now on: verifying comes before publishing."""
        self._what = what
        self._started = self._last_line = time.monotonic()
        self._bars.reset(self._task, description=what, total=None)

    def begin(self, repo: str, *, size: int, files: int) -> None:
        """A repo lacks so much."""
        self._sent, self._committed, self._total = 0, 0, size
        self.say(f"{repo}: {files:,} files to send, {in_bytes(size)}")
        self.update(0, size)

    def sent(self, size: int) -> None:
        """So much more is there."""
        self._sent += size
        self.update(self._sent, self._total)

    def committed(self, files: Sequence[PlannedFile]) -> None:
        """These are there, those among them that were not sent because their content was."""
        self._committed += sum(file.size for file in files)
        self.sent(self._committed - self._sent)
