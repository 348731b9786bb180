"""Run a command line of a guide as it is written, in this process where it can be, which costs no imports."""

import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from unittest.mock import patch

from training.__main__ import app
from vitzoo.cli import main, run_app


def run_command(command: str) -> "subprocess.CompletedProcess[str]":
    """Run ``vitzoo ...`` or ``python -m training ...`` in this process, and another command in one of its own."""
    match words := shlex.split(command, comments=True):
        case ["vitzoo", *arguments]:
            entry = main
        case ["python", "-m", "training", *arguments]:
            entry = lambda: run_app(app)  # noqa: E731
        case _:
            return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    out, err = (TextIOWrapper(BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code: object = None
    with patch.object(sys, "argv", [words[0], *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            entry()
        except SystemExit as ended:
            code = ended.code
    assert code is None or isinstance(code, int)
    printed, warned = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(words, code or 0, printed, warned)
