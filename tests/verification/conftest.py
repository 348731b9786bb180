"""Fixtures: half of the tiny zoo, for speed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import write_tables


@pytest.fixture(scope="session")
def family(tiny_zoo: Path, shared: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Half of the tiny zoo, for speed: 2 parents and 4 children."""

    def take(folder: Path) -> None:
        shutil.copytree(tiny_zoo, folder, ignore=shutil.ignore_patterns("pt-2", "ft-3", ".training"))
        shutil.rmtree(folder / "pt-1/ft-1")
        write_tables(FolderSource(folder))

    return shared("family", take)


@pytest.fixture
def zoo(family: Path, tmp_path: Path) -> Path:
    """A copy of that family, to be changed."""
    return Path(shutil.copytree(family, tmp_path / "zoo"))
