"""The site: the one that `make docs` built, or one without outputs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.site.pages import write_pages
from tests.conftest import ROOT
from tests.report import conftest

BUILT = os.environ.get("VITZOO_SITE")  # tests hide the variables of vitzoo

browser = conftest.browser


@pytest.fixture(scope="session")
def site(shared: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Return the folder of the site in $VITZOO_SITE, or build one without running the guides."""

    def build(folder: Path) -> None:
        write_pages(folder / "source", outputs={}, pictures=folder)
        options = ["-c", str(ROOT / "docs/site"), "-d", str(folder / "doctrees"), "-W", "-q"]
        command = [sys.executable, "-m", "sphinx", *options, str(folder / "source"), str(folder / "site")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return Path(BUILT).absolute() if BUILT else shared("site", build) / "site"
