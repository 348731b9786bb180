"""A storm: random blows hit a run, which is restarted until its zoo is complete.

Moments are counted in finished epochs, so a slow machine sees the same storm. The finished epochs before each blow are
recorded, because none may be trained again.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.training.population.folders import finished, leave_halves, timings_of, touched, under_way
from tests.training.population.processes import PATIENCE, end, kill_all, output_of, session, wait_until, workers_of

Run = subprocess.Popen[str]


@dataclass(kw_only=True, slots=True, eq=False)
class Storm:
    """A run in a storm.

    Args:
        folder: The zoo's folder.
        begin: Starts a run. Its argument is the number of earlier runs.
        blows: Names of the blows, in order.
        seed: Seed of the moments and of the targets.
        members: Number of members of the complete zoo.
        most: Largest number of finished epochs between two blows.
    """

    folder: Path
    begin: Callable[[int], Run]
    blows: Sequence[str]
    seed: int
    members: int
    most: int = 3
    happened: Counter[str] = field(default_factory=Counter)
    epochs_seen: list[dict[str, list[dict[str, float]]]] = field(default_factory=list)
    members_seen: list[dict[str, tuple[int, int, int]]] = field(default_factory=list)

    def rage(self, strike: Callable[[str, Run, random.Random], None]) -> None:
        """Train until the zoo is complete, while `strike` carries out the blows by name."""
        draw, started = random.Random(self.seed), [self.begin(0)]
        try:
            for blow in self.blows:
                self._until(self._count() + draw.randint(1, self.most), started)
                time.sleep(draw.uniform(0, 0.2))
                if len(finished(self.folder)) == self.members:
                    break
                self.epochs_seen.append(under_way(self.folder))
                self.members_seen.append(touched(self.folder))
                strike(blow, started[-1], draw)
                self.happened[blow] += 1
            self._until(None, started)
            wait_until(lambda: not any(map(session, started)))
        finally:
            for run in started:
                kill_all(run)

    def check_nothing_was_trained_twice(self) -> None:
        """Check that epochs and members finished before a blow are unchanged in the end."""
        assert any(self.epochs_seen)
        for lines in self.epochs_seen:
            for member, before in lines.items():
                assert timings_of(self.folder, member)[: len(before)] == before, member
        for files in self.members_seen:
            assert files.items() <= touched(self.folder).items()

    def _until(self, epochs: int | None, started: list[Run]) -> None:
        """Wait for some finished epochs, or for the end of the run (None). A run that ended early is restarted."""
        give_up = time.monotonic() + 3 * PATIENCE
        while epochs is None or self._count() < epochs:
            ended = started[-1].poll()
            if ended == 0:
                return
            if ended is not None:
                assert ended in (-signal.SIGKILL, 1), output_of(started[-1])  # killed, or something failed
                started.append(self.begin(len(started)))
            assert time.monotonic() < give_up, output_of(started[-1])
            time.sleep(0.01)

    def _count(self) -> int:
        """Count the finished epochs of finished and unfinished members."""
        with contextlib.suppress(FileNotFoundError):  # a member may move meanwhile
            done = sum(len(timings_of(self.folder, member)) for member in finished(self.folder))
            return done + sum(map(len, under_way(self.folder).values()))
        return 0


def kill_driver(run: Run, folder: Path) -> None:
    """Kill the driver alone. Its workers notice and end."""
    run.kill()
    run.wait()
    wait_until(lambda: not session(run))
    leave_halves(folder)


def kill_group(run: Run, folder: Path) -> None:
    """Kill all processes at once, as a power cut does, and leave halves of files."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    wait_until(lambda: not session(run))
    leave_halves(folder)


def kill_worker(run: Run, draw: random.Random) -> None:
    """Kill a worker. The run starts another."""
    workers = workers_of(run)
    if workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            draw.choice(workers).kill()


def make_raise(folder: Path, run: Run, draw: random.Random) -> None:
    """Hide a finished parent's weights until a child has failed or the run has ended."""
    parents = [member for member in finished(folder) if "/" not in member]
    if not parents:
        return
    weights, attempts = folder / draw.choice(parents) / "model.safetensors", folder / ".training" / "attempts"
    notes = _size_of(attempts)
    weights.rename(weights.with_name("away"))
    wait = time.monotonic() + 5  # its children may all be finished
    while _size_of(attempts) == notes and run.poll() is None and time.monotonic() < wait:
        time.sleep(0.01)
    weights.with_name("away").rename(weights)


def fill_disk(folder: Path, run: Run) -> None:
    """Fill the disk until the run has ended."""
    balloon = folder.parent / "balloon"
    with contextlib.suppress(OSError), open(balloon, "wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    free = shutil.disk_usage(folder).free
    assert free < 2**16, free
    assert end(run) in (0, 1), output_of(run)
    balloon.unlink()


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))
