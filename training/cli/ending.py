"""How a command ends that was told to: at once, with what was finished kept, and an exit status that says so."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.console import Console

TIME_IS_UP = 75  # sysexits' EX_TEMPFAIL: nothing is wrong, start it again


class _Terminated(KeyboardInterrupt):
    """SIGTERM: what schedulers and clouds send before they take a machine away."""


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the way out is not interrupted by a second one
    raise _Terminated


@contextmanager
def ends_in_order(console: Console) -> Iterator[None]:
    """End a command by Ctrl-C with status 130 and by SIGTERM with 143, after a line that says how to go on."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        status = 143 if isinstance(interrupt, _Terminated) else 130
        what = "Told to end (SIGTERM)" if status == 143 else "Interrupted"
        console.print(f"{what}. What was finished is kept; the same command goes on from there.", soft_wrap=True)
        raise typer.Exit(status) from None
    finally:
        signal.signal(signal.SIGTERM, before)
