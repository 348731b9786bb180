"""A browser, and the report of a zoo whose names are hostile."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_cli import Here
from vitzoo import Zoo
from vitzoo.records.json_files import json_sha256
from vitzoo.report.sections import OPTIONAL
from vitzoo.report.write import write_report

HOSTILE = "</script><script>alert(1)</script><img src=//example.org onerror=alert(2)> \" ' {{ 1 }} &amp;"


def edit(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def make_hostile(zoo: Path) -> None:
    """Put markup and scripts into each free text of the zoo's records, and into its folder's name."""
    recipe = {**json.loads((zoo / "zoo.json").read_text())["recipe"], "name": HOSTILE}
    edit(zoo / "zoo.json", recipe=recipe, recipe_sha256=json_sha256(recipe))
    for path in zoo.glob("pt-*/**/member.json"):
        head = json.loads(path.read_text())["head_type"]
        edit(path, head_seed=0)  # so that a parent's children of one head are a group to merge
        edit(path, head_type=HOSTILE if head == "mlp" else head, extra={"lab": f"{HOSTILE}{head}"})


@pytest.fixture(scope="session")
def hostile_report(shared: Callable[[str, Callable[[Path], None]], Path], tiny_zoo: Path) -> Path:
    """Return the page about a tiny zoo with hostile names."""

    def write(folder: Path) -> None:
        zoo = Path(shutil.copytree(tiny_zoo, folder / "<img src=x onerror=alert(3)>"))
        make_hostile(zoo)
        write_report(Zoo(zoo), folder / "report", include=tuple(OPTIONAL), cache=folder / "cache")

    return shared("hostile-report", write) / "report/index.html"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start Debian's chromium without a window. Without one, the tests are skipped, but not in CI."""
    executable = shutil.which("chromium")
    if executable is None:
        reason = "chromium is not installed (on Debian: apt install chromium)"
        (pytest.fail if {"CI", "VITZOO_NEEDS_BROWSER"} & set(os.environ) else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(monkeypatch, capsys)
