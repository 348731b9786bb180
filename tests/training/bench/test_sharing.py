"""Several members at a time: the benchmark's part, the choice of the fastest number, and the option of a run.

No time is asserted. A machine without a GPU measures processes on its cores by the same code.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.tiny import tiny
from training.__main__ import app
from training.bench import sharing
from training.bench.sharing import choose_fastest, heaviest, measure_counts
from training.cli.run import PopulationOptions
from training.member.execution import Execution
from training.population import local
from training.population.ray import gpu_share
from training.population.worker import Job
from training.recipes.cost import estimate
from training.recipes.plan import PlannedMember, plan_member, plan_members
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId


def measure(planned: PlannedMember, **options: Any):
    return measure_counts(planned, Execution(), rounds=1, seconds=0.01, **options)


@pytest.mark.slow
def test_rows_have_the_speed_of_all_members_together() -> None:
    planned = plan_member(tiny(), MemberId(2))  # contrastive: an image counts twice
    alone, both = measure(planned, counts=(1, 2), with_data=True)
    assert (alone.what, alone.ratio_to, both.what, both.ratio_to) == ("1 at a time", None, "2 at a time", "1 at a time")
    for row in (alone, both):
        assert row.step_ms is not None
        assert row.images_per_second == pytest.approx(1000 * 2 * 64 / row.step_ms)
        assert row.members_per_hour == pytest.approx(
            1 / (estimate([planned], throughput=row.images_per_second).hours or 0)
        )
    assert both.ratio == pytest.approx((alone.step_ms or 0) / (both.step_ms or 1))


@pytest.mark.slow
def test_too_small_a_memory_is_an_error_that_names_the_number() -> None:
    planned = plan_member(tiny(), MemberId(0))
    dataset = replace(planned.training.dataset, train_images=10**11)
    huge = replace(planned, training=replace(planned.training, dataset=dataset, batch_size=10**11))
    with pytest.raises(TrainingError) as error:
        measure(huge, counts=(2,))
    assert error.value.problem.startswith("The memory is too small for pt-0, 2 at a time: ")
    assert (error.value.fix or "").startswith("2 members share the GPU: train fewer at a time")


def test_fewest_members_within_two_percent_are_taken() -> None:
    assert choose_fastest({1: 100.0, 2: 150.0, 4: 152.0, 8: 140.0}) == (2, 150.0)
    assert choose_fastest({1: 100.0, 2: 90.0}) == (1, 100.0)
    assert choose_fastest({1: 100.0, 2: 150.0, 4: 160.0}) == (4, 160.0)


def test_member_of_the_largest_kind_is_measured() -> None:
    planned = plan_members(tiny())
    assert str(heaviest(planned).id) == "pt-0/ft-0"
    assert str(heaviest(planned[:2]).id) == "pt-0"


@pytest.mark.parametrize(
    ("options", "problem", "fix"),
    [
        (["0"], 'is "0"', ""),
        (["two"], 'is "two"', ""),
        (["2"], "this machine has none", "--workers sets"),
        (["auto"], "this machine has none", "--workers sets"),
        (["2", "--dry-run"], "this machine has none", "--workers sets"),
        (["2", "--workers", "2"], "--workers and --members-per-gpu", "Omit --workers."),
        (["2", "--engine", "ray", "--gpus-per-member", ".5"], "--gpus-per-member and", "Omit --gpus-per-member."),
        (["auto", "--engine", "ray"], "not a Ray cluster", "--only sharing"),
    ],
)
def test_members_per_gpu_refuses(
    options: list[str], problem: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "visible_gpus", list)
    command = ["run", "digits", "--out", str(tmp_path / "zoo"), "--members-per-gpu", *options]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, TrainingError)
    assert problem in error.problem
    assert fix in (error.fix or "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("members_per_gpu", "left", "workers"),
    [(None, 250, 2), ("1", 250, 2), ("3", 250, 6), ("3", 4, 4), ("auto", 250, 8), ("auto", 5, 4), ("auto", 3, 2)],
)
def test_run_starts_as_many_workers_on_each_gpu(
    members_per_gpu: str | None, left: int, workers: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fastest(planned: PlannedMember, execution: Execution, *, counts: list[int]) -> tuple[int, float]:
        return counts[-1] if counts[-1] < 8 else 4, 1000.0

    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(sharing, "find_fastest", fastest)
    options = PopulationOptions(out=tmp_path, members_per_gpu=members_per_gpu)
    job = Job(recipe=tiny(), root=tmp_path, execution=Execution())
    assert options.local_workers(job, left) == workers


@pytest.mark.parametrize("members", [1, 2, 3, 6, 7, 8, 30])
def test_share_of_a_gpu_gives_room_for_as_many_members(members: int) -> None:
    units = round(gpu_share(members) * 10_000)
    assert gpu_share(members) * 10_000 == pytest.approx(units, abs=1e-6)  # Ray's resolution
    assert 10_000 // units == members
