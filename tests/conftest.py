"""What all tests share: a clean environment, one thread, and two zoos that are trained once a run by the real code.

``tiny_zoo`` (a few seconds) is for machinery, ``digits_zoo`` (minutes, by the README's own command) for what a stranger
gets. Both are read-only; a test that changes one copies it first (``tiny_copy``).
"""

from tests.typecheck import check_types

check_types()  # before anything imports vitzoo or training

from training.environment import fix_environment  # noqa: E402

fix_environment()  # before anything imports torch

import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from filelock import FileLock  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402

from tests.tiny import tiny, train_here  # noqa: E402

ROOT = Path(__file__).parents[1]

# Members record the commit: one made while the tests run would tell two members of one zoo apart. So none is found.
os.environ["GIT_CEILING_DIRECTORIES"] = str(ROOT)

torch.set_num_threads(1)
disable_progress_bar()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No zoo, cache or token of the machine's user reaches a test, nor a test's working directory another."""
    for name in list(os.environ):
        if name.startswith(("VITZOO_", "HF_", "HUGGING_FACE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Makes a folder once a test run, whichever of the xdist workers asks first."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder, finished = base / name, base / f"{name}.finished"
        with FileLock(base / f"{name}.lock"):
            if not finished.exists():
                fill(folder)
                finished.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_zoo(shared: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The tiny zoo's folder."""
    return shared("tiny-zoo", lambda folder: train_here(tiny(), folder))


@pytest.fixture
def tiny_copy(tiny_zoo: Path, tmp_path: Path) -> Path:
    """A copy of the tiny zoo, to be changed."""
    return Path(shutil.copytree(tiny_zoo, tmp_path / "zoo"))


@pytest.fixture(scope="session")
def digits_zoo(shared: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The digits zoo's folder, trained by the command that the README shows."""

    def train(folder: Path) -> None:
        command = [sys.executable, "-m", "training", "run", "digits", "--out", str(folder), "--workers", "2"]
        subprocess.run(command, cwd=ROOT, check=True, timeout=900)

    return shared("digits-zoo", train)
