"""How attempts at a member ended that did not finish it, kept in the zoo folder: one JSON line each.

    .training/attempts/pt-3.ft-1.jsonl
    {"attempt": 1, "of": 3, "kind": "died", "reason": "its process ended by signal 9", "host": "a", "at": 1764.25}

Runs append; nothing is taken away.
"""

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitzoo.errors import RecordError
from vitzoo.records import json_files


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """How an attempt at a member ended.

    Args:
        attempt: Its number within a run, from 1 on.
        of: How many the run allows.
        kind: ``died`` (its process ended), ``failed`` (it raised) or ``full`` (the disk was, which counts for none).
        reason: In a line.
        host: Name of the machine that noted it.
        at: When, in seconds since 1970.
    """

    attempt: int
    of: int
    kind: Literal["died", "failed", "full"]
    reason: str
    host: str
    at: float

    @property
    def is_last(self) -> bool:
        """Whether its run gave the member up."""
        return self.kind != "full" and self.attempt >= self.of


def note_attempt(path: Path, *, attempt: int, of: int, kind: Literal["died", "failed", "full"], reason: str) -> None:
    """Append how an attempt ended. A disk that is full loses the note, not the run."""
    ended = Attempt(
        attempt=attempt, of=of, kind=kind, reason=reason, host=socket.gethostname(), at=round(time.time(), 3)
    )
    try:
        path.parent.mkdir(exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json_files.json_line(ended) + "\n")
    except OSError:
        return


def load_attempts(path: Path) -> list[Attempt]:
    """The attempts at a member, the latest last; a line that was torn is left out."""
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    attempts = []
    for line in lines:
        try:
            attempts.append(json_files.parse_record(Attempt, json.loads(line), str(path), path))
        except (ValueError, RecordError):
            continue
    return attempts
