"""Load recipes of whole populations: by a name in `RECIPES`, or from a user's file.

See `files.py` for files, and `recipe.py` for the parts of a recipe.
"""

from collections.abc import Callable

from training.recipes.digits import demo, digits, digits_full, digits_self_supervised
from training.recipes.evening import evening, evening_self_supervised
from training.recipes.files import is_recipe_file, read_recipe_file
from training.recipes.language import bert_medium, language, language_as_released
from training.recipes.paper import as_released, no_mixup, paper
from training.recipes.recipe import LoadedRecipe, Recipe, start_notes
from training.recipes.snippets import snippets
from vitzoo.errors import TrainingError, did_you_mean

RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits": digits,
    "digits_full": digits_full,
    "digits_self_supervised": digits_self_supervised,
    "demo": demo,
    "paper": paper,
    "as_released": as_released,
    "no_mixup": no_mixup,
    "evening": evening,
    "evening_self_supervised": evening_self_supervised,
    "snippets": snippets,
    "language": language,
    "language_as_released": language_as_released,
    "bert_medium": bert_medium,
}


def load_recipe(name: str) -> Recipe:
    """Return the recipe of a name or a file, as `read_recipe`."""
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
        recipe = RECIPES[name]()
        return LoadedRecipe(recipe=recipe, notes=start_notes(recipe))
    if is_recipe_file(name):
        return read_recipe_file(name)
    raise TrainingError(f'No recipe is called "{name}"', fix=did_you_mean(name, RECIPES).strip())
