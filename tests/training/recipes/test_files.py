"""Recipes in a user's own files: which texts are files, that they are run once, and what is said where they fail."""

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
    [
        ("my.py", "mine"),
        ("./my.py", "mine"),
        ("{folder}/my.py", "mine"),
        ("my.py:other", "other"),
        ("./my.py:other", "other"),
        ("{folder}/my.py:recipe", "mine"),
    ],
)
def test_a_function_in_a_file(text: str, name: str, tmp_path: Path) -> None:
    write(MINE)
    loaded = read_recipe(text.format(folder=tmp_path))
    assert loaded.recipe.name == name
    assert loaded.recipe.parents == tiny().parents
    assert loaded.notes == ()


def test_a_recipe_of_ours_comes_before_a_folder_of_its_name() -> None:
    Path("digits").mkdir()
    assert load_recipe("digits").name == "digits"


def test_a_file_is_run_once_each_time_as_what_it_is_now() -> None:
    runs = 'from pathlib import Path\nwith Path("runs").open("a") as file:\n    file.write(__name__ + "\\n")\n'
    write(runs + MINE)
    load_recipe("./my.py")
    assert len(Path("runs").read_text().splitlines()) == 1
    write((runs + MINE).replace('"mine"', '"nine"'))  # in the same second, of the same size
    assert load_recipe("./my.py").name == "nine"
    assert len(Path("runs").read_text().splitlines()) == 2
    assert "__main__" not in Path("runs").read_text()
    assert not Path("__pycache__").exists()


def test_a_file_imports_what_lies_beside_it_and_leaves_the_path_alone() -> None:
    write('NAME = "from beside"\n', "folder/beside_my_recipe.py")
    write("from beside_my_recipe import NAME\n" + MINE.replace('"mine"', "NAME"), "folder/my.py")
    before = list(sys.path)
    try:
        assert load_recipe("folder/my.py").name == "from beside"
    finally:
        sys.modules.pop("beside_my_recipe", None)
    assert sys.path == before


def test_a_file_may_define_dataclasses() -> None:
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    write(head + "\n\n@dataclass\nclass Mine:\n    x: int = 0\n" + MINE)
    assert load_recipe("./my.py").name == "mine"


FAILURES = [  # the file, what is asked for, what is said
    (None, "./my.py", "my.py cannot be read: No such file or directory. Name the file of the recipe."),
    (
        "",
        "./my.py",
        'my.py has no function "recipe". It defines no function. Write def recipe() that ',
    ),
    (
        MINE,
        "my.py:othr",
        'my.py has no function "othr". Nearest: other. Name one: my.py:<function>.',
    ),
    (
        MINE.replace("def recipe", "def zoo"),
        "my.py",
        'my.py has no function "recipe". There are: zoo, other. Name one: my.py:<function>.',
    ),
    (
        MINE.replace("def recipe()", "def recipe(seed, *, width)"),
        "my.py",
        "recipe in my.py cannot be called without arguments: missing a required argument: 'seed'. Give each a default.",
    ),
    ("def recipe():\n    return 3\n", "my.py", "recipe in my.py returned int; expected a Recipe"),
    (
        "async def recipe():\n    pass\n",  # and no warning that it was never awaited
        "my.py",
        "recipe in my.py is async; expected def recipe(): return ...",
    ),
    ("def recipe():\n    pass\n", "my.py", "recipe in my.py returned NoneType; expected a Recipe"),
    (
        "from tests.tiny import tiny\nrecipe = tiny()\n",
        "my.py",
        "recipe in my.py is a Recipe, not a function; expected def recipe(): return ...",
    ),
    (
        "from training.recipes.training import Mixing\n\n\ndef recipe():\n    return Mixing(mixup=-1.0)\n",
        "my.py",
        "my.py, line 5 (return Mixing(mixup=-1.0)): FieldError: mixup is -1.0; expected the alpha of Beta",
    ),
    (
        "import a_module_that_is_not_there\n",
        "my.py",
        "my.py, line 1 (import a_module_that_is_not_there): ModuleNotFoundError: No module named",
    ),
    ("def recipe(:\n", "my.py", "my.py, line 1 (def recipe(:): SyntaxError: invalid syntax"),
    ("x = 1\0\n", "my.py", "my.py: "),
    ("import sys\nsys.exit(3)\n", "my.py", "my.py, line 2 (sys.exit(3)): SystemExit: 3"),
    (
        "def recipe():\n    raise KeyError('gone')\n",
        "my.py",
        "my.py, line 2 (raise KeyError('gone')): KeyError: 'gone'",
    ),
    (None, "./my.toml", "./my.toml is not a recipe: expected a .py file, .py:function, .json files joined by +"),
    (None, "digits.py:digits", "digits.py cannot be read"),
    (None, "./my.json", "my.json cannot be read: No such file or directory. Name the authors' config."),
    (None, ".", ". has no JSON file. Name a folder of the authors' configs, or a .py file."),
]


@pytest.mark.parametrize(
    "text",
    ["pre.json+my.py", "my.py+ft.json", "my.py:small+ft.json", "pre.json+my.py:small", "a.py+b.py", "./a/b.py+c"],
)
def test_python_and_json_are_not_joined(text: str) -> None:
    write(MINE)
    write("{}", "ft.json")
    with pytest.raises(TrainingError) as caught:
        load_recipe(text)
    assert str(caught.value) == (
        f"{text} joins a Python file to others; only JSON files of the zoo's authors are joined by +. Name the .py "
        "file alone, or JSON files alone."
    )


@pytest.mark.parametrize("name", ["my.py+b.py", "a.json+b.py"])
def test_a_plus_sign_may_stand_in_a_name(name: str) -> None:
    write(MINE, name)
    assert load_recipe(name).name == "mine"
    assert load_recipe(f"./{name}:other").name == "other"


def test_no_name_is_no_folder() -> None:
    write("{}", "pre.json")  # of the folder that a path of no text would be
    with pytest.raises(TrainingError, match=r'^No recipe is called ""\. There are: digits, '):
        load_recipe("")


@pytest.mark.parametrize(("content", "text", "said"), FAILURES)
def test_what_is_wrong_is_said_with_its_place(content: str | None, text: str, said: str) -> None:
    if content is not None:
        write(content)
    before = list(sys.path)
    with pytest.raises(TrainingError, match=f"^{re.escape(said)}"):
        load_recipe(text)
    assert sys.path == before


def test_the_cause_stays() -> None:
    write("def recipe():\n    return 1 / 0\n")
    with pytest.raises(TrainingError) as caught:
        load_recipe("my.py")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
