"""Set and describe the environment that decides the bits of a training: threads, kernels, versions, code.

The same-bits promise on a CPU holds for processes that start with `SAME_BITS`. The engines set them for their workers,
and ``python -m training`` for itself, before torch is imported.
"""

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

SAME_BITS = {
    "OMP_NUM_THREADS": "1",  # with two threads beside another busy process, training ran up to 190 times slower
    "MKL_NUM_THREADS": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS has no deterministic mode
    "MKL_CBWR": "AUTO,STRICT",  # the fastest kernels whose results do not depend on where in memory an operand lies
}
COMMIT = "VITZOO_COMMIT"  # the variable with the commit for workers that have a copy of the code without git


def fix_environment() -> None:
    """Set the variables for this process and its children, unless the user has set them."""
    for name, value in SAME_BITS.items():
        os.environ.setdefault(name, value)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a member's bits."""
    packages = ("accelerate", "numpy", "pillow", "safetensors", "torch", "transformers")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


@cache
def hardware(device: str) -> str:
    """Return the name of the GPU or of the processor, never the name of the host."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def code_digest() -> str:
    """Hash the Python code, so that a commit of documents alone changes nothing."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(path for folder in ("training", "vitzoo") for path in (root / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def git_commit() -> str | None:
    """Return the commit of this code, with ``+dirty`` and a digest of the edits since; None outside git."""
    if (commit := os.environ.get(COMMIT)) is not None:
        return commit or None

    def git(*arguments: str) -> str | None:
        command, folder = ["git", "--no-optional-locks", *arguments], Path(__file__).parent
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    edited = git("diff", "HEAD", "--", ".", "../vitzoo")
    return commit + (f"+dirty.{hashlib.sha256(edited.encode()).hexdigest()[:8]}" if edited else "")
