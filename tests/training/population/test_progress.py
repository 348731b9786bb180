"""What a run shows: figures of what runs, and a time left that counts only what this run did."""

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from tests.tiny import tiny
from training.member.report import Report
from training.population import progress
from training.population.engines import Event
from training.population.progress import Progress
from training.recipes.plan import plan_members
from vitzoo.ids import MemberId


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds that have passed."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now  # type: ignore[return-value]


def shown(run: Progress) -> dict[str, str]:
    run.refresh()
    (task,) = run._bars.tasks
    return task.fields


def report(member: MemberId, epoch: int, **figures: float) -> Event:
    told = Report(epoch=epoch, steps=10, **figures)  # type: ignore[arg-type]
    return Event(member=member, kind="report", report=told)


def test_what_an_earlier_run_did_makes_this_one_no_faster(clock: list[float]) -> None:
    planned = plan_members(tiny())
    one = planned[0]
    run = Progress(planned, done={member.id for member in planned[1:]})
    run.started(one.id)
    run.happened(report(one.id, 1))  # it went on at epoch 1 of 2
    clock[0] += 60
    assert shown(run)["left"] == "-"  # nothing is known of this run's speed yet
    run.happened(report(one.id, 1, step=5))  # half of an epoch in a minute
    assert shown(run)["left"] == "1:00"
    fresh = Progress(planned, done={member.id for member in planned[1:]})
    fresh.started(one.id)
    fresh.happened(report(one.id, 0))
    clock[0] += 60
    fresh.happened(report(one.id, 1))
    assert shown(fresh)["left"] == "1:00"


def test_figures_of_what_runs(clock: list[float]) -> None:
    planned = plan_members(tiny())
    run = Progress(planned, done=set())
    for member, speed in ((MemberId(0), 100.0), (MemberId(1), 50.0)):
        run.started(member)
        run.happened(report(member, member.parent, images_per_second=speed, peak_share=0.4, loss=1.25, accuracy=0.5))
    assert shown(run)["figures"] == "150 images/s, 40% of peak, pt-1 epoch 1, loss 1.250, accuracy 0.500"
    assert shown(run)["counts"] == f"0/{len(planned)} members done, 2 running"


def test_a_narrow_terminal_cuts_figures_alone(clock: list[float]) -> None:
    planned = plan_members(tiny())
    run = Progress(planned, done=set())
    run.started(MemberId(0))
    run.happened(report(MemberId(0), 0, images_per_second=12345.0, loss=1.25, accuracy=0.5))
    clock[0] += 60
    run.happened(report(MemberId(0), 1, images_per_second=12345.0, loss=1.25, accuracy=0.5))
    run.refresh()
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    console.print(run._bars.get_renderable())
    (line,) = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "0/11 members done, 1 running" in line
    assert " left " in line
    assert "…" in line
