"""Read recipes from a user's files: a Python function, or the configs of the zoo's authors.

A Python file runs once for each read, like ``python file.py`` but under another name than ``__main__``. It is the
user's own code, and may import modules from its own folder. See `authors_json.py` for the authors' JSON.
"""

import contextlib
import inspect
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.recipes.authors_json import authors_recipe, read_config
from training.recipes.recipe import LoadedRecipe, Recipe
from vitzoo.errors import TrainingError, did_you_mean, printable

_FUNCTION = "recipe"
_MODULE = "recipe_file"  # the name of the module while it runs
_MIXED = re.compile(r"\.py(:\w*)?\+.|\.json\+.*\.py(:\w*)?$")
_FUNCTION_OF = re.compile(r"(?<=\.py):\w*$")


def is_recipe_file(text: str) -> bool:
    """Return whether a text names a file or a folder rather than a recipe of the repository."""
    path, _, _ = text.partition(".py:")
    return bool(text) and ("/" in text or path != text or text.endswith((".py", ".json")) or Path(text).is_dir())


def read_recipe_file(text: str) -> LoadedRecipe:
    """Read the recipe in a file.

    Args:
        text: ``my.py``, ``my.py:function``, ``config.json``, ``pre.json+ft.json``, or a folder of JSON files.

    Raises:
        TrainingError: The file or the function does not exist, fails, or does not return a recipe.
    """
    if _MIXED.search(text) and not Path(_FUNCTION_OF.sub("", text)).exists():
        raise TrainingError(
            f"{text} joins a Python file to others; only JSON files of the zoo's authors are joined by +",
            fix="Name the .py file alone, or JSON files alone.",
        )
    if text.endswith(".json"):
        files = [Path(part) for part in _split_json(text)]
        return _read_json(files, name="+".join(path.stem for path in files))
    if Path(text).is_dir():
        paths = sorted(Path(text).glob("*.json"))
        if not paths:
            raise TrainingError(f"{text} has no JSON file", fix="Name a folder of the authors' configs, or a .py file.")
        return _read_json(paths, name=Path(text).resolve().name)
    path, separator, function = text.rpartition(".py:")
    if separator:
        return LoadedRecipe(recipe=_run(Path(f"{path}.py"), function))
    if not text.endswith(".py"):
        raise TrainingError(
            f"{text} is not a recipe: expected a .py file, .py:function, .json files joined by +, or a folder of them."
        )
    return LoadedRecipe(recipe=_run(Path(text), _FUNCTION))


def _split_json(text: str) -> list[str]:
    """Split ``a.json+b.json`` into files. A plus sign within a name splits nothing."""
    *first, last = text.split(".json+")
    return [f"{part}.json" for part in first] + [last]


def _read_json(paths: list[Path], *, name: str) -> LoadedRecipe:
    return authors_recipe([read_config(path) for path in paths], name=name)


def _run(path: Path, function: str) -> Recipe:
    """Return the recipe that a function in a Python file returns."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}", fix="Name the file of the recipe.") from error
    with _import_from_folder(path), _locate_errors(path):
        values = runpy.run_path(str(path), run_name=_MODULE)
    make = _find(values, function, path)
    with _import_from_folder(path), _locate_errors(path):
        recipe = make()
    if inspect.iscoroutine(recipe):
        recipe.close()  # Python would warn that nothing awaits it
        raise TrainingError(f"{function} in {path} is async; expected def {function}(): return ...")
    if not isinstance(recipe, Recipe):
        raise TrainingError(
            f"{function} in {path} returned {type(recipe).__name__}", expected="a Recipe (training.recipes.recipe)"
        )
    return recipe


def _find(values: dict[str, Any], function: str, path: Path) -> Callable[[], object]:
    own = [
        name
        for name, value in values.items()
        if inspect.isfunction(value) and value.__module__ == _MODULE and not name.startswith("_")
    ]
    make = values.get(function)
    if make is None:
        nearest = did_you_mean(function, own) or " It defines no function."
        fix = f" Name one: {path}:<function>." if own else f" Write def {function}() that returns a Recipe."
        raise TrainingError(f'{path} has no function "{printable(function)}".{nearest}{fix}')
    if not callable(make):
        raise TrainingError(
            f"{function} in {path} is a {type(make).__name__}, not a function; expected def {function}(): return ..."
        )
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise TrainingError(
            f"{function} in {path} cannot be called without arguments: {error}", fix="Give each a default."
        ) from error
    return make


@contextlib.contextmanager
def _import_from_folder(path: Path) -> Iterator[None]:
    """Import modules from the file's own folder, like ``python file.py``."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


@contextlib.contextmanager
def _locate_errors(path: Path) -> Iterator[None]:
    """Name the line of a user's file that raised an error."""
    try:
        yield
    except (Exception, SystemExit) as error:
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        number, text = (frames[-1].lineno, frames[-1].line) if frames else (line, getattr(error, "text", None))
        where = f"{path}, line {number}" if number else str(path)
        code = f" ({printable(text.strip())})" if text else ""
        raise TrainingError(f"{where}{code}: {type(error).__name__}: {error}") from error
