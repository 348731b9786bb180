"""Fixtures of all tests: a clean environment, one thread, a Hub, and zoos that the real code trains once a run.

``tiny_zoo`` and ``text_zoo`` take a few seconds, ``digits_zoo`` minutes, by the README's command. All are read-only: a
test that changes one copies it first (``tiny_copy``). A test without ``hub`` is offline.
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

import gc  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

ROOT = Path(__file__).parents[1]

# Members record the commit. Hide it, because a commit during the tests would make members of one zoo differ.
os.environ["GIT_CEILING_DIRECTORIES"] = str(ROOT)

# On a busy machine, the time of an example is not a property of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)  # before pytest's own hook, which deselects the slow ones
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the digits zoo slow, and move them to the front: one worker trains it beside the rest."""
    for item in items:
        if "digits_zoo" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
    items.sort(key=lambda item: "digits_zoo" not in getattr(item, "fixturenames", ()))


def pytest_sessionfinish() -> None:
    """Close the Hub's sockets, also if no test used it."""
    for bound in _HUB_SOCKETS:
        bound.close()


# Functions import torch and transformers, because the process that distributes the tests needs neither.
@pytest.fixture(scope="session", autouse=True)
def _one_quiet_thread() -> None:
    import torch
    from transformers.utils.logging import disable_progress_bar

    torch.set_num_threads(1)
    disable_progress_bar()
    gc.collect()
    gc.freeze()  # what the imports made lives as long as the process: later collections need not look at it


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the user's zoo, cache, token and Hub from tests, and give each test a working directory."""
    for name in list(os.environ):
        if name.startswith(("VITZOO_", "HF_", "HUGGING_FACE_", "COLUMNS")):  # workers of xdist have COLUMNS=80
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read from the environment at import
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
    """Return an empty Hub with the real one's protocol, which this process and its children use."""
    for name, value in _HUB_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    if "datasets" in sys.modules:  # it read the environment in an earlier test, maybe offline
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("datasets.config.HF_ENDPOINT", _HUB_ENVIRONMENT["HF_ENDPOINT"])
    monkeypatch.setattr("vitzoo.hub_http.FIRST_WAIT", 0.01)
    monkeypatch.setattr(
        "vitzoo.hub_http._silence", None
    )  # `publish` limits the whole process, maybe in an earlier test
    _hub_server.reset()
    yield _hub_server
    assert not _hub_server.failures


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Return a function that makes a folder once a test run, for all xdist workers."""
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
def snippets_archive() -> Path:
    """Return the archive of the snippets, which pip fetches once into the user's cache.

    Without a connection, the tests that need it are skipped, but not in CI.
    """
    from vitzoo.errors import DatasetError
    from vitzoo.text.snippets import find_archive

    try:
        return find_archive("snippets-all", None)
    except DatasetError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny_zoo(shared: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Return the tiny zoo's folder."""
    from tests.tiny import tiny, train_here

    return shared("tiny-zoo", lambda folder: train_here(tiny(), folder))


@pytest.fixture(scope="session")
def bert_zoo(shared: Callable[[str, Callable[[Path], None]], Path], tiny_zoo: Path) -> Path:
    """Return the folder of the zoo of untrained BERTs."""
    from tests.berts import write_bert_zoo

    return shared("bert-zoo", lambda folder: write_bert_zoo(folder, tiny_zoo))


@pytest.fixture(scope="session")
def sentences(shared: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Return the folder of the text zoo's sentences."""
    from tests.text.tiny import write_sentences

    return shared("sentences", write_sentences)


@pytest.fixture(scope="session")
def text_zoo(shared: Callable[[str, Callable[[Path], None]], Path], sentences: Path) -> Path:
    """Return the folder of the tiny zoo of language models."""
    from tests.text.tiny import tiny_text, train_texts

    return shared("text-zoo", lambda folder: train_texts(tiny_text(), folder, sentences=sentences))


@pytest.fixture
def tiny_copy(tiny_zoo: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny zoo that the test may change."""
    return Path(shutil.copytree(tiny_zoo, tmp_path / "zoo"))


@pytest.fixture(scope="session")
def digits_zoo(shared: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Return the folder of the digits zoo, trained by the README's command."""

    def train(folder: Path) -> None:
        command = [sys.executable, "-m", "training", "run", "digits", "--out", str(folder), "--workers", "2"]
        subprocess.run(command, cwd=ROOT, check=True, timeout=3600)

    return shared("digits-zoo", train)
