"""A user who may write, and the real clients without pauses."""

from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, file_download
from huggingface_hub.utils import _http

from tests.hub import Hub, Token


@pytest.fixture
def alice(hub: Hub) -> Token:
    """A token with write access to alice's namespace and to the organisation zoos."""
    return hub.add_token("alice", role="write", orgs=("zoos",))


@pytest.fixture
def api(hub: Hub, alice: Token) -> HfApi:
    """Alice's client."""
    return HfApi(endpoint=hub.url, token=alice.value)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client asked to wait between its tries; it does not wait."""
    waited: list[float] = []
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=waited.append))
    return waited
