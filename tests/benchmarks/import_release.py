"""Speed of importing the authors' release, compared with a plain copy with hashing: ``make bench`` (6 GB of disk).

The copy reads each checkpoint, hashes it by sha256, and writes and syncs it, two files at a time. An import computes
two more digests (of the written file and of its tensors) and two norms, and checks every name and shape. Its floor is a
copy with three digests. All process the same checkpoints in turn, page cache warm. Ratios are of medians.
"""

import hashlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.interop.authors_vit import VIT_S_16
from tests.interop.release import Child, Parent, write_release

ROUNDS, JOBS = 5, 2
_PIECE = 2**22
_CHILDREN = (
    Child(optimizer="adamw", learning_rate=1e-3, epochs=3),
    Child(optimizer="sgd", learning_rate=1e-3, epochs=3),
)
FAMILIES = (
    Parent(mode="sl", seed=42, epochs=3, digits=6, children=_CHILDREN),
    Parent(mode="sl", seed=43, epochs=3, digits=6, children=_CHILDREN),
)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        release = write_release(
            folder / "release", families=FAMILIES, size=VIT_S_16, optimizers=False, keep_states=False
        )
        files = [path for model in release.models for path in model.checkpoints.values()]
        size = sum(path.stat().st_size for path in files)
        seconds: dict[str, list[float]] = {}
        for turn in range(ROUNDS + 1):
            for name, work in (
                ("plain copy, sha256 once", lambda: copy_all(files, folder / "copy", digests=1)),
                ("floor: copy, sha256 three times", lambda: copy_all(files, folder / "copy", digests=3)),
                ("import", lambda: _import(folder / "release", folder / "zoo")),
            ):
                took = work()
                if turn:  # the first is a warm-up
                    seconds.setdefault(name, []).append(took)
                for made in ("copy", "zoo"):
                    shutil.rmtree(folder / made, ignore_errors=True)
        peak = measure_peak(["import", "authors", str(folder / "release"), str(folder / "zoo")])
    print(f"{len(files)} checkpoints, {size / 1e9:.2f} GB, {JOBS} jobs; {platform.machine()}, median of {ROUNDS}")
    floor = statistics.median(seconds["plain copy, sha256 once"])
    for name, took in seconds.items():
        median = statistics.median(took)
        print(f"{name:32} {median:6.2f} s [{min(took):.2f}, {max(took):.2f}]  {size / median / 1e6:6.0f} MB/s  "
              f"{floor / median:5.0%} of the plain copy")  # fmt: skip
    print(f"peak memory of the import's process: {peak / 1e6:.0f} MB, mapped pages of files included")


def copy_all(files: Sequence[Path], to: Path, *, digests: int) -> float:
    """Copy files into a new folder with digests, and return the seconds."""
    to.mkdir()
    started = time.perf_counter()
    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(lambda item: _copy(item[1], to / str(item[0]), digests), enumerate(files)))
    return time.perf_counter() - started


def _copy(path: Path, to: Path, digests: int) -> None:
    taken = [hashlib.sha256() for _ in range(digests)]
    with open(path, "rb", buffering=0) as source, open(to, "wb", buffering=0) as target:
        while piece := source.read(_PIECE):
            for digest in taken:
                digest.update(piece)
            target.write(piece)
        os.fsync(target.fileno())


def _import(release: Path, zoo: Path) -> float:
    from vitzoo.interop.authors.job import Import
    from vitzoo.interop.authors.run import import_release

    started = time.perf_counter()
    report = import_release(Import(source=release, root=zoo, jobs=JOBS))
    took = time.perf_counter() - started
    if report.skipped or report.notes:
        raise SystemExit(f"not everything was imported: {report}")
    return took


def measure_peak(command: Sequence[str]) -> int:
    """Return the peak memory, in bytes, of a process that only runs a command of vitzoo."""
    code = (
        f"import sys; sys.argv[1:] = {list(command)}\n"
        "from vitzoo.cli import app; app(standalone_mode=False)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return 1024 * int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
