"""What the storms compare with."""

from pathlib import Path

import pytest

from tests.tiny import restless, train_here


@pytest.fixture(scope="session")
def restless_zoo(shared) -> Path:
    """The restless zoo, trained without a disturbance."""
    return shared("restless-zoo", lambda folder: train_here(restless(), folder))
