"""Read recipes from a user's files: a Python function, or the configs of the zoo's authors.

A Python file runs once for each read, like ``python file.py`` but under another name than ``__main__``. It may import
modules from its own folder. See `authors_json.py` for the authors' JSON.
"""

import contextlib
import inspect
import runpy
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from training.recipes.authors_json import authors_recipe, read_config
from training.recipes.recipe import LoadedRecipe, Recipe
from vitzoo.errors import TrainingError, did_you_mean, printable

_FUNCTION = "recipe"
_MODULE = "recipe_file"  # the name of the module while it runs


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
    if text.endswith(".json"):
        *first, last = text.split(".json+")  # a plus sign within a name splits nothing
        files = [*(Path(f"{part}.json") for part in first), Path(last)]
        return authors_recipe([read_config(path) for path in files], name="+".join(path.stem for path in files))
    if Path(text).is_dir():
        paths = sorted(Path(text).glob("*.json"))
        if not paths:
            raise TrainingError(f"{text} has no JSON file", fix="Name a folder of the authors' configs, or a .py file.")
        return authors_recipe([read_config(path) for path in paths], name=Path(text).resolve().name)
    path, separator, function = text.rpartition(".py:")
    if separator:
        return LoadedRecipe(recipe=_run(Path(f"{path}.py"), function))
    if not text.endswith(".py"):
        raise TrainingError(
            f"{text} is not a recipe", expected="a .py file, .py:function, .json files joined by +, or a folder of them"
        )
    return LoadedRecipe(recipe=_run(Path(text), _FUNCTION))


def _run(path: Path, function: str) -> Recipe:
    """Return the recipe that a function in a Python file returns."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be read: {error.strerror}",
            expected="a .py file alone, or JSON files of the zoo's authors joined by +",
        ) from error
    with _user_code(path):
        values = runpy.run_path(str(path), run_name=_MODULE)
    if function not in values:
        functions = [name for name, value in values.items() if inspect.isfunction(value) and name[0] != "_"]
        functions = [name for name in functions if values[name].__module__ == _MODULE]
        fix = f"Name one: {path}:<function>." if functions else f"Write def {function}() that returns a Recipe."
        raise TrainingError(
            f'{path} has no function "{printable(function)}"', fix=fix + did_you_mean(function, functions)
        )
    with _user_code(path):
        recipe = values[function]()
    if not isinstance(recipe, Recipe):
        raise TrainingError(
            f"{function} in {path} returned {type(recipe).__name__}", expected="a Recipe (training.recipes.recipe)"
        )
    return recipe


@contextlib.contextmanager
def _user_code(path: Path) -> Iterator[None]:
    """Import modules from the file's own folder, like ``python file.py``, and name the line that raised an error."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except (Exception, SystemExit) as error:
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        number, text = (frames[-1].lineno, frames[-1].line) if frames else (line, getattr(error, "text", None))
        where = f"{path}, line {number}" if number else str(path)
        code = f" ({printable(text.strip())})" if text else ""
        raise TrainingError(f"{where}{code}: {type(error).__name__}: {error}") from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
