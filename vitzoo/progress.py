"""Show the progress of long work on files: a bar in a terminal, a line every ten seconds elsewhere.

Loops over models have one bar of transformers, in a terminal or a notebook.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

_SECONDS_BETWEEN_LINES = 10.0
T = TypeVar("T")


def with_bar(models: Iterable[T], *, total: int, show: bool) -> Iterator[T]:
    """Yield models under one bar, in a terminal or a notebook, unless transformers' bars are off.

    Args:
        models: The models, loaded one by one.
        total: Number of models.
        show: False for no bar.
    """
    from transformers.utils import logging  # heavy, and imported already where models are loaded

    is_watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    yield from logging.tqdm(
        models, total=total, desc="Loading models", unit="model", leave=False, disable=not (show and is_watched)
    )


class ByteProgress:
    """Progress of work that is measured in bytes; a context manager.

    Args:
        what: Name of the work, such as "downloading".
        console: Where to show it; standard error by default.
    """

    def __init__(self, what: str, *, console: "Console | None" = None):
        from rich import progress as bars  # a selection shows sizes without a bar
        from rich.console import Console

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
            transient=True,  # removed at the end; printed lines stay
        )
        self._task = self._bars.add_task(what, total=None)
        self._started = self._last_line = time.monotonic()
        self._first: tuple[float, int] | None = None  # time and bytes of the first update

    def __enter__(self) -> "ByteProgress":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, what: str) -> None:
        """Name the part of the work that begins; elsewhere than in a terminal, only if the work is long already."""
        self._bars.update(self._task, description=what)
        if not self._console.is_terminal and time.monotonic() - self._started > _SECONDS_BETWEEN_LINES:
            self.say(what)

    def update(self, done: int, total: int) -> None:
        """Show how many of all bytes are done."""
        self._bars.update(self._task, completed=done, total=total)
        now = time.monotonic()
        if self._first is None:  # the time before is not a transfer's: imports, or a list of files
            self._first = (now, done)
        if not self._console.is_terminal and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            started, before = self._first
            seconds = (now - started) * (total - done) / (done - before) if done > before else None
            left = "-" if seconds is None else f"{seconds // 60:.0f}:{seconds % 60:02.0f}"
            self.say(f"{self._what}: {in_bytes(done)} of {in_bytes(total)}, {left} left")


class ByteCount:
    """Counts files and bytes that several threads have read.

    Args:
        total: Expected bytes.
        report: Called with the bytes so far and their total, by one thread at a time.
    """

    def __init__(self, total: int, report: Callable[[int, int], None]):
        self.files = self.bytes = 0
        self._total, self._report, self._lock = total, report, Lock()

    def add(self, size: int) -> None:
        """Add a file that was read."""
        with self._lock:
            self.files += 1
            self.bytes += size
            self._report(self.bytes, max(self._total, self.bytes))


def in_bytes(count: int) -> str:
    """Return a number of bytes for people, such as ``86.8 MB``."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
