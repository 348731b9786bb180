"""Errors: their fields, their text, and their built-in bases survive a process boundary."""

import ast
import copy
import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vitzoo import errors
from vitzoo.errors import ConfigError, RecordError, VitZooError, did_you_mean, shown

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, VitZooError) and value.__module__ == errors.__name__
]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "pt-9 is missing"),
        ({"fix": ""}, "pt-9 is missing"),
        ({"fix": " Nearest: pt-0."}, "pt-9 is missing. Nearest: pt-0."),
        ({"expected": "pt-0 to pt-2"}, "pt-9 is missing; expected pt-0 to pt-2."),
        ({"expected": "pt-0", "fix": "Train it."}, "pt-9 is missing; expected pt-0. Train it."),
    ],
)
def test_str_joins_the_fields(fields: dict[str, str], text: str) -> None:
    for cls in CLASSES:
        error = cls("pt-9 is missing", **fields)
        assert str(error) == text  # a KeyError would show its repr
        fix = fields.get("fix", "").strip() or None
        assert (error.problem, error.expected, error.fix) == ("pt-9 is missing", fields.get("expected"), fix)


@pytest.mark.parametrize("clone", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_copies_keep_class_fields_and_notes(clone) -> None:
    config = ConfigError("bad", expected="good", fix="Fix it.", path=Path("config.json"), key="auto_map")
    for error in (config, *(cls("bad", fix="Fix it.") for cls in CLASSES)):
        error.add_note("a note")
        copied = clone(clone(error))
        assert type(copied) is type(error)
        assert vars(copied) == vars(error)
        assert str(copied) == str(error)


def test_unknown_attributes_are_refused_and_declared_ones_default() -> None:
    assert RecordError("bad").path is None
    with pytest.raises(TypeError, match="RecordError has no attribute 'pth'"):
        RecordError("bad", pth=Path("zoo.json"))


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
def test_did_you_mean_names_near_values_or_the_first(value: object, known: list[object], expected: str) -> None:
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
def test_shown_escapes_and_shortens(value: object, expected: str) -> None:
    assert shown(value) == expected
    assert len(expected) <= 60


def test_a_package_without_training_beside_it_advises_what_it_has(tmp_path: Path) -> None:
    """`tests.test_wheel` asks an installed wheel."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/vitzoo").symlink_to(ROOT / "vitzoo")
    code = "from vitzoo.errors import advise; print(advise(repository='make', wheel='demo'))"
    for path, advice in ((ROOT, "make"), (tmp_path / "site", "demo")):
        environment = os.environ | {"PYTHONPATH": str(path)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{advice}\n"


def test_only_advice_in_the_repository_names_its_commands() -> None:
    found = 0
    for path in (ROOT / "vitzoo").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if not is_command(source):
            continue
        tree = ast.parse(source)
        named = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and is_command(node.value)]
        advised = [
            node
            for keyword in ast.walk(tree)
            if isinstance(keyword, ast.keyword) and keyword.arg == "repository"
            for node in ast.walk(keyword.value)
        ]
        assert not [node.value for node in named if node not in advised], path
        found += len(named)
    assert found >= 4


def is_command(text: object) -> bool:
    """Tell whether a text has a command of the repository, other than between the two backticks of a docstring."""
    return isinstance(text, str) and (
        "python -m training" in text.replace("``python -m training", "") or '"make ' in text
    )
