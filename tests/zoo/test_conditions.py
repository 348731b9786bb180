"""Choices of members and epochs, as text and as values."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vitzoo.errors import SelectionError
from vitzoo.ids import MemberId
from vitzoo.records.epochs import Epochs
from vitzoo.zoo.conditions import Condition, parse_where

KEPT = [0, 5, 10, 11, None]
MEMBERS = pa.table(
    {
        "id": ["pt-0", "pt-1", "pt-2"],
        "head": ["linear", "mlp", "mlp"],
        "width": pa.array([None, 8, 16], pa.int64()),
        "rate": [1e-3, 1e-3, 3e-4],
        "tags": [["a"], [], ["b"]],
    }
)
EPOCHS = pa.table({"id": ["pt-0"] * 2, "step": [0, 10], "rate": [9.0, 9.0], "accuracy": [0.125, None]})
TABLES = {"members": MEMBERS, "epochs": EPOCHS}


def chosen(name: str, wanted: object) -> list[int]:
    table, holds = Condition(name, wanted).find(TABLES)
    assert len(holds) == len(TABLES[table])
    return [row for row, held in enumerate(holds) if held]


@pytest.mark.parametrize(
    ("text", "of"),
    [
        ("all", KEPT),
        ("last", [None]),
        ("every-10", [0, 10, None]),
        ("every-1", KEPT),
        ("0,11,12", [0, 11]),
        ("7", []),
    ],
)
def test_epochs(text: str, of: list[int | None]) -> None:
    assert Epochs(text).of(KEPT) == of
    assert str(Epochs(text)) == text


def test_epochs_by_their_numbers() -> None:
    assert Epochs("0,11,12").numbers == {0, 11, 12}
    assert Epochs("every-10").numbers == Epochs("all").numbers == set()


@pytest.mark.parametrize("text", ["", "some", "every-0", "every-", "1,", "-1", "01", "1, 2", "None", "٣"])
def test_epochs_that_are_none(text: str) -> None:
    with pytest.raises(SelectionError, match='expected "all", "last", "every-10" or "0,10,20"'):
        Epochs(text)


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("", {}),
        (",", {}),
        ("head=mlp", {"head": "mlp"}),
        ("rate=1e-3,head=mlp|linear", {"rate": "1e-3", "head": ["mlp", "linear"]}),
        ("width=null", {"width": None}),
        ("width=8|null", {"width": ["8", None]}),
        ("versions=torch==2.1", {"versions": "torch==2.1"}),
    ],
)
def test_text(text: str, conditions: dict[str, object]) -> None:
    assert parse_where(text) == conditions
    assert list(parse_where(text)) == list(conditions)


@pytest.mark.parametrize("text", ["head", "head=", "=mlp", "head=mlp|", "head=mlp,rate"])
def test_text_that_is_no_condition(text: str) -> None:
    with pytest.raises(SelectionError, match="is no condition: expected <name>=<value>"):
        parse_where(text)


def test_a_name_that_stands_twice() -> None:
    with pytest.raises(SelectionError, match="has two conditions on head"):
        parse_where("head=mlp,head=linear")


@pytest.mark.parametrize(
    ("name", "wanted", "rows"),
    [
        ("head", "mlp", [1, 2]),
        ("head", ["mlp", "linear"], [0, 1, 2]),
        ("head", {"linear"}, [0]),
        ("head", np.array(["mlp"]), [1, 2]),
        ("id", MemberId(1), [1]),
        ("rate", 1e-3, [0, 1]),
        ("rate", "0.001", [0, 1]),
        ("rate", np.float64(3e-4), [2]),
        ("width", 16, [2]),
        ("width", 16.0, [2]),
        ("width", "16.0", [2]),
        ("width", np.int64(8), [1]),
        ("width", (8, None), [0, 1]),
        ("width", None, [0]),
        ("width", range(0, 10**12, 8), [1, 2]),
        ("min_width", 8, [1, 2]),
        ("max_width", "8", [1]),
        ("min_rate", 0.0005, [0, 1]),
        ("step", 10, [1]),
        ("accuracy", None, [1]),
        ("min_accuracy", 0.125, [0]),
    ],
)
def test_conditions(name: str, wanted: object, rows: list[int]) -> None:
    assert chosen(name, wanted) == rows


def test_the_text_and_the_values_mean_the_same() -> None:
    said: list[tuple[str, Any]] = [
        ("head=mlp", "mlp"), ("rate=1e-3|3e-4", [1e-3, 3e-4]), ("width=null", None), ("min_width=9", 9),
    ]  # fmt: skip
    for text, value in said:
        ((name, wanted),) = parse_where(text).items()
        assert chosen(name, wanted) == chosen(name, value)


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("haed", "mlp", r'There is no "haed" to choose by\. Nearest: head\.'),
        ("min_widht", 1, r'There is no "min_widht" to choose by\. Nearest: min_width'),
        ("min_head", "mlp", 'There is no "min_head" to choose by'),
        ("tags", "a", 'There is no "tags" to choose by'),
        ("head", "mpl", r'No member has head "mpl"\. Nearest: mlp\.'),
        ("head", ["mlp", "mpl"], 'No member has head "mpl"'),
        ("head", None, 'No member has head "null"'),
        ("head", 3, r"head is a text, not '3'\. There are: linear, mlp\."),
        ("width", 9, r'No member has width "9"\. There are: 8, 16, null\.'),
        ("width", 16.5, r'No member has width "16\.5"'),
        ("width", True, "width is a whole number, not 'True'"),
        ("width", np.True_, "width is a whole number, not 'True'"),
        ("width", "wide", r"width is a whole number, not 'wide'\. There are: 8, 16, null\."),
        ("rate", "nan", "rate is a number, not 'nan'"),
        ("rate", [1e-3, b"x"], "rate is a number"),
        ("width", [], "an empty list of alternatives"),
        ("width", range(3), r'No member has width "range\(0, 3\)"\. There are: 8, 16, null\.'),
        ("rate", range(3), r"a range is of whole numbers, which rate is not\. .*min_rate and max_rate"),
        ("head", range(3), r"a range is of whole numbers, which head is not\. Name the values\.$"),
        ("min_rate", 0.5, r"No member has a rate of at least 0\.5: they go from 0\.0003 to 0\.001\."),
        ("max_width", "3", r"No member has a width of at most 3: they go from 8 to 16\."),
        ("min_width", None, "min_width=null is no bound: expected one number"),
        ("min_width", [8, 16], r"min_width=8\|16 is no bound: expected one number"),
        ("step", 7, r'No epoch has step "7"\. There are: 0, 10\.'),
    ],
)
def test_conditions_that_hold_of_nothing(name: str, wanted: object, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        chosen(name, wanted)


def test_a_bound_of_what_nobody_has() -> None:
    with pytest.raises(SelectionError, match="No member has a gap of at least 0: it is null of all"):
        Condition("min_gap", 0).find({"members": pa.table({"gap": pa.array([None], pa.float64())})})


def test_how_they_are_shown() -> None:
    assert str(Condition("epoch", range(0, 51, 10))) == "epoch=range(0, 51, 10)"
    assert str(Condition("rate", 1e-3)) == "rate=0.001"
    assert str(Condition("width", [8, None])) == "width=8|null"
    assert str(Condition("step", list(range(99)))) == "step=0|1|2|3|4|5|6|7|..."


def test_a_hostile_value_is_not_shown_as_it_is() -> None:
    with pytest.raises(SelectionError) as raised:
        Condition("head", "adamw").find({"members": pa.table({"head": ["\x1b[31madamw\x07"]})})
    assert str(raised.value).isprintable()
