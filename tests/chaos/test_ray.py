"""The Ray engine in a storm, on a real cluster of a head and two machines.

The short one is `tests/training/population/test_ray.py`'s, which every run of the tests has.
"""

import random
from pathlib import Path

import pytest

from tests.chaos.storm import Run, Storm, kill_driver, make_raise
from tests.tiny import restless
from tests.training.population.cluster import Cluster
from tests.training.population.folders import check_whole, leave_halves
from tests.training.population.processes import begin, wait_until
from training.recipes.plan import plan_members

KILLS = ("worker", "machine", "driver")
LONG = (*KILLS, "raise", "worker", "worker") * 4  # 20 of them kill


@pytest.mark.chaos
@pytest.mark.parametrize("kind", ["shared", "scratch"])
def test_a_long_storm(kind: str, restless_zoo: Path, tmp_path: Path) -> None:
    folder, scratch, ray = tmp_path / "zoo", tmp_path / "scratch", Cluster(nodes=2)

    def strike(blow: str, run: Run, draw: random.Random) -> None:
        match blow:
            case "worker":
                if ranks := ray.ranks():
                    draw.choice(ranks).kill()
            case "machine":
                ray.kill_machine()
                ray.add_machine()
            case "driver":
                kill_driver(run, folder)
                wait_until(lambda: not ray.ranks())  # Ray ends what a dead driver began
                leave_halves(folder)
            case "raise":
                make_raise(folder, run, draw)

    options = ("--engine", "ray", "--address", ray.address)
    options += () if kind == "shared" else ("--scratch", str(scratch))
    raging = Storm(
        folder=folder,
        begin=lambda number: begin("restless", folder, *options, number=number),
        blows=random.Random(len(kind)).sample(LONG, len(LONG)),
        seed=len(kind),
        members=len(plan_members(restless())),
    )
    try:
        raging.rage(strike)
        assert sum(raging.happened[kind] for kind in KILLS) >= 20
        check_whole(folder, restless_zoo)
        raging.check_nothing_was_trained_twice()
        assert not ray.ranks()
        assert kind == "shared" or list(scratch.iterdir()) == []
    finally:
        ray.close()
