"""The guide to language models runs, on the tiny zoo of language models."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.test_docs import blocks
from vitzoo import BertZooForSequenceClassification, Zoo

GUIDE = (Path(__file__).parents[2] / "docs/guides/text.md").read_text(encoding="utf-8")


def test_the_guide_runs(text_zoo: Path, sentences: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text-zoo").symlink_to(text_zoo)
    names: dict[str, Any] = {"sentences": sentences}
    found = blocks("python", GUIDE)
    assert len(found) == 4
    for block in found:
        local = block.replace('part="test"', 'part="test", data={"animals": sentences}')
        exec(compile(local, "docs/guides/text.md", "exec"), names)
    child = Zoo(text_zoo)["pt-0/ft-0"]
    assert type(names["model"]) is BertZooForSequenceClassification
    assert type(names["masked"]).__name__ == "BertForMaskedLM"
    classified, *printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[\{'label': '(negative|positive)', 'score': .*\}\]", classified)
    assert printed == [
        f"0.003 {child.metrics_at().val_accuracy}",
        str(child.metrics_at().test_accuracy),
        "(4, 5808)",  # children, numbers of a backbone
    ]
