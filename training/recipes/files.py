"""Recipes in files of a user's own: a Python function, or the configs of the zoo's authors.

A Python file is run once each time it is asked for, as ``python file.py`` would but under another name than
``__main__``; it is the user's own code, and may import what lies beside it. What the authors' JSON means is
`authors_json.py`'s.
"""

import contextlib
import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from training.recipes.authors_json import authors_recipe, read_config
from training.recipes.recipe import LoadedRecipe, Recipe
from vitzoo.errors import TrainingError, did_you_mean, printable

_FUNCTION = "recipe"
_MIXED = re.compile(r"\.py(:\w*)?\+.|\.json\+.*\.py(:\w*)?$")
_FUNCTION_OF = re.compile(r"(?<=\.py):\w*$")


def is_recipe_file(text: str) -> bool:
    """Whether a text names a file or a folder rather than a recipe of ours."""
    path, _, _ = text.partition(".py:")
    return bool(text) and ("/" in text or path != text or text.endswith((".py", ".json")) or Path(text).is_dir())


def read_recipe_file(text: str) -> LoadedRecipe:
    """The recipe in a file.

    Args:
        text: ``my.py``, ``my.py:function``, ``config.json``, ``pre.json+ft.json``, or a folder of JSON files.

    Raises:
        TrainingError: There is no such file or function, it fails, or gives no recipe.
    """
    if _MIXED.search(text) and not Path(_FUNCTION_OF.sub("", text)).exists():
        raise TrainingError(
            f"{text} joins a Python file to others; only JSON files of the zoo's authors are joined by +. Name the .py "
            "file alone, or JSON files alone."
        )
    if text.endswith(".json"):
        files = [Path(part) for part in _split_json(text)]
        return _read_json(files, name="+".join(path.stem for path in files))
    if Path(text).is_dir():
        paths = sorted(Path(text).glob("*.json"))
        if not paths:
            raise TrainingError(f"{text} holds no JSON file. Name a folder of the authors' configs, or a .py file.")
        return _read_json(paths, name=Path(text).resolve().name)
    path, separator, function = text.rpartition(".py:")
    if separator:
        return LoadedRecipe(recipe=_run(Path(f"{path}.py"), function))
    if not text.endswith(".py"):
        raise TrainingError(
            f"{text} is no recipe: expected a .py file, .py:function, .json files joined by +, or a folder of them."
        )
    return LoadedRecipe(recipe=_run(Path(text), _FUNCTION))


def _split_json(text: str) -> list[str]:
    """The files of ``a.json+b.json``; a plus sign within a name parts nothing."""
    *first, last = text.split(".json+")
    return [f"{part}.json" for part in first] + [last]


def _read_json(paths: list[Path], *, name: str) -> LoadedRecipe:
    return authors_recipe([read_config(path) for path in paths], name=name)


def _run(path: Path, function: str) -> Recipe:
    """What a function in a Python file returns."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}. Name the file of the recipe.") from error
    # Found under its name by what looks up the module of a class, as dataclasses do.
    module = ModuleType(f"recipe_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    with _beside(path), _said_where(path):
        exec(compile(source, str(path), "exec"), module.__dict__)
    make = _find(module, function, path)
    with _beside(path), _said_where(path):
        made = make()
    if inspect.iscoroutine(made):
        made.close()  # which nobody awaits, and Python would warn of
        raise TrainingError(f"{function} in {path} is async; expected def {function}(): return ...")
    if not isinstance(made, Recipe):
        raise TrainingError(
            f"{function} in {path} returned {type(made).__name__}; expected a Recipe (training.recipes.recipe)."
        )
    return made


def _find(module: ModuleType, function: str, path: Path):
    own = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    found = vars(module).get(function)
    if found is None:
        there = did_you_mean(function, own) or " It defines no function."
        hint = f" Name one: {path}:<function>." if own else f" Write def {function}() that returns a Recipe."
        raise TrainingError(f'{path} has no function "{printable(function)}".{there}{hint}')
    if not callable(found):
        raise TrainingError(
            f"{function} in {path} is a {type(found).__name__}, no function; expected def {function}(): return ..."
        )
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise TrainingError(
            f"{function} in {path} cannot be called without arguments: {error}. Give each a default."
        ) from error
    return found


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Import from the file's own folder, as when it is run."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


@contextlib.contextmanager
def _said_where(path: Path) -> Iterator[None]:
    """Say in which line of a user's file something was raised."""
    try:
        yield
    except (Exception, SystemExit) as error:
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        number, text = (lines[-1].lineno, lines[-1].line) if lines else (line, getattr(error, "text", None))
        where = f"{path}, line {number}" if number else str(path)
        code = f" ({printable(text.strip())})" if text else ""
        raise TrainingError(f"{where}{code}: {type(error).__name__}: {error}") from error
