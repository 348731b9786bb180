"""Test whole runs in real processes, with shared work, failures, divergence and a full disk.

Tests compare with ``tiny_zoo``, which was trained in one process without a disturbance. See `tests/chaos` for kills.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.tiny import tiny
from tests.training.population.command import broken, diverging
from tests.training.population.folders import check_whole, finished, timings_of, touched, under_way
from tests.training.population.processes import (
    PATIENCE,
    Start,
    begin,
    end,
    kill_all,
    output_of,
    session,
    stop_when,
    wait_until,
)
from training.__main__ import app
from training.attempts import load_attempts
from training.population.local import LocalEngine
from training.population.run import run_population
from training.population.worker import Job
from training.publish.plan import plan_publication
from training.recipes import RECIPES
from training.recipes.plan import plan_members
from training.workspace import Workspace
from vitzoo.errors import EpochNotFoundError
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import build_tables
from vitzoo.verification.verify import verify_zoo
from vitzoo.zoo.zoo import Zoo

MEMBERS = 11


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command line, and kill its processes after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(recipe: str, out: Path, *, workers: int):
        started.append(begin(recipe, out, "--workers", str(workers), number=len(started)))
        return started[-1]

    yield start
    for process in started:
        kill_all(process)


def one_worker(job: Job, left: int) -> LocalEngine:
    return LocalEngine(job, workers=1)


def one_worker_with_small_files(job: Job, left: int) -> LocalEngine:
    return LocalEngine(replace(job, train="tests.training.population.trainers:train_with_small_files"), workers=1)


def run_here(recipe: str, out: Path) -> tuple[int, str]:
    """Run the command line in this process, with workers of their own; return exit status and output."""
    with patch.dict(RECIPES, broken=broken, diverging=diverging):
        result = CliRunner().invoke(app, ["run", recipe, "--out", str(out), "--workers", "1"], catch_exceptions=False)
    return result.exit_code, result.output


def check_order(folder: Path) -> None:
    """Assert that no child started before its parent was done."""
    children = [member for member in finished(folder) if "/" in member]
    assert len(children) == MEMBERS - 3
    for child in children:
        start = timings_of(folder, child)[0]["finished_at"]
        assert start >= timings_of(folder, child.split("/")[0])[-1]["finished_at"], child


def test_run_trains_other_members_and_waits_for_a_held_one(
    tiny_copy: Path, tiny_zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for member in ("pt-1", "pt-2/ft-1"):
        shutil.rmtree(tiny_copy / member)
    workspace, outcomes = Workspace(tiny_copy, tiny()), []
    run = Thread(target=lambda: outcomes.append(run_population(tiny(), tiny_copy, start_engine=one_worker)))
    with workspace.hold(MemberId(1)):
        run.start()
        wait_until(lambda: workspace.is_done(MemberId(2, 1)))
    run.join(PATIENCE)
    assert f"pt-1 is left to process {os.getpid()}" in capsys.readouterr().err
    assert len(outcomes[0].done) == MEMBERS
    check_whole(tiny_copy, tiny_zoo)


@pytest.mark.slow
def test_second_run_trains_other_members_and_waits_for_the_first(tiny_zoo: Path, tmp_path: Path, start: Start) -> None:
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
    assert f"{held} is left to process" in output_of(second)
    os.killpg(first.pid, signal.SIGCONT)
    assert end(first) == 0
    assert end(second) == 0
    for run in (first, second):
        assert f"{MEMBERS} members are done in {folder}." in output_of(run)
        wait_until(lambda run=run: not session(run))
    assert set(children) <= set(finished(folder))
    check_whole(folder, tiny_zoo)
    check_order(folder)


def final_accuracies(zoo: Zoo) -> list[tuple[str, str, list[float]]]:
    """Return the final validation accuracies of parents and of children."""
    return [
        (
            stage,
            "val_accuracy",
            [member.metrics[-1].val_accuracy or 0.0 for member in zoo if member.id.is_parent == own],
        )
        for stage, own in (("parents", True), ("children", False))
    ]


def test_failing_member_skips_only_its_children(tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    code, output = run_here("broken", folder)
    assert code == 1
    log = folder / ".training" / "logs" / "pt-0.log"
    assert re.search(rf"^failed pt-0: 3 attempts.*TrainingError.*640.*\(log: {log}\)$", output, re.M)
    assert "skipped 2 members whose parent failed or diverged: pt-0/ft-0, pt-0/ft-1" in output
    assert f"3 members are done in {folder}." in output
    summary = [
        f"{len(values)} {stage}, {metric}: mean {sum(values) / len(values):.2%}, best {max(values):.2%}"
        for stage, metric, values in final_accuracies(Zoo(folder))
    ]
    assert summary
    assert all(line in output for line in summary)
    assert re.search(r"^this run: [\d.]+ (s|min)$", output, re.M)
    assert log.read_text().startswith("Traceback")
    assert "TrainingError" in log.read_text()
    assert finished(folder) == ["pt-1", "pt-1/ft-0", "pt-1/ft-1"]
    table = pq.read_table(folder / layout.table_file("members"))
    assert table.column("id").to_pylist() == finished(folder)
    assert table.equals(build_tables(FolderSource(folder))["members"])

    assert log.read_text().count("Traceback") == 3
    attempts = load_attempts(folder / ".training" / "attempts" / "pt-0.jsonl")
    assert [(attempt.kind, attempt.is_last) for attempt in attempts] == [
        ("failed", False),
        ("failed", False),
        ("failed", True),
    ]
    assert all("640" in attempt.reason for attempt in attempts)


@pytest.mark.slow
def test_diverged_member_stays_in_the_zoo(tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    code, output = run_here("diverging", folder)
    assert code == 0
    for member in ("pt-0", "pt-1/ft-1"):
        assert re.search(rf"^diverged {member}: ", output, re.M)
    assert "skipped 2 members whose parent failed or diverged: pt-0/ft-0, pt-0/ft-1" in output
    assert f"2 members are done in {folder}." in output
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
    with pytest.raises(EpochNotFoundError) as error:
        zoo["pt-0"].load()
    assert list(error.value.epochs) == [0]
    assert verify_zoo(zoo).problems == ()
    publication = plan_publication(FolderSource(folder), to="org/zoo")
    assert {str(file.path) for file in publication.files} >= {"pt-0/model.epoch-00.safetensors", "pt-0/member.json"}

    before = touched(folder)
    outcome = run_population(diverging(), folder, start_engine=one_worker)
    assert list(outcome.diverged) == [MemberId(0), MemberId(1, 1)]
    assert outcome.skipped == [MemberId(0, 0), MemberId(0, 1)]
    assert touched(folder) == before


@pytest.mark.slow
def test_member_that_cannot_be_written_fails_and_is_trained_later(tiny_copy: Path, tiny_zoo: Path) -> None:
    for member in ("pt-1", "pt-2/ft-1"):
        shutil.rmtree(tiny_copy / member)
    kept = finished(tiny_copy)
    outcome = run_population(tiny(), tiny_copy, start_engine=one_worker_with_small_files)
    reason = r"3 attempts, the last: TrainingError: pt-1: epoch 1, .* cannot be written to .*: File too large"
    assert re.match(reason, outcome.failed.pop(MemberId(1)))
    assert not outcome.failed
    assert finished(tiny_copy) == sorted([*kept, "pt-2/ft-1"])
    assert verify_zoo(Zoo(tiny_copy)).problems == ()
    before = touched(tiny_copy)
    outcome = run_population(tiny(), tiny_copy, start_engine=one_worker)
    assert len(outcome.done) == MEMBERS
    assert not outcome.failed
    check_whole(tiny_copy, tiny_zoo)
    assert before.items() <= touched(tiny_copy).items()
