"""A user who may write, and the real clients, quiet and with caches of their own."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from huggingface_hub import HfApi, file_download, hf_hub_download
from huggingface_hub.utils import _http

from tests.hub import Hub, Token

Download = Callable[..., Path]


@pytest.fixture(autouse=True)
def _datasets_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    datasets.disable_progress_bars()


@pytest.fixture
def alice(hub: Hub) -> Token:
    """A user who may write to her own namespace and to the organisation zoos."""
    return hub.add_token("alice", role="write", orgs=("zoos",))


@pytest.fixture
def api(hub: Hub, alice: Token) -> HfApi:
    """Alice's client."""
    return HfApi(endpoint=hub.url, token=alice.value)


@pytest.fixture
def download(hub: Hub) -> Download:
    """`hf_hub_download`, and a path for an answer."""

    def get(repo_id: str, path: str, *, revision: str = "main", token: str | bool | None = None) -> Path:
        return Path(hf_hub_download(repo_id, path, revision=revision, token=token, endpoint=hub.url))

    return get


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client would have waited between its tries; it does not."""
    waited: list[float] = []
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=waited.append))
    return waited
