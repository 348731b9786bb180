"""What starts when, what is tried again, and when a run stops, with real workers that fail as they are told."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import tiny
from tests.training.population.trainers import starts, write_faults
from training.attempts import load_attempts
from training.population.local import LocalEngine
from training.population.run import RunOptions, run_population
from training.population.selection import Shard
from training.population.worker import Job
from training.workspace import Workspace
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId

EVERY = [f"pt-{parent}{child}" for parent in range(3) for child in ("", "/ft-0", "/ft-1", "/ft-2", "/ft-3")]
MEMBERS = [member for member in EVERY if member not in ("pt-1/ft-2", "pt-1/ft-3", "pt-2/ft-2", "pt-2/ft-3")]


def failing(job: Job, left: int) -> LocalEngine:
    return LocalEngine(replace(job, train="tests.training.population.trainers:train_or_fail"), workers=1)


def told(members: list[MemberId] | dict[MemberId, str]) -> list[str]:
    return [str(member) for member in members]


def test_what_ends_badly_is_tried_again_so_often(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tiny())
    write_faults(tmp_path, pt_0=["raise", "die"], pt_1__ft_0=["die", "raise", "die"], pt_2__ft_1=["die"])
    outcome = run_population(tiny(), tmp_path, start_engine=failing)
    assert told(outcome.done) == [member for member in MEMBERS if member != "pt-1/ft-0"]
    assert told(outcome.failed) == ["pt-1/ft-0"]
    log = workspace.log_file(MemberId(1, 0))
    assert outcome.failed[MemberId(1, 0)] == f"3 attempts, the last: its process ended by signal 9 (log: {log})"
    assert outcome.stopped is None
    assert outcome.left == []
    kinds = {
        member: [(one.attempt, one.kind) for one in load_attempts(workspace.attempts_file(MemberId.parse(member)))]
        for member in MEMBERS
    }
    assert {member: ended for member, ended in kinds.items() if ended} == {
        "pt-0": [(1, "failed"), (2, "died")],
        "pt-1/ft-0": [(1, "died"), (2, "failed"), (3, "died")],
        "pt-2/ft-1": [(1, "died")],
    }
    order = starts(tmp_path)
    # The contrastive parent costs most. pt-0 raised, so that others come before it; a death is made up for at once.
    assert order[:3] == ["pt-2", "pt-0", "pt-1"]
    first, second, third = (place for place, member in enumerate(order) if member == "pt-0")
    assert second > first + 1
    assert third == second + 1
    for member in MEMBERS:
        if "/" in member:
            assert order.index(member) > len(order) - 1 - order[::-1].index(member.split("/")[0])


def test_a_run_stops_where_the_disk_is_full_and_when_its_hours_are_over(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tiny())
    write_faults(tmp_path, pt_0=["full"])
    outcome = run_population(tiny(), tmp_path, start_engine=failing, options=RunOptions(only=("pt-0", "pt-1/*")))
    assert outcome.stopped == "full"
    assert outcome.reason == "OSError: [Errno 28] No space left on device"
    assert told(outcome.left) == ["pt-0", "pt-1", "pt-1/ft-0", "pt-1/ft-1"]
    assert outcome.failed == {}
    assert starts(tmp_path) == ["pt-0"]  # pt-1 is another run's, so it comes last
    assert [one.is_last for one in load_attempts(workspace.attempts_file(MemberId(0)))] == [False]

    outcome = run_population(tiny(), tmp_path, start_engine=failing, options=RunOptions(max_hours=0))
    assert outcome.stopped == "hours"
    assert told(outcome.left) == MEMBERS
    assert starts(tmp_path) == ["pt-0"]

    halves = [
        run_population(tiny(), tmp_path, start_engine=failing, options=RunOptions(shard=Shard(number=number, of=2)))
        for number in (1, 2)
    ]
    assert all(half.stopped is None for half in halves)
    assert set(MEMBERS) == set(told([*halves[0].done, *halves[1].done]))
    assert len(starts(tmp_path)) == 1 + len(MEMBERS)  # each once: what the other half needed was there


def test_no_engine_is_started_where_nothing_is_left(tiny_copy: Path) -> None:
    started = []
    outcome = run_population(tiny(), tiny_copy, start_engine=lambda *job: started.append(job))  # type: ignore[arg-type]
    assert told(outcome.done) == MEMBERS
    assert started == []


def test_workers_that_cannot_begin_end_the_run(tmp_path: Path) -> None:
    def broken(job: Job, left: int) -> LocalEngine:
        return LocalEngine(replace(job, train="tests.training.population.trainers:no_such_function"), workers=1)

    message = r"^A worker ended by exit status 1 before it could take a member, 5 times\."
    with pytest.raises(TrainingError, match=message):
        run_population(tiny(), tmp_path, start_engine=broken)
    assert list((tmp_path / ".training" / "leases").iterdir()) == []


def test_a_slot_that_fails_while_another_does_not_gets_no_more_members(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def one_bad(job: Job, left: int) -> LocalEngine:
        return LocalEngine(replace(job, train="tests.training.population.trainers:train_on_the_second"), workers=2)

    Workspace(tmp_path, tiny())
    outcome = run_population(tiny(), tmp_path, start_engine=one_bad, options=RunOptions(attempts=4))
    assert told(outcome.done) == MEMBERS
    assert "a worker failed 3 times in a row, others did not: it gets no more members" in caplog.text
