"""The examples of docstrings run, on the tiny zoos. None is skipped."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.interop.imported import MODEL_TYPES, short_release
from vitzoo.interop.authors import facts

PATHS = [path for top in ("vitzoo", "training") for path in sorted((ROOT / top).rglob("*.py"))]
TEXTS = {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8") for path in PATHS}
MODULES = [name.removesuffix(".__init__") for name, text in TEXTS.items() if re.search(r"^ +>>> ", text, re.MULTILINE)]


@pytest.mark.parametrize(
    "module",
    [pytest.param(name, marks=pytest.mark.slow) if name == "vitzoo.interop.onnx" else name for name in MODULES],
)
def test_examples_of_the_docstrings_run(
    module: str, tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("zoo").symlink_to(tiny_zoo)
    if "text-zoo" in TEXTS.get(module, ""):
        Path("text-zoo").symlink_to(request.getfixturevalue("text_zoo"))
    if "./dataset" in TEXTS.get(module, ""):
        for name, sizes in MODEL_TYPES.items():
            monkeypatch.setitem(facts.MODEL_TYPES, name, sizes)
        short_release(tmp_path)
    failures: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    tests = [test for test in doctest.DocTestFinder().find(importlib.import_module(module)) if test.examples]
    for test in tests:
        runner.run(test, out=failures.append)
    assert tests
    assert not failures, "".join(failures)


def test_no_example_is_skipped() -> None:
    assert [name for name, text in TEXTS.items() if "doctest: +SKIP" in text] == []
