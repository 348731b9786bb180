"""The learning rate of a step, by hand. See `test_reference.py` for whole steps."""

from dataclasses import replace

import pytest

from tests.tiny import SUPERVISED
from training.member.step import learning_rate
from training.recipes.training import Schedule


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule(), {0: 0.1, 7: 0.1, 19: 0.1}),
        (Schedule(warmup_steps=4), {0: 0.025, 1: 0.05, 2: 0.075, 3: 0.1, 4: 0.1, 19: 0.1}),
        (Schedule(name="cosine"), {0: 0.1, 5: 0.0853553390593, 10: 0.05, 15: 0.0146446609407, 19: 0.000615582970243}),
        (
            Schedule(name="cosine", warmup_steps=4),
            {0: 0.025, 3: 0.1, 4: 0.1, 8: 0.0853553390593, 12: 0.05, 16: 0.0146446609407, 19: 0.000960735979838},
        ),
    ],
)
def test_learning_rate_follows_the_schedule(schedule: Schedule, rates: dict[int, float]) -> None:
    training = replace(SUPERVISED, optimizer=replace(SUPERVISED.optimizer, learning_rate=0.1), schedule=schedule)
    assert training.steps == 20
    for step, rate in rates.items():
        assert learning_rate(training, step) == pytest.approx(rate, rel=1e-10)
