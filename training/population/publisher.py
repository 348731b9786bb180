"""Publish beside training: start ``python -m training publish --follow`` as a child process, and show its log.

The child polls the zoo folder (see `training.publish.follow`). Its crash costs nothing: `Publisher.finish` starts
another child, which continues. If the run is killed, the child publishes once more and ends.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.publish.plan import check_repo_names
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs

_ALL = Epochs("all")
_POLL = 0.2  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishOptions:
    """Options for publishing a zoo while it is trained.

    Args:
        to: The model repo, ``org/name``.
        epochs: Epochs whose weights are published beside the final ones.
        private: Whether new repos are private.

    Raises:
        TrainingError: ``to`` is not the name of a Hub repo.
    """

    to: str
    epochs: Epochs = _ALL
    private: bool = False

    def __post_init__(self) -> None:
        check_repo_names(self.to, None, option="--publish")


class Publisher:
    """The publishing child process of a run; a context manager that ends the child.

    Args:
        root: The zoo folder.
        options: Target and options of the publication.
        run: Name of the run's lease. While the lease is held, the child publishes.
        say: Called with each line of the child.
    """

    def __init__(self, root: Path, options: PublishOptions, *, run: str, say: Callable[[str], None]):
        self._arguments, self._run = ["-m", "training", "publish", str(root.absolute()), "--to", options.to], run
        self._arguments += [] if str(options.epochs) == "all" else ["--epochs", str(options.epochs)]
        self._arguments += ["--private"] if options.private else []
        self._say = say
        log = root / layout.TRAINING / "logs/publish.log"
        self._output = open(log, "ab")  # noqa: SIM115 (closed with the child)
        self._log = open(log, encoding="utf-8", errors="replace")  # noqa: SIM115
        self._log.seek(0, os.SEEK_END)
        self._child = self._start()

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(self, *error: object) -> None:
        self._child.kill()  # safe at any moment
        self._child.wait()
        self._output.close()
        self._log.close()

    @property
    def pid(self) -> int:
        """Process number of the child."""
        return self._child.pid

    def show(self) -> None:
        """Say the lines that the child wrote since the last call; never wait."""
        for line in self._log:
            self._say(line.rstrip())

    def finish(self) -> str | None:
        """Wait for the last publication. The run's lease must be released.

        Returns:
            None for a finished publication; otherwise the command that continues it.
        """
        if self._child.poll() is not None:  # it died
            self._child = self._start()
        while self._child.poll() is None:
            time.sleep(_POLL)
            self.show()
        self.show()
        return None if self._child.returncode == 0 else shlex.join(["python", *self._arguments])

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, *self._arguments, "--follow", "--run", self._run],
            cwd=Path(__file__).parents[2],  # where `training` is found
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
