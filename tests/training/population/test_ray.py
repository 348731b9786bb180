"""Test the engine on a real Ray cluster: it trains the same bytes as one process, whichever process or machine dies.

A cluster and its workers take seconds to start, so the test of every death is slow, and a fast one kills a worker.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.tiny import tiny
from tests.training.population import cluster
from tests.training.population.folders import check_whole, finished, leave_halves, timings_of, under_way
from tests.training.population.processes import Start, begin, end, kill_all, output_of, session, wait_until
from training.attempts import load_attempts
from training.environment import code_digest, versions
from training.member.execution import Execution
from training.population import ray as engine
from training.population.ray import MemberTrainer, RayEngine, Setup
from training.population.worker import Job
from training.workspace import Workspace
from vitzoo.errors import MissingPackageError, TrainingError


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command line on Ray; its output goes to ``<out>.<n>.log``."""
    started = []

    def start(recipe: str, out: Path, *options: str):
        started.append(begin(recipe, out, "--engine", "ray", *options, number=len(started)))
        return started[-1]

    yield start
    for run in started:
        kill_all(run)


@pytest.fixture
def start_cluster() -> Iterator[Callable[..., cluster.Cluster]]:
    """Start a cluster on this machine."""
    with contextlib.ExitStack() as closing:

        def start(**options: int) -> cluster.Cluster:
            started = cluster.Cluster(**options)
            closing.callback(started.close)
            return started

        yield start


@pytest.mark.slow
def test_ray_replaces_a_killed_worker(start: Start, tiny_zoo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    run = start("tiny", folder, "--workers", "1", "--only", "pt-1")
    wait_until(lambda: under_way(folder), run)
    (worker,) = [process for process in session(run) if process.name().startswith("ray::MemberTr")]
    worker.kill()
    assert end(run) == 0, output_of(run)
    (path,) = (folder / ".training" / "attempts").iterdir()
    assert [note.kind for note in load_attempts(path)] == ["died"]
    weights = "pt-1/model.safetensors"
    assert (folder / weights).read_bytes() == (tiny_zoo / weights).read_bytes()


@pytest.mark.slow
def test_cluster_that_loses_workers_machines_and_its_driver_completes_the_zoo(
    start: Start, start_cluster: Callable[..., cluster.Cluster], tiny_zoo: Path, tmp_path: Path
) -> None:
    folder, ray = tmp_path / "zoo", start_cluster(nodes=2)
    run = start("tiny", folder, "--address", ray.address)
    wait_until(lambda: under_way(folder), run)
    for worker in ray.workers():  # at least one of them trains
        worker.kill()
    wait_until(lambda: finished(folder), run)
    ray.kill_machine()  # the other one goes on
    wait_until(lambda: len(finished(folder)) >= 4 and under_way(folder), run)
    run.kill()
    run.wait()
    wait_until(lambda: not ray.workers())  # Ray ends the workers of a dead driver
    lines, done = under_way(folder), finished(folder)
    leave_halves(folder)

    ray.add_machine()
    run = start("tiny", folder, "--address", ray.address)
    assert end(run) == 0, output_of(run)
    assert f"{len(done)} of 11 members are done already." in output_of(run)
    assert "raylet" not in output_of(run)  # Ray's messages about dead processes are in its log
    for member, before in lines.items():
        assert timings_of(folder, member)[: len(before)] == before
    check_whole(folder, tiny_zoo)
    assert not ray.workers()
    kinds = {note.kind for path in (folder / ".training" / "attempts").iterdir() for note in load_attempts(path)}
    assert kinds == {"died"}


@pytest.mark.slow
def test_ray_without_an_address_is_started_and_ended(start: Start, tiny_zoo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    before = list(Path(tempfile.gettempdir()).glob("vitzoo-ray-*"))
    run = start("tiny", folder, "--workers", "2")
    wait_until(lambda: under_way(folder), run)
    began = psutil.Process(run.pid).children(recursive=True)
    assert end(run) == 0, output_of(run)
    check_whole(folder, tiny_zoo)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in began)
    assert list(Path(tempfile.gettempdir()).glob("vitzoo-ray-*")) == before


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """Make the message of a driver that has not written its line into the zoo folder yet."""
    job = Job(recipe=tiny(), root=Workspace(tmp_path / "zoo", tiny()).root, execution=Execution())
    driver = versions() | {"code": code_digest()}
    return Setup(job=job, run="0a1b", resources={"CPU": 1.0}, slots=1, versions=driver)


def test_machine_with_a_copy_of_the_zoo_is_refused(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_SHARED_SECONDS", 0.0)
    (setup.job.root / ".training/ray-runs.txt").write_text("ffff\n")  # the copy has the lines of earlier runs
    with pytest.raises(TrainingError, match="does not see the zoo folder"):
        MemberTrainer().prepare(setup)


@pytest.mark.parametrize("name", ["torch", "code"])
def test_machine_with_other_versions_is_refused(name: str, setup: Setup) -> None:
    (setup.job.root / ".training/ray-runs.txt").write_text("ffff\n0a1b\n")
    setup.versions[name] = "0.1"
    with pytest.raises(TrainingError, match=f"has {name} ") as error:
        MemberTrainer().prepare(setup)
    assert error.value.expected == "0.1, as on the driver"


@pytest.mark.allow_hosts(["127.0.0.2", "127.0.0.1"])
@pytest.mark.parametrize("address", ["127.0.0.2:1", "ray://127.0.0.2:10001", "nonsense"])
def test_address_without_a_cluster_is_refused(address: str, setup: Setup) -> None:
    with pytest.raises(TrainingError) as error:
        RayEngine(setup.job, address=address, slots=1)
    assert address in error.value.problem
    assert error.value.fix is not None


def test_missing_ray_is_an_error_that_says_how_to_install_it(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError) as error:
        RayEngine(setup.job, address="auto", slots=1)
    assert error.value.package == "ray"
    assert 'pip install ".[ray]"' in (error.value.fix or "")


@pytest.mark.parametrize("gpus", [0.0, 1.5])
def test_share_of_a_gpu_out_of_range_is_refused(gpus: float, setup: Setup) -> None:
    with pytest.raises(TrainingError, match=f"--gpus-per-member {gpus:g} "):
        RayEngine(setup.job, slots=1, gpus_per_member=gpus)
