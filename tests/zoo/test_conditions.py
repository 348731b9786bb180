"""Conditions on members and choices of epochs, as text and as values."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vitzoo.errors import SelectionError
from vitzoo.ids import MemberId
from vitzoo.records.epochs import Epochs
from vitzoo.zoo.conditions import Condition, parse_where

SAVED = [0, 5, 10, 11, None]
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
    table, matches = Condition(name, wanted).find(TABLES)
    assert len(matches) == len(TABLES[table])
    return [row for row, match in enumerate(matches) if match]


@pytest.mark.parametrize(
    ("text", "of"),
    [
        ("all", SAVED),
        ("last", [None]),
        ("every-10", [0, 10, None]),
        ("every-1", SAVED),
        ("0,11,12", [0, 11]),
        ("7", []),
    ],
)
def test_epochs_select_saved_ones(text: str, of: list[int | None]) -> None:
    assert Epochs(text).of(SAVED) == of
    assert str(Epochs(text)) == text


def test_epochs_list_their_numbers() -> None:
    assert Epochs("0,11,12").numbers == {0, 11, 12}
    assert Epochs("every-10").numbers == Epochs("all").numbers == set()


@pytest.mark.parametrize("text", ["", "some", "every-0", "every-", "1,", "-1", "01", "1, 2", "None", "٣"])
def test_malformed_epochs_are_refused(text: str) -> None:
    with pytest.raises(SelectionError) as raised:
        Epochs(text)
    assert (raised.value.value, raised.value.expected) == (text, '"all", "last", "every-10" or "0,10,20"')


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
def test_text_becomes_conditions(text: str, conditions: dict[str, object]) -> None:
    assert parse_where(text) == conditions
    assert list(parse_where(text)) == list(conditions)


@pytest.mark.parametrize("part", ["head", "head=", "=mlp", "head=mlp|", "rate>=0.1", "rate<=1", "width=16"])
def test_malformed_or_repeated_condition_is_refused(part: str) -> None:
    with pytest.raises(SelectionError) as raised:
        parse_where(f"width=8,{part}")
    assert raised.value.value == part
    assert raised.value.fix


@pytest.mark.parametrize(
    ("part", "written"),
    [
        ("test_accuracy>0.9", "min_test_accuracy=0.9, "),
        ("test_accuracy >= 0.9", "min_test_accuracy=0.9."),
        ("rate<1e-3", "max_rate=1e-3, "),
        ("rate<=1e-3", "max_rate=1e-3."),
        ("head==mlp", "head=mlp."),
        ("0.8<rate<0.9", "min_<column>=<number>"),
        ("head!=mlp", "min_<column>=<number>"),
    ],
)
def test_comparison_is_refused_with_the_condition_to_write(part: str, written: str) -> None:
    with pytest.raises(SelectionError) as raised:
        parse_where(part)
    assert written in str(raised.value.fix)


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
def test_condition_matches_rows(name: str, wanted: object, rows: list[int]) -> None:
    assert chosen(name, wanted) == rows


def test_text_and_values_mean_the_same() -> None:
    pairs: list[tuple[str, Any]] = [
        ("head=mlp", "mlp"), ("rate=1e-3|3e-4", [1e-3, 3e-4]), ("width=null", None), ("min_width=9", 9),
    ]  # fmt: skip
    for text, value in pairs:
        ((name, wanted),) = parse_where(text).items()
        assert chosen(name, wanted) == chosen(name, value)


@pytest.mark.parametrize(
    ("name", "wanted", "advice"),
    [
        ("haed", "mlp", "Nearest: head."),
        ("min_widht", 1, "Nearest: min_width"),
        ("min_head", "mlp", "Nearest: head, min_step"),
        ("tags", "a", "There are: "),
        ("head", "mpl", "Nearest: mlp."),
        ("head", ["mlp", "mpl"], "Nearest: mlp."),
        ("head", None, "There are: linear, mlp."),
        ("head", 3, "expected text. There are: linear, mlp."),
        ("width", 9, "There are: 8, 16, null."),
        ("width", 16.5, "Nearest: 16."),
        ("width", True, "expected a whole number."),
        ("width", np.True_, "expected a whole number."),
        ("width", "wide", "expected a whole number. There are: 8, 16, null."),
        ("rate", "nan", "expected a number."),
        ("rate", [1e-3, b"x"], "expected a number."),
        ("width", [], "expected one or more."),
        ("width", range(3), "There are: 8, 16, null."),
        ("rate", range(3), "min_<column> and max_<column>"),
        ("min_rate", 0.5, "expected a number from 0.0003 to 0.001."),
        ("max_width", "3", "expected a number from 8 to 16."),
        ("min_width", None, "expected one number."),
        ("min_width", [8, 16], "expected one number."),
        ("step", 7, "There are: 0, 10."),
    ],
)
def test_condition_without_rows_is_refused_with_advice(name: str, wanted: object, advice: str) -> None:
    with pytest.raises(SelectionError) as raised:
        chosen(name, wanted)
    assert advice in str(raised.value)
    assert raised.value.value is not None or wanted is None


def test_bound_of_nulls_is_refused() -> None:
    with pytest.raises(SelectionError) as raised:
        Condition("min_gap", 0).find({"members": pa.table({"gap": pa.array([None], pa.float64())})})
    assert raised.value.value == 0


def test_condition_prints_as_text() -> None:
    assert str(Condition("epoch", range(0, 51, 10))) == "epoch=range(0, 51, 10)"
    assert str(Condition("rate", 1e-3)) == "rate=0.001"
    assert str(Condition("width", [8, None])) == "width=8|null"
    assert str(Condition("step", list(range(99)))) == "step=0|1|2|3|4|5|6|7|..."


def test_hostile_value_is_escaped() -> None:
    with pytest.raises(SelectionError) as raised:
        Condition("head", "adamw").find({"members": pa.table({"head": ["\x1b[31madamw\x07"]})})
    assert str(raised.value).isprintable()
