"""Time subjects in turn, round after round, so that a machine that slows down does so for all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_WARM_UP = 2  # steps after the first


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """The time of some steps.

    Args:
        seconds: Seconds of all steps.
        waited: Seconds of these in which the loop waited for images. A GPU may have had queued work.
    """

    seconds: float
    waited: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """The times of one subject.

    Args:
        first_seconds: Seconds of the first step, compilation included.
        rounds: Seconds a step, of each round.
        waiting: Fraction of each round in which the loop waited for images, 0 to 1.
    """

    first_seconds: float
    rounds: tuple[float, ...]
    waiting: tuple[float, ...]

    @property
    def step_seconds(self) -> float:
        """Return the median seconds a step."""
        return statistics.median(self.rounds)

    def speed_to(self, other: "Timing") -> float:
        """Return the speed as a multiple of another subject's: the median of the rounds' ratios."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.rounds, other.rounds, strict=True))

    @property
    def compile_seconds(self) -> float:
        """Return the seconds of the first step beyond a step."""
        return max(0.0, self.first_seconds - self.step_seconds)


def measure(
    subjects: Mapping[str, Callable[[int], Span]],
    *,
    steps: int,
    rounds: int,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Timing]:
    """Time subjects in turn: A B C, A B C, ...

    Args:
        subjects: Function by name that takes a number of steps and waits until the device has done them.
        steps: Steps of each subject in a round.
        rounds: Rounds after the first steps of every subject.
        say: Called with a line on the current subject.
    """
    first: dict[str, float] = {}
    spans: dict[str, list[Span]] = {name: [] for name in subjects}
    for name, take in subjects.items():
        say(f"first step: {name}")
        first[name] = take(1).seconds
        take(_WARM_UP)
    for number in range(1, rounds + 1):
        for name, take in subjects.items():
            say(f"round {number} of {rounds}: {name}")
            spans[name].append(take(steps))
    return {
        name: Timing(
            first_seconds=first[name],
            rounds=tuple(span.seconds / steps for span in taken),
            waiting=tuple(span.waited / span.seconds for span in taken),
        )
        for name, taken in spans.items()
    }


def timed(work: Callable[[], object]) -> Span:
    """Time a call."""
    began = time.perf_counter()
    work()
    return Span(seconds=time.perf_counter() - began)
