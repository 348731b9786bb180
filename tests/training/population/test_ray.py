"""The engine on a real Ray cluster: it trains the same bytes as one process, whichever process or machine dies.

A cluster takes seconds to start, so one test shows all that one cluster can show.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.tiny import tiny
from tests.training.population import cluster
from tests.training.population.folders import check_whole, finished, leave_halves, timings_of, under_way
from tests.training.population.processes import COMMAND, PATIENCE, Start, begin, end, kill_all, said_by, wait_until
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
    assert end(run) == 0, said_by(run)
    assert f"{len(done)} of 11 members are done already." in said_by(run)
    assert "raylet" not in said_by(run)  # Ray's pages about dead processes are in its log
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
    assert end(run) == 0, said_by(run)
    check_whole(folder, tiny_zoo)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in began)
    assert list(Path(tempfile.gettempdir()).glob("vitzoo-ray-*")) == before


HIDDEN = """
set -e
mount -t tmpfs tmpfs "$1"
zoo=$1/zoo log=$2 address=$3
shift 3
"$@" run tiny --out "$zoo" --engine ray --address "$address" > "$log" 2>&1 && exit 10
[ -z "$(find "$zoo" -name 'pt-*')" ] || exit 11
"""


@pytest.mark.slow
def test_machines_that_do_not_see_the_zoo_are_refused(
    start_cluster: Callable[..., cluster.Cluster], tmp_path: Path
) -> None:
    """The zoo is on a disk that is mounted for the driver alone."""
    disk, log = tmp_path / "disk", tmp_path / "log"
    disk.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("no unshare on this machine")
    tried = subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.decode().strip()}")
    run = ["unshare", "-Urm", "sh", "-c", HIDDEN, "sh", disk, log, start_cluster(nodes=1).address, *COMMAND]
    done = subprocess.run([*map(str, run)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr + log.read_text()
    assert f"does not see the zoo folder {disk}/zoo of the machine that started the run" in log.read_text()
    assert list(disk.iterdir()) == []


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """A message of a driver that has not written its line into the zoo folder yet."""
    job = Job(recipe=tiny(), root=Workspace(tmp_path / "zoo", tiny()).root, execution=Execution())
    told = versions() | {"code": code_digest()}
    return Setup(job=job, run="0a1b", need={"CPU": 1.0}, most=1, versions=told)


def test_machine_with_a_copy_of_the_zoo_is_refused(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_SHARED_SECONDS", 0.0)
    (setup.job.root / ".training/ray-runs.txt").write_text("ffff\n")  # the copy has the lines of earlier runs
    with pytest.raises(TrainingError, match="Mount it there under the same path; a cluster without a shared folder"):
        MemberTrainer().prepare(setup)


@pytest.mark.parametrize("name", ["torch", "code"])
def test_machine_with_other_versions_is_refused(name: str, setup: Setup) -> None:
    (setup.job.root / ".training/ray-runs.txt").write_text("ffff\n0a1b\n")
    setup.versions[name] = "0.1"
    with pytest.raises(TrainingError, match=rf"has {name} \S+ \(driver: 0\.1\): members would not be the same bits"):
        MemberTrainer().prepare(setup)


ADDRESSES = [
    ("127.0.0.2:1", r"No Ray cluster answers at 127\.0\.0\.2:1 within 5 s .*`ray start --head`"),
    ("ray://127.0.0.2:10001", r"a run joins a cluster from one of its machines"),
    ("nonsense", r"expected auto, or HOST:PORT such as"),
]


@pytest.mark.allow_hosts(["127.0.0.2", "127.0.0.1"])
@pytest.mark.parametrize(("address", "message"), ADDRESSES)
def test_address_without_a_cluster_is_refused(address: str, message: str, setup: Setup) -> None:
    with pytest.raises(TrainingError, match=message):
        RayEngine(setup.job, address=address, most=1)


def test_missing_ray_is_an_error_that_says_how_to_install_it(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r'pip install "\.\[ray\]"'):
        RayEngine(setup.job, address="auto", most=1)


@pytest.mark.parametrize("gpus", [0.0, -1.0, 1.5, 2.0])
def test_share_of_a_gpu_out_of_range_is_refused(gpus: float, setup: Setup) -> None:
    with pytest.raises(TrainingError, match=rf"--gpus-per-member {gpus:g}: expected 1 or a share of a GPU"):
        RayEngine(setup.job, most=1, gpus_per_member=gpus)
