"""Run the real command line, ``python -m training``, with recipes for tests beside the published ones."""

from dataclasses import replace

from training.environment import fix_environment

fix_environment()

from tests.text.tiny import tiny_text  # noqa: E402
from tests.tiny import restless, tiny  # noqa: E402
from training.__main__ import app  # noqa: E402
from training.recipes import RECIPES  # noqa: E402
from training.recipes.recipe import Recipe  # noqa: E402
from training.recipes.training import Optimizer  # noqa: E402
from vitzoo.cli import run_app  # noqa: E402


def broken() -> Recipe:
    """Return a recipe of two parents with two children each; the data set of pt-0 has another size."""
    recipe = tiny()
    dataset = replace(recipe.parents[0].training.dataset, train_images=640)
    bad = replace(recipe.parents[0], training=replace(recipe.parents[0].training, dataset=dataset), replicates=1)
    return replace(recipe, name="broken", parents=(bad, recipe.parents[1]))


def diverging() -> Recipe:
    """Return a recipe of two parents with two children each; pt-0 and one child of pt-1 diverge."""
    recipe = tiny()
    far = Optimizer(name="sgd", learning_rate=1e18, momentum=0.9)
    bad = replace(recipe.parents[0], training=replace(recipe.parents[0].training, optimizer=far), replicates=1)
    grid = recipe.children
    children = replace(grid, heads=grid.heads[:1], optimizers=(grid.optimizers[0], far))
    return replace(recipe, name="diverging", parents=(bad, replace(recipe.parents[1], replicates=1)), children=children)


if __name__ == "__main__":
    RECIPES.update(tiny=tiny, restless=restless, broken=broken, diverging=diverging, tiny_text=tiny_text)
    run_app(app)
