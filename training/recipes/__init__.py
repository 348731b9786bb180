"""What to train. `RECIPES` names every recipe; a recipe is a function that returns the whole thing."""

from collections.abc import Callable

from training.recipes.digits import digits, digits_full
from training.recipes.recipe import Recipe
from vitzoo.errors import TrainingError, did_you_mean

RECIPES: dict[str, Callable[[], Recipe]] = {"digits": digits, "digits_full": digits_full}


def load_recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        TrainingError: There is none.
    """
    if name not in RECIPES:
        raise TrainingError(f'No recipe is called "{name}".{did_you_mean(name, RECIPES)}')
    return RECIPES[name]()
