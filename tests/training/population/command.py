"""The real command line, ``python -m training``, with recipes for tests beside the published ones.

``tiny`` is `tests.tiny`'s; ``broken`` is a part of it whose first parent names a data set that nobody knows.
"""

from dataclasses import replace

from training.environment import fix_environment

fix_environment()

from tests.tiny import tiny  # noqa: E402
from training.__main__ import app  # noqa: E402
from training.recipes import RECIPES  # noqa: E402
from training.recipes.recipe import Recipe  # noqa: E402
from vitzoo.cli import run_app  # noqa: E402


def broken() -> Recipe:
    """Two parents of two children each; the data set of pt-0 does not exist."""
    recipe = tiny()
    dataset = replace(recipe.parents[0].training.dataset, name="digits-10-12")
    bad = replace(recipe.parents[0], training=replace(recipe.parents[0].training, dataset=dataset), replicates=1)
    return replace(recipe, name="broken", parents=(bad, recipe.parents[1]))


if __name__ == "__main__":
    RECIPES.update(tiny=tiny, broken=broken)
    run_app(app)
