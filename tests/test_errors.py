"""The tree of errors is the one drawn, and an error is still itself behind a process boundary."""

import builtins
import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest

from vitzoo import errors
from vitzoo.errors import VitZooError, did_you_mean, shown

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, VitZooError) and value.__module__ == errors.__name__
}
VALUES: dict[str, dict[str, object]] = {
    "MemberIdError": {"text": "pt-x"},
    "ZooNotFoundError": {"zoo": "./nowhere"},
    "MemberNotFoundError": {"member": ("pt", 3)},
    "EpochNotFoundError": {"epoch": 3, "epochs": [0, 1, 2]},
    "LeakError": {
        "kind": "family",
        "value": "pt-0",
        "members": ("pt-0", "pt-0/ft-1"),
        "parts": ("train", "test"),
        "epochs": (0, 0),
    },
    "RecordError": {"path": Path("zoo.json")},
    "FormatVersionError": {"path": Path("zoo.json"), "found": 2, "supported": 1},
    "ConfigError": {"path": None, "key": "auto_map"},
}


def drawn() -> dict[str, tuple[str, str | None]]:
    """The tree at the module's top: name -> (parent, built-in base)."""
    assert errors.__doc__ is not None
    tree: dict[str, tuple[str, str | None]] = {}
    above: list[str] = []
    for line in errors.__doc__.splitlines():
        match = re.match(r"    ((?:\|   |    )*)(?:[|`]-- )?(\w+Error)(?: \((\w+)\))?(?:  |$)", line)
        if match is not None:
            depth = 0 if match[2] == "VitZooError" else len(match[1]) // 4 + 1
            del above[depth:]
            tree[match[2]] = (above[-1] if above else "Exception", match[3])
            above.append(match[2])
    return tree


def test_every_class_is_drawn_and_nothing_else() -> None:
    assert list(drawn()) == list(CLASSES)
    assert len(CLASSES) == 22


@pytest.mark.parametrize("name", CLASSES)
def test_bases_are_as_drawn(name: str) -> None:
    parent, builtin = drawn()[name]
    expected = [CLASSES.get(parent, Exception)]
    if builtin is not None:
        expected.append(getattr(builtins, builtin))
    assert list(CLASSES[name].__bases__) == expected


@pytest.mark.parametrize("name", CLASSES)
def test_str_is_the_message(name: str) -> None:
    message = 'pt-9 is "not" there.\nNearest: pt-0'
    error = CLASSES[name](message)
    assert str(error) == message  # a KeyError would give its repr
    assert error.message == message
    assert error.args == (message,)
    assert isinstance(error, VitZooError)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_copies_keep_class_message_and_values(name: str, again) -> None:
    values = VALUES.get(name, {"anything": 1})
    error = CLASSES[name]("what, and what to do", **values)
    error.add_note("a note")
    for found in (again(error), again(again(error))):
        assert type(found) is CLASSES[name]
        assert str(found) == "what, and what to do"
        assert {key: getattr(found, key) for key in values} == values
        assert found.__notes__ == ["a note"]
    assert {key: getattr(error, key) for key in values} == values


@pytest.mark.parametrize("name", CLASSES)
def test_documented_attributes_are_those_given(name: str) -> None:
    doc = CLASSES[name].__doc__ or ""
    documented = re.findall(r"``(\w+)``", doc.partition("Attribute")[2])
    if name in VALUES:
        assert documented == list(VALUES[name])


@pytest.mark.parametrize(
    ("value", "known", "expected"),
    [
        ("pt-10", ["pt-0", "pt-1", "pt-2", "pt-3"], " Nearest: pt-1, pt-0, pt-3."),
        ("lerning_rate", ["learning_rate", "momentum"], " Nearest: learning_rate."),
        ("xyz", ["train", "val", "test"], " There are: train, val, test."),
        ("xyz", [str(i) for i in range(8)], " There are: 0, 1, 2, 3, 4, 5, 6, 7."),
        ("xyz", [str(i) for i in range(9)], " There are: 0, 1, 2, 3, 4, 5, 6, 7, ..."),
        (7, range(3), " There are: 0, 1, 2."),
        (1, iter(range(3)), " Nearest: 1."),
        ("xyz", [], ""),
        ("", ["a"], " There are: a."),
    ],
)
def test_did_you_mean(value: object, known: list[object], expected: str) -> None:
    assert did_you_mean(value, known) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("auto_map", '"auto_map"'),
        ("\x1b[31mred\n", r'"\u001b[31mred\n"'),
        ("\u202eright to left\ud800", r'"\u202eright to left\ud800"'),
        (1.5, "1.5"),
        (None, "null"),
        (True, "true"),
        (float("nan"), "NaN"),
        ({"a": 1}, "an object"),
        ([], "a list"),
        ("x" * 58, f'"{"x" * 58}"'),
        ("x" * 59, f'"{"x" * 56}...'),
        (10**4000, f"1{'0' * 56}..."),
    ],
)
def test_shown(value: object, expected: str) -> None:
    assert shown(value) == expected
    assert len(expected) <= 60
