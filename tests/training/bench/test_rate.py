"""The rate that a dry run reckons with."""

from dataclasses import replace

import pytest

from tests.tiny import tiny
from training.bench.rate import measure_rate, rows_that_fill
from training.member.execution import Execution
from training.recipes.plan import plan_member
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId


@pytest.mark.parametrize(
    ("seconds_an_image", "most", "rows", "tried"),
    [
        (1.0, 256, 4, [4]),
        (0.02, 256, 32, [4, 8, 16, 32]),
        (0.001, 256, 256, [4, 8, 16, 32, 64, 128]),
        (0.001, 96, 96, [4, 8, 16, 32, 64]),
        (0.001, 4, 4, []),
    ],
)
def test_a_step_gets_as_many_images_as_fill_half_a_second(
    seconds_an_image: float, most: int, rows: int, tried: list[int]
) -> None:
    asked: list[int] = []

    def seconds_of(images: int) -> float:
        asked.append(images)
        return images * seconds_an_image

    assert rows_that_fill(seconds_of, fewest=4, most=most) == rows
    assert asked == tried


@pytest.mark.parametrize("member", ["pt-0", "pt-2", "pt-0/ft-0"])
def test_every_kind_of_member_has_a_rate(member: str) -> None:
    planned = plan_member(tiny(), MemberId.parse(member))
    assert measure_rate(planned) > 0


def test_halves_and_parts_have_a_rate_too() -> None:
    planned = plan_member(tiny(), MemberId(2))
    halves = replace(planned, training=replace(planned.training, positives="halves"))
    assert measure_rate(halves) > 0
    assert measure_rate(plan_member(tiny(), MemberId(0)), Execution(accumulation=4)) > 0


def test_parts_that_cannot_be_are_refused() -> None:
    with pytest.raises(TrainingError, match="accumulation is 2 for InfoNCE"):
        measure_rate(plan_member(tiny(), MemberId(2)), Execution(accumulation=2))
