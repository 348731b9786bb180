"""End a command by Ctrl-C or SIGTERM at once, with an exit status that a scheduler understands."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.console import Console

UNFINISHED = 75  # exit status, sysexits' EX_TEMPFAIL: no error, start the command again


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which schedulers and clouds send before they stop a machine."""


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one does not interrupt the exit
    raise _Terminated


@contextmanager
def exit_on_signals(console: Console) -> Iterator[None]:
    """End a command by Ctrl-C with status 130 and by SIGTERM with 143, after a line that says how to continue."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        status = 143 if isinstance(interrupt, _Terminated) else 130
        cause = "Stopped by SIGTERM" if status == 143 else "Interrupted"
        console.print(f"{cause}. Finished epochs are saved; the same command continues.", soft_wrap=True)
        raise typer.Exit(status) from None
    finally:
        signal.signal(signal.SIGTERM, before)
