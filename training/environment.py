"""The surroundings of a training process that decide its bits: threads and kernels, set before torch is imported.

The same-bits promise on a CPU holds for processes that start with these variables; the engines set them for their
workers, and ``python -m training`` for itself.
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
COMMIT = "VITZOO_COMMIT"  # the variable by which an engine tells workers that have the code alone what git said of it


def fix_environment() -> None:
    """Set the variables for this process and those it starts; what the user has set stays."""
    for name, value in SAME_BITS.items():
        os.environ.setdefault(name, value)


@cache
def versions() -> dict[str, str]:
    """The versions that decide a member's bits."""
    packages = ("accelerate", "numpy", "pillow", "safetensors", "torch", "transformers")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


@cache
def hardware(device: str) -> str:
    """What a member is trained on, in words: the name of the GPU or of the processor. Never the name of the host."""
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
    """Digest of the code that trains: a commit that changes only documents leaves it as it is."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(path for folder in ("training", "vitzoo") for path in (root / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def git_commit() -> str | None:
    """The commit of this code, with ``+dirty`` and a digest of what was edited since; None outside git."""
    if (told := os.environ.get(COMMIT)) is not None:
        return told or None
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "--no-optional-locks", *arguments],
                cwd=here,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    edited = git("diff", "HEAD", "--", ".", "../vitzoo")
    return commit + (f"+dirty.{hashlib.sha256(edited.encode()).hexdigest()[:8]}" if edited else "")
