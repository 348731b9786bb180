"""What all tests share: a clean environment, one thread, two zoos that are trained once a run by the real code, a Hub.

``tiny_zoo`` (a few seconds) is for machinery, ``digits_zoo`` (minutes, by the README's own command) for what a stranger
gets. Both are read-only; a test that changes one copies it first (``tiny_copy``). Without ``hub`` a test is offline.
"""

from tests.typecheck import check_types

check_types()  # before anything imports vitzoo or training

from training.environment import fix_environment  # noqa: E402

fix_environment()  # before anything imports torch

import os  # noqa: E402

from tests.hub.server import Hub, bind_loopback  # noqa: E402

_HUB_SOCKETS = (bind_loopback(), bind_loopback())
_HUB_ENVIRONMENT = {
    "HF_ENDPOINT": f"http://127.0.0.1:{_HUB_SOCKETS[0].getsockname()[1]}",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_ETAG_TIMEOUT": "60",  # seconds; the default of 10 has passed on a busy machine
    "HF_HUB_DOWNLOAD_TIMEOUT": "60",
}
os.environ.update(_HUB_ENVIRONMENT)  # before anything imports huggingface_hub, which reads it once

import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

ROOT = Path(__file__).parents[1]

# Members record the commit: one made while the tests run would tell two members of one zoo apart. So none is found.
os.environ["GIT_CEILING_DIRECTORIES"] = str(ROOT)

# How long an example takes says nothing of the code on a busy machine.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_sessionfinish() -> None:
    """Where no test asked for the Hub, nobody else closes its sockets."""
    for bound in _HUB_SOCKETS:
        bound.close()


# Imports of torch and transformers are in functions: the process that hands the tests out, and needs none, reads this.
@pytest.fixture(scope="session", autouse=True)
def _one_quiet_thread() -> None:
    import torch
    from transformers.utils.logging import disable_progress_bar

    torch.set_num_threads(1)
    disable_progress_bar()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No zoo, cache, token or Hub of the machine's user reaches a test, nor a test's working directory another."""
    for name in list(os.environ):
        if name.startswith(("VITZOO_", "HF_", "HUGGING_FACE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # what was read from the environment
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf-home/hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "hf-home/token"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def _hub_server() -> Iterator[Hub]:
    import huggingface_hub

    with Hub(sockets=_HUB_SOCKETS) as server:
        yield server
        huggingface_hub.close_session()


@pytest.fixture
def hub(_hub_server: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that speaks the real one's protocol, empty; this process and those that it starts talk to it."""
    for name, value in _HUB_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    if "datasets" in sys.modules:  # it has read the environment once, maybe in a test that is offline
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("vitzoo.hub_http.FIRST_WAIT", 0.01)
    _hub_server.reset()
    yield _hub_server
    assert not _hub_server.failures


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
    from tests.tiny import tiny, train_here

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
