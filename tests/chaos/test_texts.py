"""A member of a text zoo is killed again and again, with dropout and masking, and ends with the same bytes."""

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.forking import fork
from tests.text.tiny import execution, tiny_text
from tests.training.population.folders import check_whole, leave_halves, under_way
from tests.training.population.processes import wait_until
from training.member.train import train_member
from training.recipes.plan import plan_member
from training.workspace import Workspace
from vitzoo.ids import MemberId

KILLS, EPOCHS = 20, 80


def train(root: Path, sentences: Path) -> None:
    """Train a masked parent with dropout."""
    recipe = tiny_text()
    parent = replace(recipe.parents[0], training=replace(recipe.parents[0].training, epochs=EPOCHS), replicates=0)
    recipe = replace(recipe, parents=(parent,))
    assert parent.training.dropout == 0.1
    assert parent.training.masking is not None
    train_member(Workspace(root, recipe), plan_member(recipe, MemberId(0)), execution=execution(sentences))


@pytest.mark.chaos
def test_twenty_kills_of_a_masked_member_change_no_byte(tmp_path: Path, sentences: Path) -> None:
    draw, zoo = random.Random(0), tmp_path / "zoo"
    for _ in range(KILLS):
        run, target = fork(train, zoo, sentences), len(under_way(zoo).get("pt-0", ())) + draw.randint(1, 3)
        wait_until(
            lambda run=run, target=target: len(under_way(zoo).get("pt-0", ())) >= target or run.exitcode is not None
        )
        time.sleep(draw.uniform(0, 0.1))
        assert run.exitcode is None
        run.kill()
        run.join()
        leave_halves(zoo)
    for root in (zoo, tmp_path / "undisturbed"):
        run = fork(train, root, sentences)
        run.join()
        assert run.exitcode == 0
    check_whole(zoo, tmp_path / "undisturbed")
