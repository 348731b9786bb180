"""Fixtures: a token with write access, a zoo of six members, and pauses without waiting."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import get_session

from tests.hub import Hub, Token


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect the seconds of each pause, without waiting."""
    made: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr("vitzoo.hub_http.time", SimpleNamespace(sleep=made.append))
    return made


@pytest.fixture
def token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Token:
    token = hub.add_token("org", role="write")
    monkeypatch.setenv("HF_TOKEN", str(token))
    monkeypatch.setattr("vitzoo.hub_http.FIRST_WAIT", 1.0)  # `hub` shortens it; `waits` checks the real one
    return token


@pytest.fixture
def small(tiny_copy: Path) -> Path:
    """Copy two families of the tiny zoo: six members."""
    shutil.rmtree(tiny_copy / "pt-0")
    return tiny_copy


class Dead(KeyboardInterrupt):
    """The end of the process."""


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Stop this process's client at a request, before it is sent or after it was answered."""
    client = type(get_session())
    send = client.send

    def die(number: int, moment: str) -> None:
        count = 0

        def dead(self: Any, request: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > number or (count == number and moment == "before"):
                raise Dead
            response = send(self, request, **options)
            if count >= number:
                response.read()
                raise Dead
            return response

        monkeypatch.setattr(client, "send", dead)

    yield SimpleNamespace(at=die, revive=lambda: monkeypatch.setattr(client, "send", send))
    monkeypatch.setattr(client, "send", send)
