"""The Ray engine in a storm, on a real cluster of a head and two machines.

See `tests/training/population/test_ray.py` for kills in the fast tests.
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
def test_a_ray_run_survives_a_long_storm(restless_zoo: Path, tmp_path: Path) -> None:
    folder, ray = tmp_path / "zoo", Cluster(nodes=2)

    def strike(blow: str, run: Run, draw: random.Random) -> None:
        match blow:
            case "worker":
                if workers := ray.workers():
                    draw.choice(workers).kill()
            case "machine":
                ray.kill_machine()
                ray.add_machine()
            case "driver":
                kill_driver(run, folder)
                wait_until(lambda: not ray.workers())  # Ray ends what a dead driver began
                leave_halves(folder)
            case "raise":
                make_raise(folder, run, draw)

    options, seed = ("--engine", "ray", "--address", ray.address), 6
    raging = Storm(
        folder=folder,
        begin=lambda number: begin("restless", folder, *options, number=number),
        blows=random.Random(seed).sample(LONG, len(LONG)),
        seed=seed,
        members=len(plan_members(restless())),
    )
    try:
        raging.rage(strike)
        assert sum(raging.happened[kind] for kind in KILLS) >= 20
        check_whole(folder, restless_zoo)
        raging.check_nothing_was_trained_twice()
        assert not ray.workers()
    finally:
        ray.close()
