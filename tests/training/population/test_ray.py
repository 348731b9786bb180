"""The engine on a real Ray cluster: what it trains is what one process trains, whoever dies meanwhile.

A cluster takes seconds to come up, so all that one can show is one test.
"""

import contextlib
import fcntl
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from safetensors import safe_open

from tests.conftest import ROOT
from tests.tiny import tiny
from tests.training.member import test_ranks
from tests.training.population import cluster
from tests.training.population.folders import check_whole, finished, leave_halves, timings_of, under_way
from tests.training.population.processes import COMMAND, PATIENCE, Start, begin, end, kill_all, said_by, wait_until
from training import environment
from training.attempts import load_attempts
from training.member.checkpoint import load_resume_state
from training.member.execution import Execution
from training.member.report import Report
from training.member.train import train_member
from training.population.engines import ray_scratch
from training.population.engines.ray import RayEngine
from training.population.engines.ray_cluster import Cluster, worker_environment
from training.population.engines.ray_folder import OwnFolder
from training.population.engines.ray_gang import Need, describe_end, environments
from training.population.engines.ray_rank import Place
from training.population.engines.ray_scratch import Inbox, Log, Outbox, ScratchZoo, Sent, parts_to_start_from
from training.population.worker import Job
from training.recipes.plan import plan_member
from training.workspace import Workspace, log_path
from vitzoo.errors import MissingPackageError, TrainingError
from vitzoo.ids import MemberId

MEMBER = MemberId(1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command line on Ray; its output goes to ``<out>.<n>.log``."""
    started = []

    def start(recipe: str, out: Path, *options: str):
        started.append(begin(recipe, out, "--engine", "ray", *options, number=len(started)))
        return started[-1]

    yield start
    for run in started:
        kill_all(run)


@pytest.fixture
def start_cluster() -> Iterator[Callable[..., cluster.Cluster]]:
    """Starts a cluster in this machine."""
    with contextlib.ExitStack() as closing:

        def start(**options: int) -> cluster.Cluster:
            started = cluster.Cluster(**options)
            closing.callback(started.close)
            return started

        yield start


def test_a_cluster_that_loses_processes_machines_and_its_driver(
    start: Start, start_cluster: Callable[..., cluster.Cluster], tiny_zoo: Path, tmp_path: Path
) -> None:
    """Machines first train in the zoo's folder, then in a scratch folder; members end with the bytes of one process."""
    folder, scratch, ray = tmp_path / "zoo", tmp_path / "scratch", start_cluster(nodes=2)
    run = start("tiny", folder, "--address", ray.address)
    wait_until(lambda: under_way(folder), run)
    for rank in ray.ranks():  # one of them at least is at a member; others come in their place
        rank.kill()
    wait_until(lambda: finished(folder), run)
    ray.kill_machine()  # the other one goes on
    wait_until(lambda: len(finished(folder)) >= 4 and under_way(folder), run)
    run.kill()
    run.wait()
    wait_until(lambda: not ray.ranks())  # Ray ends what a dead driver began
    lines, done = under_way(folder), finished(folder)
    leave_halves(folder)

    ray.add_machine()
    run = start("tiny", folder, "--address", ray.address, "--scratch", str(scratch))
    assert end(run) == 0, said_by(run)
    assert list(scratch.iterdir()) == []
    assert f"{len(done)} of 11 members are done already." in said_by(run)
    assert "raylet" not in said_by(run)  # of which Ray prints pages
    for member, before in lines.items():
        assert timings_of(folder, member)[: len(before)] == before
    check_whole(folder, tiny_zoo)
    assert not ray.ranks()
    kinds = {note.kind for path in (folder / ".training" / "attempts").iterdir() for note in load_attempts(path)}
    assert kinds == {"died"}


@pytest.mark.slow
def test_a_ray_of_this_machine_alone_that_trains_in_scratch(start: Start, tiny_zoo: Path, tmp_path: Path) -> None:
    """No address: Ray is started, and ended. What is trained in a scratch folder comes to the zoo after each epoch."""
    folder, scratch = tmp_path / "zoo", tmp_path / "scratch"
    before = list(Path(tempfile.gettempdir()).glob("vitzoo-ray-*"))
    run = start("tiny", folder, "--scratch", str(scratch), "--workers", "2")
    wait_until(lambda: under_way(folder), run)
    began = psutil.Process(run.pid).children(recursive=True)
    assert len(list(scratch.glob("vitzoo-*/zoo/zoo.json"))) >= 1
    assert end(run) == 0, said_by(run)
    check_whole(folder, tiny_zoo)
    assert list(scratch.iterdir()) == []
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in began)
    assert list(Path(tempfile.gettempdir()).glob("vitzoo-ray-*")) == before


@pytest.mark.slow
def test_scratch_folders_of_machines_that_die(
    start: Start, start_cluster: Callable[..., cluster.Cluster], tiny_zoo: Path, tmp_path: Path
) -> None:
    folder, scratch, ray = tmp_path / "zoo", tmp_path / "scratch", start_cluster(nodes=2)
    options = ("--address", ray.address, "--scratch", str(scratch), "--track", "tensorboard")
    run = start("tiny", folder, *options)
    wait_until(lambda: len(finished(folder)) >= 1 and under_way(folder), run)
    ray.kill_machine()
    wait_until(lambda: len(finished(folder)) >= 3 and under_way(folder), run)
    run.kill()
    run.wait()
    wait_until(lambda: not ray.ranks())
    lines = under_way(folder)
    assert list(scratch.iterdir()) != []
    leave_halves(folder)
    ray.add_machine()
    run = start("tiny", folder, *options)
    assert end(run) == 0, said_by(run)
    for member, before in lines.items():
        assert timings_of(folder, member)[: len(before)] == before
    check_whole(folder, tiny_zoo)
    assert list(scratch.iterdir()) == []
    trackers = folder / ".training" / "tracking"
    assert {path.name.replace(".", "/") for path in trackers.iterdir()} == set(finished(folder))
    assert all(list(member.rglob("events.out.tfevents.*")) for member in trackers.iterdir())


@pytest.mark.slow
def test_ranks_of_a_gang_train_what_torchrun_does(
    start: Start, start_cluster: Callable[..., cluster.Cluster], tmp_path: Path
) -> None:
    """Two ranks with a GPU each on one machine (here none: they train on its CPU); one is killed on the way."""
    folder, ray = tmp_path / "zoo", start_cluster(nodes=2, gpus=2)
    only = [option for member in test_ranks.MEMBERS for option in ("--only", member)]
    run = start(f"{test_ranks.__file__}:recipe", folder, "--address", ray.address, "--gpus-per-member", "2", *only)
    test_ranks.train_with_two_ranks(tmp_path / "torchrun")

    def follower() -> psutil.Process | None:
        return next((one for one in ray.ranks() if "follow" in one.cmdline()[0]), None)

    wait_until(follower, run)
    with contextlib.suppress(psutil.NoSuchProcess):
        found = follower()
        assert found is not None
        found.kill()
    assert end(run) == 0, said_by(run)
    for member in test_ranks.MEMBERS:
        for name in ("model.safetensors", "member.json", "metrics.jsonl"):
            assert (folder / member / name).read_bytes() == (tmp_path / "torchrun" / member / name).read_bytes()
    notes = [note for path in (folder / ".training" / "attempts").iterdir() for note in load_attempts(path)]
    assert [note.kind for note in notes] == ["died"]


HIDDEN = """
set -e
mount -t tmpfs tmpfs "$1"
zoo=$1/zoo copy=$2 address=$3
shift 3
"$@" run tiny --out "$zoo" --engine ray --address "$address" > "$copy.log" 2>&1 && exit 10
grep -q 'or give --scratch FOLDER: then members are' "$copy.log" || exit 11
[ -z "$(find "$zoo" -name 'seen-*' -o -name 'pt-*')" ] || exit 12
"$@" run tiny --out "$zoo" --engine ray --address "$address" --scratch "$copy-scratch" > "$copy.log" 2>&1 || exit 13
cp -r "$zoo" "$copy"
"""


@pytest.mark.slow
def test_machines_that_do_not_see_the_zoo(
    start_cluster: Callable[..., cluster.Cluster], tiny_zoo: Path, tmp_path: Path
) -> None:
    """It lies on a disk that is mounted for the driver alone: that is said, and with a scratch folder it is trained."""
    disk, copy = tmp_path / "disk", tmp_path / "zoo"
    disk.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("no unshare on this machine")
    tried = subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.decode().strip()}")
    address = start_cluster(nodes=2).address
    run = ["unshare", "-Urm", "sh", "-c", HIDDEN, "sh", disk, copy, address, *COMMAND]
    done = subprocess.run([*map(str, run)], cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    log = copy.with_name("zoo.log").read_text()
    assert done.returncode == 0, done.stderr + log
    check_whole(copy, tiny_zoo)
    assert list((tmp_path / "zoo-scratch").iterdir()) == []


ADDRESSES = [
    ("127.0.0.2:1", r"No Ray cluster answers at 127.0.0.2:1 within 5 s. Give --address the HOST:PORT that"),
    ("ray://127.0.0.2:10001", r"a run joins a cluster from one of its machines"),
    ("nonsense", r"expected auto, or HOST:PORT such as"),
]


@pytest.mark.allow_hosts(["127.0.0.2", "127.0.0.1"])
@pytest.mark.parametrize(("address", "message"), ADDRESSES)
def test_addresses_that_lead_to_no_cluster(address: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Cluster(address)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r'pip install "\.\[ray\]"'):
        Cluster("auto")


@pytest.mark.parametrize("gpus", [0.0, -1.0, 1.5, 2.25])
def test_numbers_of_gpus_that_no_slot_can_have(gpus: float, tmp_path: Path) -> None:
    job = Job(recipe=tiny(), root=tmp_path / "zoo", execution=Execution())
    with pytest.raises(TrainingError, match=rf"--gpus-per-member {gpus:g}: expected a share of a GPU"):
        RayEngine(job, most=1, gpus_per_member=gpus)


@pytest.mark.parametrize(
    ("need", "resources", "slots"),
    [
        (Need(), {"CPU": 4.0}, 4),
        (Need(), {"GPU": 4.0}, 0),
        (Need(gpus=0.5), {"CPU": 1.0, "GPU": 2.0}, 4),
        (Need(gpus=0.1), {"GPU": 1.0}, 10),
        (Need(gpus=1.0), {"GPU": 8.0}, 8),
        (Need(gpus=1.0, ranks=4), {"GPU": 8.0}, 2),
        (Need(gpus=1.0, ranks=4), {"GPU": 2.0}, 0),
    ],
)
def test_how_many_slots_a_machine_has_room_for(need: Need, resources: dict[str, float], slots: int) -> None:
    assert need.fit_into(resources) == slots


def test_ranks_are_told_what_torchrun_tells() -> None:
    places = [Place(node="n", host="a", port=port, gpus=gpus) for port, gpus in ((4711, "3"), (4712, "5"))]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "4711"}
    common |= {"CUDA_VISIBLE_DEVICES": "3,5"}
    assert environments(places) == [common | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    assert environments(places[:1]) == [{}]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("The actor died. The actor is dead because its node has died. Node Id: 4f", "its machine on a is gone"),
        (
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
            "Worker unexpectedly exits\nwith a connection error code 2. End of file. Some common causes include: ...",
            "its process on a ended: Worker unexpectedly exits with a connection error code 2",
        ),
        ("", "its process on a ended: RuntimeError"),
    ],
)
def test_what_is_said_of_an_end(said: str, told: str) -> None:
    assert describe_end(RuntimeError(said), "a") == told


def test_workers_record_the_drivers_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    here = environment.git_commit()
    told = worker_environment()
    assert told[environment.COMMIT] == (here or "")
    for value, commit in ((told[environment.COMMIT], here), ("abc+dirty.1", "abc+dirty.1"), ("", None)):
        monkeypatch.setenv(environment.COMMIT, value)
        assert environment.git_commit.__wrapped__() == commit


def test_a_folder_lives_as_long_as_its_process(tmp_path: Path) -> None:
    mine = OwnFolder(tmp_path / "new", "vitzoo-")
    (mine.path / "file").touch()
    dead = tmp_path / "new" / "vitzoo-dead"
    dead.mkdir()
    (dead / "lock").touch()
    other = tmp_path / "new" / "other-dead"
    other.mkdir()
    (other / "lock").touch()
    held = tmp_path / "new" / "vitzoo-held"
    held.mkdir()
    with open(held / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = OwnFolder(tmp_path / "new", "vitzoo-")
        assert set((tmp_path / "new").iterdir()) == {mine.path, other, held, second.path}
    mine.remove()
    second.remove()
    assert set((tmp_path / "new").iterdir()) == {other, held}


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """Everything that goes out of a scratch zoo where a member is trained, files in parts of 2 kB."""
    monkeypatch.setattr(ray_scratch, "PART", 2000)
    everything: list[Sent] = []
    workspace = Workspace(tmp_path / "scratch", tiny())
    outbox = Outbox(workspace, MEMBER, everything.append)

    def report(report: Report) -> None:
        if report.step == 0:
            outbox.send_epoch()

    train_member(workspace, plan_member(tiny(), MEMBER), report=report)
    workspace.log_file(MEMBER).write_text("said\n")
    outbox.send_end()
    return everything


def test_files_that_come_in_parts_are_the_member(sent: list[Sent], tiny_zoo: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "zoo", tiny())
    with workspace.hold(MEMBER) as work:
        inbox = Inbox(workspace, work)
        for one in sent:
            inbox.take(one)
        workspace.publish(work)
    workspace.discard(MEMBER)
    files = {path.name: path for path in (tmp_path / "zoo" / "pt-1").iterdir()}
    expected = {path.name: path for path in (tiny_zoo / "pt-1").iterdir() if path.is_file()}
    assert set(files) == set(expected)
    for name in files.keys() - {"timing.jsonl"}:
        assert files[name].read_bytes() == expected[name].read_bytes(), name
    assert files["model.safetensors"].samefile(files["model.epoch-02.safetensors"])  # sent once
    assert log_path(tmp_path / "zoo", MEMBER).read_text() == "said\n"
    assert sent[-1] == Log(text="said\n")


def test_whatever_ends_a_transfer_leaves_the_last_epoch(sent: list[Sent], tmp_path: Path) -> None:
    """After each part: what the zoo then holds can be gone on from, at the last epoch that came whole."""
    workspace, epochs = Workspace(tmp_path / "zoo", tiny()), []
    with workspace.hold(MEMBER) as work:
        inbox = Inbox(workspace, work)
        for one in sent:
            inbox.take(one)
            epochs.append(_resumable(work.resume_file, work.member_folder))
        assert epochs == sorted(epochs)
        assert [epoch for epoch, _ in itertools.groupby(epochs)] == [-1, 0, 1, 2]
        shutil.rmtree(work.folder)
        with pytest.raises(FileNotFoundError):  # another process took over: nothing of its is written to
            inbox.take(sent[0])
        assert not work.folder.exists()


def test_a_machine_goes_on_from_what_the_zoo_holds(
    tmp_path: Path, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that was stopped after an epoch: its parent and its work go over in parts, and it ends with its bytes."""
    monkeypatch.setattr(ray_scratch, "PART", 3000)
    child = MemberId(1, 0)
    expected = (tiny_copy / "pt-1/ft-0/model.safetensors").read_bytes()
    shutil.rmtree(tiny_copy / "pt-1/ft-0")
    workspace, planned = Workspace(tiny_copy, tiny()), plan_member(tiny(), child)

    class Stop(Exception):
        pass

    def stop(report: Report) -> None:
        if (report.epoch, report.step) == (1, 0):
            raise Stop

    with pytest.raises(Stop):
        train_member(workspace, planned, report=stop)
    before = under_way(tiny_copy)["pt-1/ft-0"]
    scratch = ScratchZoo(tmp_path / "scratch", "zoo")
    there = Workspace(scratch.root, tiny())
    with workspace.hold(child) as work:
        for part in parts_to_start_from(workspace, work):
            scratch.receive(part)
    scratch.unpack(there, child)
    record = train_member(there, planned)
    assert (scratch.root / "pt-1/ft-0/model.safetensors").read_bytes() == expected
    assert timings_of(scratch.root, "pt-1/ft-0")[: len(before)] == before
    assert record.commit == workspace.catalogue.member_record(MEMBER).commit
    scratch.clear()
    left = {path.relative_to(scratch.root).as_posix() for path in scratch.root.rglob("*") if path.is_file()}
    assert left == {"zoo.json"}
    scratch.remove()
    assert list((tmp_path / "scratch").iterdir()) == []


def _resumable(resume_file: Path, folder: Path) -> int:
    """The epoch that training would go on from; -1 where it would begin anew."""
    if not resume_file.exists():
        return -1
    with safe_open(resume_file, "pt") as file:
        identity = json.loads(file.metadata()["state"])["identity"]
    found = load_resume_state(resume_file, folder, identity=identity)
    return -1 if found is None else len(found[0].metrics) - 1
