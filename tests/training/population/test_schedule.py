"""Test the order of starts, retries, and the end of a run, with real workers that fail on command."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import tiny
from tests.training.population.trainers import starts, write_faults
from training.attempts import load_attempts
from training.member.execution import Execution
from training.population.engine import Event
from training.population.local import LocalEngine
from training.population.run import RunOptions, run_population
from training.population.selection import Shard
from training.population.worker import Job, Worker
from training.recipes.plan import PlannedMember
from training.workspace import Workspace, attempts_file, log_file
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId

EVERY = [f"pt-{parent}{child}" for parent in range(3) for child in ("", "/ft-0", "/ft-1", "/ft-2", "/ft-3")]
MEMBERS = [member for member in EVERY if member not in ("pt-1/ft-2", "pt-1/ft-3", "pt-2/ft-2", "pt-2/ft-3")]


def failing(job: Job, left: int) -> LocalEngine:
    return LocalEngine(replace(job, train="tests.training.population.trainers:train_or_fail"), workers=1)


def texts(members: list[MemberId] | dict[MemberId, str]) -> list[str]:
    return [str(member) for member in members]


@pytest.mark.slow
def test_failed_attempts_are_retried(tmp_path: Path) -> None:
    Workspace(tmp_path, tiny())
    write_faults(tmp_path, pt_0=["raise", "die"], pt_1__ft_0=["die", "raise", "die"], pt_2__ft_1=["die"])
    outcome = run_population(tiny(), tmp_path, start_engine=failing)
    assert texts(outcome.done) == [member for member in MEMBERS if member != "pt-1/ft-0"]
    assert texts(outcome.failed) == ["pt-1/ft-0"]
    log = log_file(tmp_path, MemberId(1, 0))
    assert outcome.failed[MemberId(1, 0)] == f"3 attempts, the last: its process ended by signal 9 (log: {log})"
    assert outcome.stopped is None
    assert outcome.left == []
    kinds = {
        member: [
            (attempt.attempt, attempt.kind)
            for attempt in load_attempts(attempts_file(tmp_path, MemberId.parse(member)))
        ]
        for member in MEMBERS
    }
    assert {member: ended for member, ended in kinds.items() if ended} == {
        "pt-0": [(1, "failed"), (2, "died")],
        "pt-1/ft-0": [(1, "died"), (2, "failed"), (3, "died")],
        "pt-2/ft-1": [(1, "died")],
    }
    order = starts(tmp_path)
    # The contrastive parent costs most. pt-0 raised, so others come before it. A death is retried at once.
    assert order[:3] == ["pt-2", "pt-0", "pt-1"]
    first, second, third = (place for place, member in enumerate(order) if member == "pt-0")
    assert second > first + 1
    assert third == second + 1
    for member in MEMBERS:
        if "/" in member:
            assert order.index(member) > len(order) - 1 - order[::-1].index(member.split("/")[0])


@pytest.mark.slow
def test_run_stops_at_a_full_disk_and_after_its_hours(tmp_path: Path) -> None:
    Workspace(tmp_path, tiny())
    write_faults(tmp_path, pt_0=["full"])
    outcome = run_population(tiny(), tmp_path, start_engine=failing, options=RunOptions(only=("pt-0", "pt-1/*")))
    assert outcome.stopped == "full"
    assert outcome.reason == "OSError: [Errno 28] No space left on device"
    assert texts(outcome.left) == ["pt-0", "pt-1", "pt-1/ft-0", "pt-1/ft-1"]
    assert outcome.failed == {}
    assert starts(tmp_path) == ["pt-0"]  # pt-1 is another run's, so it comes last
    assert [attempt.is_last for attempt in load_attempts(attempts_file(tmp_path, MemberId(0)))] == [False]

    outcome = run_population(tiny(), tmp_path, start_engine=failing, options=RunOptions(max_hours=0))
    assert outcome.stopped == "hours"
    assert texts(outcome.left) == MEMBERS
    assert starts(tmp_path) == ["pt-0"]

    halves = [
        run_population(tiny(), tmp_path, start_engine=failing, options=RunOptions(shard=Shard(number=number, of=2)))
        for number in (1, 2)
    ]
    assert all(half.stopped is None for half in halves)
    assert set(MEMBERS) == set(texts([*halves[0].done, *halves[1].done]))
    assert len(starts(tmp_path)) == 1 + len(MEMBERS)  # each once: the second half finds the parents of the first


def test_run_of_children_counts_their_finished_parent(tiny_copy: Path) -> None:
    options = RunOptions(only=("pt-1/*",))
    outcome = run_population(tiny(), tiny_copy, start_engine=failing, options=options)
    assert texts(outcome.done) == ["pt-1", "pt-1/ft-0", "pt-1/ft-1"]


class _Deleting:
    """An engine whose workers never report, in a folder whose `.training` is deleted."""

    free_slots = 1

    def __init__(self, root: Path):
        self._root = root

    def start(self, planned: PlannedMember, *, parent_sha256: str | None) -> None:
        shutil.rmtree(self._root / ".training")

    def events(self, timeout: float) -> Iterator[Event]:
        yield from ()

    def close(self) -> None:
        pass


def test_run_ends_when_its_training_folder_is_deleted(tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as raised:
        run_population(tiny(), tmp_path, start_engine=lambda job, left: _Deleting(tmp_path))
    assert raised.value.problem == f"{tmp_path / '.training'} was deleted while members were trained"
    assert raised.value.fix


def test_worker_does_not_make_a_deleted_zoo_again(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is not a zoo any more"):
        Worker(Job(recipe=tiny(), root=tmp_path / "zoo", execution=Execution()))
    assert not (tmp_path / "zoo").exists()


def test_finished_zoo_starts_no_engine(tiny_copy: Path) -> None:
    started = []
    outcome = run_population(tiny(), tiny_copy, start_engine=lambda *job: started.append(job))  # type: ignore[arg-type]
    assert texts(outcome.done) == MEMBERS
    assert started == []


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_run(tmp_path: Path) -> None:
    def broken(job: Job, left: int) -> LocalEngine:
        return LocalEngine(replace(job, train="tests.training.population.trainers:no_such_function"), workers=1)

    with pytest.raises(TrainingError, match=r"exit status 1 .* 5 times"):
        run_population(tiny(), tmp_path, start_engine=broken)
    assert list((tmp_path / ".training" / "leases").iterdir()) == []


@pytest.mark.slow
def test_slot_that_fails_while_another_succeeds_is_retired(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def one_bad(job: Job, left: int) -> LocalEngine:
        return LocalEngine(replace(job, train="tests.training.population.trainers:train_in_one_process"), workers=2)

    Workspace(tmp_path, tiny())
    outcome = run_population(tiny(), tmp_path, start_engine=one_bad, options=RunOptions(attempts=4))
    assert texts(outcome.done) == MEMBERS
    assert "a worker failed 3 times in a row, others did not: it gets no more members" in caplog.text
