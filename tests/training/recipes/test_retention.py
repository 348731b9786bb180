"""A choice keeps the epochs that are worked out by hand."""

import pytest

from training.recipes.retention import Retention
from vitzoo.errors import SelectionError

KEPT = [  # choice, last epoch, kept
    ("all", 4, [0, 1, 2, 3, 4]),
    ("all", 0, [0]),
    ("last", 4, [4]),
    ("last-1", 4, [4]),
    ("last-3", 4, [2, 3, 4]),
    ("last-5", 4, [0, 1, 2, 3, 4]),
    ("last-9", 4, [0, 1, 2, 3, 4]),
    ("every-1", 4, [0, 1, 2, 3, 4]),
    ("every-2", 4, [0, 2, 4]),
    ("every-2", 5, [0, 2, 4, 5]),
    ("every-10", 4, [0, 4]),
    ("every-10", 90, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]),
]


@pytest.mark.parametrize(("text", "last", "kept"), KEPT)
def test_choice_keeps_its_epochs(text: str, last: int, kept: list[int]) -> None:
    choice = Retention(text)
    assert [epoch for epoch in range(last + 1) if choice.keeps(epoch, last)] == kept
    assert choice.count(last) == len(kept)
    assert str(choice) == text


@pytest.mark.parametrize(
    "text", ["", "none", "every-0", "last-0", "every-05", "last--1", "every-", "every-1.5", "0,10", "ALL", "last-3\n"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(SelectionError, match="every-5") as caught:
        Retention(text)
    assert caught.value.value == text  # type: ignore[attr-defined]
