"""Start the command line in sessions of their own, and inspect, stop and kill them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT

COMMAND = [sys.executable, "-m", "tests.training.population.command"]
PATIENCE = 120  # seconds after which a test fails; no test asserts a time

Start = Callable[..., subprocess.Popen[str]]


def begin(recipe: str, out: Path, *options: str, number: int = 0):
    """Start ``run`` in a session of its own; its output goes to ``<out>.<number>.log``."""
    log = out.with_name(f"{out.name}.{number}.log")
    with open(log, "w") as file:
        process = subprocess.Popen(
            [*COMMAND, "run", recipe, "--out", str(out), *options],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    process.log = log  # type: ignore[attr-defined]
    return process


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill every process of a session."""
    while left := session(process):
        for left_over in left:
            left_over.kill()
        process.poll()
    process.wait()


def session(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the living processes of a session."""
    processes = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == process.pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                processes.append(psutil.Process(pid))
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    return processes


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the workers of the local engine, which are forked from the driver's forkserver."""
    processes = session(process)
    children = [child for child in processes if child.ppid() == process.pid]
    servers = [child.pid for child in children if "multiprocessing.forkserver" in str(child.cmdline())]
    return [child for child in processes if child.ppid() in servers]


def output_of(process: subprocess.Popen[str]) -> str:
    return process.log.read_text()  # type: ignore[attr-defined]


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until a condition is true."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            pytest.fail(f"the run ended too early with {process.returncode}:\n{output_of(process)}")
        if time.monotonic() > give_up:
            pytest.fail(f"not true after {PATIENCE} s")
        time.sleep(0.01)  # a condition may read a whole folder


def end(process: subprocess.Popen[str]) -> int:
    return process.wait(timeout=PATIENCE)


def stop_when(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Stop all processes of a session when a condition is true, and still is after they stopped."""

    def stopped() -> bool:
        if not condition():
            return False
        os.killpg(process.pid, signal.SIGSTOP)
        wait_until(lambda: all(child.status() == psutil.STATUS_STOPPED for child in session(process)))
        if condition():
            return True
        os.killpg(process.pid, signal.SIGCONT)
        return False

    wait_until(stopped, process)
