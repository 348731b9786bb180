"""Choices of members and epochs as text."""

from typing import Any

import pytest

from vitzoo.errors import SelectionError
from vitzoo.selection import Epochs, matching

KEPT = [0, 5, 10, 11, None]
ROWS: list[dict[str, Any]] = [
    {"id": "pt-0", "head": "linear", "width": None, "rate": 1e-3},
    {"id": "pt-1", "head": "mlp", "width": 8, "rate": 1e-3},
    {"id": "pt-2", "head": "mlp", "width": 16, "rate": 3e-4},
]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("all", KEPT),
        ("last", [None]),
        ("every-10", [0, 10, None]),
        ("every-1", KEPT),
        ("0,11,12", [0, 11]),
        ("7", []),
    ],
)
def test_epochs(text: str, chosen: list[int | None]) -> None:
    assert Epochs(text).of(KEPT) == chosen
    assert str(Epochs(text)) == text


@pytest.mark.parametrize("text", ["", "some", "every-0", "every-", "1,", "-1", "01", "1, 2", "None", "٣"])
def test_epochs_that_are_none(text: str) -> None:
    with pytest.raises(SelectionError, match='expected "all", "last", "every-10" or "0,10,20"'):
        Epochs(text)


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("", [0, 1, 2]),
        ("head=mlp", [1, 2]),
        ("head=mlp,rate=0.001", [1]),
        ("rate=1e-3", [0, 1]),
        ("width=null", [0]),
        ("width=16.0", [2]),
        ("id=pt-0", [0]),
    ],
)
def test_conditions(where: str, chosen: list[int]) -> None:
    assert matching(where, ROWS) == chosen


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("haed=mlp", r'"haed=mlp" is no condition: expected <factor>=<value>\. Nearest: head\.'),
        ("head", "is no condition"),
        ("head=mpl", r'No member has head "mpl"\. Nearest: mlp\.'),
        ("width=9", r'No member has width "9"\.'),
        ("head=linear,width=8", 'No member is left after "width=8"'),
    ],
)
def test_conditions_that_choose_nothing(where: str, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        matching(where, ROWS)


def test_a_hostile_value_is_not_shown_as_it_is() -> None:
    with pytest.raises(SelectionError) as raised:
        matching("head=adamw", [{"head": "\x1b[31madamw\x07"}])
    assert str(raised.value).isprintable()


def test_of_an_empty_zoo() -> None:
    assert matching("", []) == []
    with pytest.raises(SelectionError, match="is no condition"):
        matching("head=mlp", [])
