"""The local engine in a storm: a short one in the fast tests, long ones by ``make chaos``."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.storm import Run, Storm, fill_disk, kill_driver, kill_group, kill_worker, make_raise
from tests.conftest import ROOT
from tests.tiny import restless
from tests.training.population.folders import check_whole
from tests.training.population.processes import begin
from training.recipes.plan import plan_members

SHORT = ("worker", "driver")
KILLS = (*SHORT, "group")
LONG = (*KILLS, "raise", "worker", "worker") * 4  # 20 of them kill
FULL = """
set -e
mount -t tmpfs -o size=16m tmpfs "$1"
exec "$2" -m tests.chaos.test_local "$1" "$3" "$4"
"""


def storm(folder: Path, *, recipe: str, blows: tuple[str, ...], seed: int, members: int, most: int = 3) -> Storm:
    """Train a zoo in a storm, and return the storm."""

    def strike(blow: str, run: Run, draw: random.Random) -> None:
        match blow:
            case "worker":
                kill_worker(run, draw)
            case "driver":
                kill_driver(run, folder)
            case "group":
                kill_group(run, folder)
            case "raise":
                make_raise(folder, run, draw)
            case "disk":
                fill_disk(folder, run)

    raging = Storm(
        folder=folder,
        begin=lambda number: begin(recipe, folder, "--workers", "2", number=number),
        blows=blows,
        seed=seed,
        members=members,
        most=most,
    )
    raging.rage(strike)
    return raging


@pytest.mark.slow
def test_a_run_survives_a_short_storm(tiny_zoo: Path, tmp_path: Path) -> None:
    raging = storm(tmp_path / "zoo", recipe="tiny", blows=SHORT, seed=0, members=11, most=6)
    assert raging.happened == dict.fromkeys(SHORT, 1)
    check_whole(tmp_path / "zoo", tiny_zoo)
    raging.check_nothing_was_trained_twice()


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(3))
def test_a_run_survives_a_long_storm(seed: int, restless_zoo: Path, tmp_path: Path) -> None:
    blows = random.Random(seed).sample(LONG, len(LONG))
    members = len(plan_members(restless()))
    raging = storm(tmp_path / "zoo", recipe="restless", blows=tuple(blows), seed=seed, members=members)
    assert sum(raging.happened[kind] for kind in KILLS) >= 20
    check_whole(tmp_path / "zoo", restless_zoo)
    raging.check_nothing_was_trained_twice()


@pytest.mark.chaos
def test_a_run_survives_a_full_disk(restless_zoo: Path, tmp_path: Path) -> None:
    mount = ["unshare", "-Urm", "sh", "-c", FULL, "sh", str(tmp_path / "disk"), sys.executable, str(restless_zoo), "0"]
    (tmp_path / "disk").mkdir()
    try:
        tried = subprocess.run([*mount[:4], "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare on this machine")
    if tried.returncode:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.strip()}")
    done = subprocess.run(mount, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":  # in the namespace of a small disk
    disk, reference, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    every = ("disk", "worker", "disk", "driver", "disk", "group", "disk")
    over = storm(disk / "zoo", recipe="restless", blows=every, seed=number, members=len(plan_members(restless())))
    assert over.happened["disk"] >= 3
    check_whole(disk / "zoo", reference)
    over.check_nothing_was_trained_twice()
