"""Subjects are timed in turn, and what is said of them is arithmetic on their rounds."""

import pytest

from training.bench.rounds import Span, Subject, Timing, measure


def test_subjects_take_turns_after_their_first_steps() -> None:
    taken: list[tuple[str, int]] = []

    def subject(name: str, seconds: float, waited: float) -> Subject:
        def take(steps: int) -> Span:
            taken.append((name, steps))
            first = sum(one == name for one, _ in taken) == 1
            return Span(seconds=60.0 if first else seconds * steps, waited=waited * steps)

        return Subject(name=name, take=take)

    said: list[str] = []
    timings = measure([subject("one", 2.0, 0.5), subject("two", 4.0, 0.0)], steps=5, rounds=2, say=said.append)
    assert taken == [("one", 1), ("one", 2), ("two", 1), ("two", 2), *[("one", 5), ("two", 5)] * 2]
    assert timings["one"] == Timing(first_seconds=60.0, rounds=(2.0, 2.0), waiting=(0.25, 0.25))
    assert timings["two"] == Timing(first_seconds=60.0, rounds=(4.0, 4.0), waiting=(0.0, 0.0))
    assert said[-1] == "round 2 of 2: two"


def timing(*rounds: float, first: float = 9.0) -> Timing:
    return Timing(first_seconds=first, rounds=rounds, waiting=(0.0,) * len(rounds))


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The machine slows down by three between the first round and the last: no ratio notices.
    ours, theirs = timing(1.0, 2.0, 3.0), timing(1.1, 2.2, 9.0)
    assert ours.speed_to(theirs) == pytest.approx(1.1)
    assert theirs.speed_to(ours) == pytest.approx(1 / 1.1)
    assert ours.step_seconds == 2.0


def test_compiling_is_what_the_first_step_takes_beyond_a_step() -> None:
    assert timing(2.0, 4.0, 3.0, first=33.0).compile_seconds == 30.0
    assert timing(2.0, first=1.0).compile_seconds == 0.0
