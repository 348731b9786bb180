"""Recipes in a user's own files: texts that name files, one run a read, and errors that name the line."""

import re
import sys
from pathlib import Path

import pytest

from tests.tiny import tiny
from training.recipes import load_recipe, read_recipe
from vitzoo.errors import TrainingError

MINE = """
from dataclasses import replace

from tests.tiny import tiny


def recipe():
    return replace(tiny(), name="mine")


def other(name="other"):
    return replace(tiny(), name=name)
"""


def write(text: str, name: str = "my.py") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "name"),
    [("my.py", "mine"), ("{folder}/my.py", "mine"), ("my.py:other", "other"), ("./my.py:recipe", "mine")],
)
def test_function_in_a_file_is_read(text: str, name: str, tmp_path: Path) -> None:
    write(MINE)
    loaded = read_recipe(text.format(folder=tmp_path))
    assert loaded.recipe.name == name
    assert loaded.recipe.parents == tiny().parents
    assert loaded.notes == ()


def test_recipe_name_wins_over_a_folder_of_this_name() -> None:
    Path("digits").mkdir()
    assert load_recipe("digits").name == "digits"


def test_file_runs_once_for_each_read() -> None:
    runs = 'from pathlib import Path\nwith Path("runs").open("a") as file:\n    file.write(__name__ + "\\n")\n'
    write(runs + MINE)
    load_recipe("./my.py")
    assert len(Path("runs").read_text().splitlines()) == 1
    write((runs + MINE).replace('"mine"', '"nine"'))  # in the same second, of the same size
    assert load_recipe("./my.py").name == "nine"
    assert len(Path("runs").read_text().splitlines()) == 2
    assert "__main__" not in Path("runs").read_text()
    assert not Path("__pycache__").exists()


def test_file_imports_modules_of_its_folder_and_leaves_sys_path() -> None:
    write('NAME = "from beside"\n', "folder/beside_my_recipe.py")
    write("from beside_my_recipe import NAME\n" + MINE.replace('"mine"', "NAME"), "folder/my.py")
    before = list(sys.path)
    try:
        assert load_recipe("folder/my.py").name == "from beside"
    finally:
        sys.modules.pop("beside_my_recipe", None)
    assert sys.path == before


def test_file_defines_dataclasses() -> None:
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    write(head + "\n\n@dataclass\nclass Mine:\n    x: int = 0\n" + MINE)
    assert load_recipe("./my.py").name == "mine"


FAILURES = [  # the file, the text, the start of the message
    (None, "./my.py", "my.py cannot be read: No such file or directory; expected a .py file alone"),
    ("", "./my.py", 'my.py has no function "recipe". Write def recipe() that returns'),
    (MINE, "my.py:othr", 'my.py has no function "othr". Name one: my.py:<function>. Nearest: other.'),
    (
        MINE.replace("def recipe", "def zoo"),
        "my.py",
        'my.py has no function "recipe". Name one: my.py:<function>. There are: zoo, other.',
    ),
    (MINE.replace("def recipe()", "def recipe(seed)"), "my.py", "my.py: TypeError: recipe() missing 1 required"),
    ("def recipe():\n    return 3\n", "my.py", "recipe in my.py returned int; expected a Recipe"),
    ("from tests.tiny import tiny\nrecipe = tiny()\n", "my.py", "my.py: TypeError: 'Recipe' object is not callable"),
    (
        "from training.recipes.training import Mixing\n\n\ndef recipe():\n    return Mixing(mixup=-1.0)\n",
        "my.py",
        "my.py, line 5 (return Mixing(mixup=-1.0)): FieldError: mixup is -1.0; expected the alpha of Beta",
    ),
    ("def recipe(:\n", "my.py", "my.py, line 1 (def recipe(:): SyntaxError: invalid syntax"),
    ("x = 1\0\n", "my.py", "my.py: "),
    ("import sys\nsys.exit(3)\n", "my.py", "my.py, line 2 (sys.exit(3)): SystemExit: 3"),
    (
        "def recipe():\n    raise KeyError('gone')\n",
        "my.py",
        "my.py, line 2 (raise KeyError('gone')): KeyError: 'gone'",
    ),
    (None, "./my.toml", "./my.toml is not a recipe; expected a .py file, .py:function, .json files joined by +"),
    (None, "pre.json+my.py", "pre.json+my.py cannot be read: No such file or directory; expected a .py file alone"),
    (None, "./my.json", "my.json cannot be read: No such file or directory"),
    (None, ".", ". has no JSON file. Name a folder of the authors' configs, or a .py file."),
]


@pytest.mark.parametrize("name", ["my.py+b.py", "a.json+b.py"])
def test_plus_sign_in_a_file_name_joins_nothing(name: str) -> None:
    write(MINE, name)
    assert load_recipe(name).name == "mine"
    assert load_recipe(f"./{name}:other").name == "other"


def test_empty_name_is_refused() -> None:
    write("{}", "pre.json")  # of the folder that a path of no text would be
    with pytest.raises(TrainingError, match=r'^No recipe is called ""'):
        load_recipe("")


@pytest.mark.parametrize(("content", "text", "message"), FAILURES)
def test_bad_file_is_refused_with_the_line(content: str | None, text: str, message: str) -> None:
    if content is not None:
        write(content)
    before = list(sys.path)
    with pytest.raises(TrainingError, match=f"^{re.escape(message)}"):
        load_recipe(text)
    assert sys.path == before


def test_error_of_a_file_keeps_its_cause() -> None:
    write("def recipe():\n    return 1 / 0\n")
    with pytest.raises(TrainingError) as caught:
        load_recipe("my.py")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
