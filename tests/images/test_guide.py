"""The guide to the images runs, and its names of data sets are right."""

from pathlib import Path

import pytest

from tests.test_docs import blocks
from vitzoo.data.known import KNOWN

GUIDE = (Path(__file__).parents[2] / "docs/guides/data.md").read_text(encoding="utf-8")


def test_the_guide_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    found = blocks("python", GUIDE)
    assert len(found) == 4
    for block in found:
        exec(compile(block, "docs/guides/data.md", "exec"), names)
    assert capsys.readouterr().out.splitlines() == [
        "649 217 217 ('0', '1', '2', '3', '4', '5')",
        "imagefolder ('daisy', 'tulip') 16 (43, 32)",
    ]


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.alias)
def test_every_known_data_set_is_named(known) -> None:
    assert f"| `{known.spec.name}` | `{known.alias}` |" in GUIDE
    assert known.download.split(",")[0] in GUIDE
