"""Time and memory of the mean of 24 ViT-S/16 members, beside plain reads of the same files.

    python -m tests.benchmarks.merging [ZOO]

Without a zoo, 24 synthetic members (2.1 GB) are written to a temporary folder first. The page cache is warm, and a
ratio is of medians in one run. Peak memory is of a process that imports vitzoo and merges once.
"""

import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer

from tests.benchmarks.synthetic_zoo import write_synthetic_zoo
from tests.benchmarks.timing import Rows, measure, print_times, versions
from vitzoo import Zoo, merge

# VmHWM, because getrusage counts the memory of the parent before exec.
_PEAK = """
import sys, warnings
from vitzoo import Zoo, merge
warnings.simplefilter("ignore")
merge(Zoo(sys.argv[1]).select())
(line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(line.split()[1]) * 1024)
"""


def main(zoo: Annotated[Path | None, typer.Argument(help="An existing synthetic zoo.")] = None) -> None:
    """Print the table."""
    warnings.simplefilter("ignore")  # the heads of synthetic members started from other random numbers
    with tempfile.TemporaryDirectory() as temporary:
        if zoo is None:
            zoo = Path(temporary) / "zoo"
            write_synthetic_zoo(zoo, members=24)
        selection = Zoo(zoo).select()
        files = [zoo / str(ref.member) / "model.safetensors" for ref in selection]
        buffer = bytearray(max(file.stat().st_size for file in files))

        def read() -> None:
            for file in files:
                with open(file, "rb", buffering=0) as opened:
                    os.preadv(opened.fileno(), [buffer], 0)

        print(f"{len(files)} members, {os.cpu_count()} cores, {versions('numpy')}")
        rows: Rows = {"preadv into a warm buffer": read, "merge": lambda: merge(selection)}
        times = measure(rows, rounds=7)
        print_times(times, size=sum(file.stat().st_size for file in files))
        for name, work in rows.items():
            started = time.process_time()
            work()
            print(f"{name}: {time.process_time() - started:.2f} s of CPU")
        command = [sys.executable, "-c", _PEAK, str(zoo)]
        peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"peak memory of a process: {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    typer.run(main)
