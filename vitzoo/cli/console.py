"""Run a command line on any terminal, pipe or file: its streams, its signals and its exit status.

See `vitzoo.cli.display` for what the commands print.
"""

import contextlib
import io
import os
import signal
import sys
from typing import Any, Literal

import typer
from rich.console import Console

from vitzoo.cli.display import escape
from vitzoo.errors import VitZooError

_WIDEST = 10_000  # columns of a pipe or a file, so that no id and no path is cut


def make_console(*, stderr: bool = False, **options: Any) -> Console:
    """Make a rich console that fits its lines to a terminal, and to no width elsewhere unless COLUMNS is set."""
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if is_terminal or "COLUMNS" in os.environ else _WIDEST
    return Console(stderr=stderr, **{"width": width, **options})


def run_app(command: typer.Typer) -> None:
    """Run a command line, and make an error one line on standard error.

    A VitZooError and an error of the system, such as a full disk, are exit status 1. SIGTERM is 143, after temporary
    files were removed.
    """
    _prepare_streams()
    before = signal.signal(signal.SIGTERM, _end)
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # here, because Python's own flush at exit ends in a traceback
    except (VitZooError, OSError) as error:
        text = str(error)
        if not isinstance(error, VitZooError) and not _can_flush("stdout"):
            text = f"standard output cannot be written: {error.strerror}"
        with contextlib.suppress(OSError):
            make_console(stderr=True).print(f"[red]error:[/] {escape(text)}", soft_wrap=True)
        raise SystemExit(1) from None
    finally:
        signal.signal(signal.SIGTERM, before)
        _can_flush("stderr")


def _prepare_streams() -> None:
    """Open closed streams, let ASCII streams take any text, and ignore a width that shows nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by ">&-"
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for name in ("COLUMNS", "LINES"):
        if name in os.environ and not os.environ[name].strip("0").isdecimal():
            del os.environ[name]


def _can_flush(name: Literal["stdout", "stderr"]) -> bool:
    """Tell whether a stream takes the text that waits in its buffer. If not, the text is dropped."""
    stream = getattr(sys, name)
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True


def _end(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)
