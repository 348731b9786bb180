"""The zoo that the storms compare with."""

from pathlib import Path

import pytest

from tests.tiny import restless, train_here


@pytest.fixture(scope="session")
def restless_zoo(shared) -> Path:
    """Train the restless zoo without a storm."""
    return shared("restless-zoo", lambda folder: train_here(restless(), folder))
