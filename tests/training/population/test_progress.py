"""Test the display of a run."""

from collections.abc import Iterator

import pytest

from tests.tiny import tiny
from training.member.report import Report
from training.population import progress
from training.population.engine import Event
from training.population.progress import Progress
from training.recipes.plan import plan_members
from vitzoo.ids import MemberId


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Replace the clock by a number that tests change."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now  # type: ignore[return-value]


def shown(run: Progress) -> dict[str, str]:
    run.refresh()
    (task,) = run._bars.tasks
    return task.fields


def report(member: MemberId, epoch: int, **metrics: float) -> Event:
    progress = Report(epoch=epoch, steps=10, **metrics)  # type: ignore[arg-type]
    return Event(member=member, kind="report", report=progress)


def test_time_left_counts_only_the_work_of_this_run(clock: list[float]) -> None:
    planned = plan_members(tiny())
    one = planned[0]
    run = Progress(planned, done={member.id for member in planned[1:]})
    run.started(one.id)
    run.add(report(one.id, 1))  # it resumed at epoch 1 of 2
    clock[0] += 60
    assert shown(run)["left"] == "-"  # this run's speed is unknown yet
    run.add(report(one.id, 1, step=5))  # half of an epoch in a minute
    assert shown(run)["left"] == "1:00"
    fresh = Progress(planned, done={member.id for member in planned[1:]})
    fresh.started(one.id)
    fresh.add(report(one.id, 0))
    clock[0] += 60
    fresh.add(report(one.id, 1))
    assert shown(fresh)["left"] == "1:00"


def test_speeds_are_added_over_the_slots(clock: list[float]) -> None:
    planned = plan_members(tiny())
    run = Progress(planned, done=set())
    for member, speed in ((MemberId(0), 100.0), (MemberId(1), 50.0)):
        run.started(member)
        run.add(report(member, member.parent, throughput=speed, peak_share=0.4, loss=1.25, accuracy=0.5))
    assert shown(run)["metrics"] == "150 images/s, 40% of peak, pt-1 epoch 1, loss 1.250, accuracy 50.00%"
    assert shown(run)["counts"] == f"0/{len(planned)} members done, 2 running"
