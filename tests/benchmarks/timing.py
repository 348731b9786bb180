"""Time several functions in turn in one process, and print their medians as a table."""

import gc
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

Rows = dict[str, Callable[[], object]]


def measure(rows: Rows, *, rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Return the seconds of each function in each round after the warm-up."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(warm_up + rounds):
        for name, work in rows.items():
            gc.collect()
            started = time.perf_counter()
            kept = work()
            seconds = time.perf_counter() - started
            del kept
            if number >= warm_up:
                times[name].append(seconds)
    return times


def print_times(times: dict[str, list[float]], *, size: int) -> None:
    """Print medians, rates for ``size`` bytes, and ratios to the first row."""
    print("| | median ms | min ms | GB/s | to the first |\n|---|---|---|---|---|")
    first = statistics.median(next(iter(times.values())))
    for name, values in times.items():
        median = statistics.median(values)
        rate = size / median / 1e9
        print(f"| {name} | {1e3 * median:.1f} | {1e3 * min(values):.1f} | {rate:.2f} | {median / first:.2f} |")


def versions(*packages: str) -> str:
    """Return the packages with their versions."""
    return ", ".join(f"{name} {version(name)}" for name in packages)
