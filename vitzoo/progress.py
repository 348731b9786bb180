"""What long work on files shows: bytes done and time left, a bar in a terminal and a line now and then elsewhere."""

import time

from rich import progress as bars
from rich.console import Console

_SECONDS_BETWEEN_LINES = 10.0


class ByteProgress:
    """The display of work that is measured in bytes; a context manager.

    Args:
        what: What is done, such as "downloading".
        console: Where it is shown; standard error by default.
    """

    def __init__(self, what: str, *, console: Console | None = None):
        self._what = what
        self._console = console or Console(stderr=True)
        self._bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.DownloadColumn(),
            bars.TransferSpeedColumn(),
            bars.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,  # the bar goes when the work is done; lines stay
        )
        self._task = self._bars.add_task(what, total=None)
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> "ByteProgress":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, done: int, total: int) -> None:
        """Show where the work stands.

        Args:
            done: Bytes done.
            total: Bytes in all.
        """
        self._bars.update(self._task, completed=done, total=total)
        if not self._console.is_terminal and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.say(f"{self._what}: {in_bytes(done)} of {in_bytes(total)}, {self._left(done, total)} left")

    def _left(self, done: int, total: int) -> str:
        seconds = (time.monotonic() - self._started) * (total - done) / done if done else 0.0
        return f"{seconds // 60:.0f}:{seconds % 60:02.0f}" if done else "-"


def in_bytes(count: int) -> str:
    """A number of bytes as a person reads it: ``86.8 MB``."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
