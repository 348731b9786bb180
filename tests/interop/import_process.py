"""`vitzoo import authors` with the small data set's sizes, in processes that can be killed: `ImportProcesses`.

As a program it has imported everything once and forks for each line that it reads, which spares seconds a process.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class ImportProcesses:
    """Starts imports, one after another; what they print is kept in a file."""

    def __init__(self, log: Path):
        self._log = log
        self._running: int | None = None
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.interop.import_process"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: object) -> int:
        """Start ``vitzoo import authors`` with these arguments; returns its process id."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps([str(self._log), *map(str, arguments)]) + "\n")
        self._server.stdin.flush()
        self._running = self._read()
        return self._running

    def wait(self) -> int:
        """Wait for its end; returns its exit status, negative the signal that ended it."""
        status, self._running = self._read(), None
        return status

    def printed(self) -> str:
        """What the last one has printed so far, standard error too."""
        return self._log.read_text()

    def close(self) -> None:
        """End, and end what a test that failed has left."""
        if self._running is not None:
            os.kill(self._running, signal.SIGKILL)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def _read(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


def _serve() -> None:
    import torch

    torch.set_num_threads(1)

    from tests.interop.imported import MODEL_TYPES as TINY_TYPES
    from vitzoo.cli import main
    from vitzoo.interop.authors.facts import MODEL_TYPES

    MODEL_TYPES.update(TINY_TYPES)
    for line in sys.stdin:
        log, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            # Where the tests run in a shell's background, SIGINT is ignored, and what they start inherits that.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.argv = ["vitzoo", "import", "authors", *arguments]
            main()
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
