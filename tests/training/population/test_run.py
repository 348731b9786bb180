"""Whole runs in real processes, ended in every way that a run can be ended, and started again.

Each test compares with ``tiny_zoo``, which was trained in one process without a disturbance. Kills are `tests/chaos`'s.
"""

import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.tiny import tiny
from tests.training.population.command import broken, diverging
from tests.training.population.folders import check_whole, finished, timings_of, touched, under_way
from tests.training.population.processes import (
    Start,
    begin,
    end,
    kill_all,
    said_by,
    session,
    stop_when,
    wait_until,
)
from training.attempts import load_attempts
from training.population.local import LocalEngine
from training.population.run import RunOptions, run_population
from training.population.worker import Job
from training.publish.plan import plan_publication
from training.recipes.plan import plan_members
from vitzoo import records
from vitzoo.errors import EpochNotFoundError
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue, build_tables
from vitzoo.verification.verify import verify_zoo
from vitzoo.zoo.zoo import Zoo

MEMBERS = 11


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command line; what it leaves is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def one_more(recipe: str, out: Path, *, workers: int, preexec_fn: Callable[[], None] | None = None):
        options = ("--workers", str(workers))
        started.append(begin(recipe, out, *options, number=len(started), preexec_fn=preexec_fn))
        return started[-1]

    yield one_more
    for process in started:
        kill_all(process)


def one_worker(job: Job, left: int) -> LocalEngine:
    return LocalEngine(job, workers=1)


def check_order(folder: Path) -> None:
    """No child started before its parent was done."""
    children = [member for member in finished(folder) if "/" in member]
    assert len(children) == MEMBERS - 3
    for child in children:
        begun = timings_of(folder, child)[0]["finished_at"]
        assert begun >= timings_of(folder, child.split("/")[0])[-1]["finished_at"], child


def check_members_whole(folder: Path) -> None:
    """What counts as done has every file, as its record says."""
    source = FolderSource(folder)
    for member in source.member_ids():
        for weights in Catalogue(source).member_record(member).weights:
            path = source.path(layout.weights_file(member, weights.epoch))
            assert path.stat().st_size == weights.size
            assert hashlib.sha256(path.read_bytes()).hexdigest() == weights.sha256
        assert len(records.load_epoch_records(source.path(layout.metrics_file(member)))) == 3


def test_two_runs_on_one_folder_share_the_work(tiny_zoo: Path, tmp_path: Path, start: Start) -> None:
    """The second leaves what the first holds to it, does the rest, and waits."""
    folder = tmp_path / "zoo"
    first = start("tiny", folder, workers=1)
    stop_when(lambda: any(len(lines) == 2 for lines in under_way(folder).values()), first)
    (held,) = under_way(folder)
    done = set(finished(folder))
    second = start("tiny", folder, workers=1)
    children = [f"{held}/ft-0", f"{held}/ft-1"]
    others = [str(member.id) for member in plan_members(tiny()) if not str(member.id).startswith(held)]
    wait_until(lambda: done.union(others) <= set(finished(folder)), second)
    assert held not in finished(folder)
    assert f"{held} is left to process" in said_by(second)
    os.killpg(first.pid, signal.SIGCONT)
    assert end(first) == 0
    assert end(second) == 0
    for run in (first, second):
        assert f"{MEMBERS} members are done in {folder}." in said_by(run)
        wait_until(lambda run=run: not session(run))
    assert set(children) <= set(finished(folder))
    check_whole(folder, tiny_zoo)
    check_order(folder)


def test_a_failing_member_takes_only_its_children_with_it(tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "zoo"
    run = start("broken", folder, workers=1)
    assert end(run) == 1
    said, log = said_by(run), folder / ".training" / "logs" / "pt-0.log"
    (failure,) = [
        line for line in said.splitlines() if line.startswith("failed pt-0: 3 attempts, the last: DatasetError:")
    ]
    assert "digits-10-12" in failure
    assert failure.endswith(f"(log: {log})")
    assert "skipped 2 members whose parent failed or diverged: pt-0/ft-0, pt-0/ft-1" in said
    assert f"3 members are done in {folder}." in said
    assert log.read_text().startswith("Traceback")
    assert "DatasetError" in log.read_text()
    assert finished(folder) == ["pt-1", "pt-1/ft-0", "pt-1/ft-1"]
    table = pq.read_table(folder / layout.table_file("members"))
    assert table.column("id").to_pylist() == finished(folder)
    assert table.equals(build_tables(FolderSource(folder))["members"])

    before = touched(folder)
    assert log.read_text().count("Traceback") == 3
    attempts = load_attempts(folder / ".training" / "attempts" / "pt-0.jsonl")
    assert [(attempt.attempt, attempt.of, attempt.kind, attempt.is_last) for attempt in attempts] == [
        (1, 3, "failed", False),
        (2, 3, "failed", False),
        (3, 3, "failed", True),
    ]
    assert all("digits-10-12" in attempt.reason for attempt in attempts)

    # Nothing was mended: all is as before.
    outcome = run_population(broken(), folder, start_engine=one_worker, options=RunOptions(attempts=1))
    assert [str(member) for member in outcome.done] == finished(folder)
    assert list(outcome.failed) == [MemberId(0)]
    assert outcome.skipped == [MemberId(0, 0), MemberId(0, 1)]
    assert touched(folder) == before
    assert log.read_text().count("Traceback") == 4


def test_a_diverged_member_is_an_outcome(tmp_path: Path, start: Start) -> None:
    """It stays in the zoo and its tables, its children are skipped, and nobody trains it again."""
    folder = tmp_path / "zoo"
    run = start("diverging", folder, workers=2)
    assert end(run) == 0
    said = said_by(run)
    for member in ("pt-0", "pt-1/ft-1"):
        assert re.search(rf"^diverged {member}: its loss was not finite after step 1 of \d+, at a peak", said, re.M)
    assert "skipped 2 members whose parent failed or diverged: pt-0/ft-0, pt-0/ft-1" in said
    assert f"2 members are done in {folder}." in said
    assert finished(folder) == ["pt-0", "pt-1", "pt-1/ft-0", "pt-1/ft-1"]
    zoo = Zoo(folder)
    rows = zoo.table("members").to_pylist()
    assert [(row["id"], row["status"], row["diverged_step"], row["last_good_epoch"]) for row in rows] == [
        ("pt-0", "diverged", 1, 0),
        ("pt-1", "completed", None, None),
        ("pt-1/ft-0", "completed", None, None),
        ("pt-1/ft-1", "diverged", 1, 0),
    ]
    assert [row["sha256"] is None for row in rows] == [True, False, False, True]
    assert [str(ref.member) for ref in zoo.select()] == ["pt-1", "pt-1/ft-0"]
    assert zoo.select(status="diverged", epoch=0).ids == [MemberId(0), MemberId(1, 1)]
    with pytest.raises(EpochNotFoundError, match=r"it diverged after step 1\); expected a saved epoch: 0"):
        zoo["pt-0"].load()
    assert verify_zoo(zoo).problems == ()
    publication = plan_publication(FolderSource(folder), to="org/zoo")
    assert {str(file.path) for file in publication.files} >= {"pt-0/model.epoch-00.safetensors", "pt-0/member.json"}

    before = touched(folder)
    outcome = run_population(diverging(), folder, start_engine=one_worker)
    assert list(outcome.diverged) == [MemberId(0), MemberId(1, 1)]
    assert outcome.skipped == [MemberId(0, 0), MemberId(0, 1)]
    assert touched(folder) == before


def test_files_that_cannot_grow_fail_their_member_and_are_never_taken_for_done(
    tiny_copy: Path, tiny_zoo: Path, start: Start
) -> None:
    for member in ("pt-1", "pt-2/ft-1"):
        shutil.rmtree(tiny_copy / member)
    kept = finished(tiny_copy)
    # Too little for the state of AdamW, enough for that of SGD and for the tables.
    limit = 26_000
    assert max(path.stat().st_size for path in tiny_zoo.rglob("*") if path.is_file()) < limit
    run = start(
        "tiny", tiny_copy, workers=1, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert end(run) == 1
    assert re.search(
        r"failed pt-1: 3 attempts, the last: TrainingError: pt-1: epoch 1, .* cannot be written to .*: File too large",
        said_by(run),
    )
    assert finished(tiny_copy) == sorted([*kept, "pt-2/ft-1"])
    check_members_whole(tiny_copy)
    before = touched(tiny_copy)
    outcome = run_population(tiny(), tiny_copy, start_engine=one_worker)
    assert len(outcome.done) == MEMBERS
    assert not outcome.failed
    check_whole(tiny_copy, tiny_zoo)
    assert before.items() <= touched(tiny_copy).items()
