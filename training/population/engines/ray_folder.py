"""A folder that lives as long as the process that made it; where that was killed, the next such process removes it.

Scratch zoos on a cluster's nodes lie in such folders, and what a Ray keeps that was started for one run.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from vitzoo.records.files import partial_path

_LOCK = "lock"  # held by the process that a folder belongs to; a lock ends with its process


class OwnFolder:
    """A new folder of this process, on a local disk.

    Args:
        parent: Where it lies; made where it is not there yet. Leftovers of dead processes there are removed.
        prefix: Of its name, and of the leftovers'.
    """

    def __init__(self, parent: Path, prefix: str):
        parent.mkdir(parents=True, exist_ok=True)
        for folder in parent.glob(f"{prefix}*"):
            if _is_left_over(folder):
                shutil.rmtree(folder, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = self.path / _LOCK
        self._lock = open(partial_path(lock), "w")  # noqa: SIM115 (closed with the folder)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(partial_path(lock), lock)  # nobody ever sees one that is not held

    def remove(self) -> None:
        """Remove it, with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _is_left_over(folder: Path) -> bool:
    with contextlib.suppress(OSError), open(folder / _LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
