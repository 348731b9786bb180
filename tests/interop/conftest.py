"""The small data set in the authors' layout and the zoo that it becomes: made once by each process, read-only."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.release import Release
    from vitzoo.interop.engine import ImportReport


@pytest.fixture(scope="session")
def authors_release(tmp_path_factory: pytest.TempPathFactory) -> "Release":
    from tests.interop.release import write_release

    return write_release(tmp_path_factory.mktemp("authors") / "dataset")


@pytest.fixture(scope="session")
def authors_import(authors_release: "Release", tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, ImportReport]":
    from tests.interop.imported import import_tiny

    zoo = tmp_path_factory.mktemp("imported") / "zoo"
    return zoo, import_tiny(authors_release, zoo)


@pytest.fixture
def authors_zoo(authors_import: "tuple[Path, ImportReport]") -> Path:
    return authors_import[0]
