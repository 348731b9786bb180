"""Load recipes: whole populations to train. `RECIPES` maps every name to a function that returns its recipe.

digits                                a recipe of this repository, by name
./my.py, ./my.py:small                a user's function, in a file (`files.py`)
./config.json, ./pre.json+ft.json     the configs of the zoo's authors (`authors_json.py`), or a folder of them
"""

from collections.abc import Callable

from training.recipes.digits import digits, digits_full
from training.recipes.files import is_recipe_file, read_recipe_file
from training.recipes.paper import as_released, no_mixup, paper
from training.recipes.recipe import LoadedRecipe, Recipe
from vitzoo.errors import TrainingError, did_you_mean

RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits": digits,
    "digits_full": digits_full,
    "paper": paper,
    "as_released": as_released,
    "no_mixup": no_mixup,
}


def load_recipe(name: str) -> Recipe:
    """Return the recipe of a name or a file.

    Args:
        name: A name in `RECIPES`, or a file as `read_recipe` takes it.

    Raises:
        TrainingError: The recipe does not exist or cannot be read.
    """
    return read_recipe(name).recipe


def read_recipe(name: str) -> LoadedRecipe:
    """Return the recipe of a name or a file, with notes for its reader.

    Args:
        name: A name in `RECIPES`; ``./my.py`` (its function ``recipe``) or ``./my.py:function``; a JSON file of the
            zoo's authors, several joined by ``+``, or a folder of them.

    Raises:
        TrainingError: The recipe does not exist or cannot be read.
    """
    if name in RECIPES:
        return LoadedRecipe(recipe=RECIPES[name]())
    if is_recipe_file(name):
        return read_recipe_file(name)
    raise TrainingError(f'No recipe is called "{name}".{did_you_mean(name, RECIPES)}')
