"""The guide to language models runs, on the tiny zoo of language models."""

import re
from pathlib import Path
from typing import Any

from tests.guides import print_guide
from vitzoo import BertZooForSequenceClassification, Zoo


def test_the_guide_runs(text_zoo: Path, sentences: Path) -> None:
    Path("text-zoo").symlink_to(text_zoo)
    names: dict[str, Any] = {"sentences": sentences}
    here = 'part="test", data={"animals": sentences}'
    text = print_guide("text", names, change=lambda code: code.replace('part="test"', here), languages=["python"])
    child = Zoo(text_zoo)["pt-0/ft-0"]
    assert type(names["model"]) is BertZooForSequenceClassification
    assert type(names["masked"]).__name__ == "BertForMaskedLM"
    classified, *printed = text.splitlines()
    assert re.fullmatch(r"\[\{'label': '(negative|positive)', 'score': .*\}\]", classified)
    assert printed == [
        f"0.003 {child.metrics_at().val_accuracy}",
        str(child.metrics_at().test_accuracy),
        "(4, 5808)",  # children, numbers of a backbone
    ]
