"""Record failed attempts at a member in the zoo folder, a JSON line each.

    .training/attempts/pt-3.ft-1.jsonl
    {"attempt": 1, "of": 3, "kind": "died", "reason": "its process ended by signal 9", "host": "a", "at": 1764.25}

Runs only append to the file.
"""

import json
import socket
import time
from pathlib import Path
from typing import Literal

import msgspec

from vitzoo.records import json_files

Kind = Literal["died", "failed", "full"]


class Attempt(json_files.Record, frozen=True, kw_only=True):
    """A failed attempt at a member.

    Args:
        attempt: Number of the attempt within its run, from 1.
        of: Attempts that the run allows.
        kind: ``died`` (its process ended), ``failed`` (it raised) or ``full`` (the disk was full, which does not count
            as an attempt).
        reason: Cause in one line.
        host: Name of the machine that recorded it.
        at: Time in seconds since 1970.
    """

    attempt: int
    of: int
    kind: Kind
    reason: str
    host: str
    at: float

    @property
    def is_last(self) -> bool:
        """Return whether its run gave the member up."""
        return self.kind != "full" and self.attempt >= self.of


def note_attempt(path: Path, *, attempt: int, of: int, kind: Kind, reason: str) -> None:
    """Append a failed attempt. If the disk is full, the note is lost, not the run."""
    host, at = socket.gethostname(), round(time.time(), 3)
    failed = Attempt(attempt=attempt, of=of, kind=kind, reason=reason, host=host, at=at)
    try:
        path.parent.mkdir(exist_ok=True)
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:  # a reason may quote any file name
            file.write(json_files.json_line(failed) + "\n")
    except OSError:
        return


def load_attempts(path: Path) -> list[Attempt]:
    """Read the failed attempts at a member, the latest last, without torn lines."""
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    attempts = []
    for line in lines:
        try:
            attempts.append(msgspec.convert(json.loads(line), Attempt))
        except (ValueError, RecursionError):
            continue
    return attempts
