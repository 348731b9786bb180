"""Time ways of training in turn, round after round, so that a machine that slows down does so for all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_WARM_UP = 2  # steps after the first


class Span(NamedTuple):
    """Seconds of some steps, and the seconds in which the loop waited for images. A GPU may have had queued work."""

    seconds: float
    waited: float = 0.0


Take = Callable[[int], Span]  # takes a number of steps, and waits until the device has done them


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """The times of one way of training.

    Args:
        first_seconds: Seconds of the first step, compilation included.
        rounds: Seconds a step, of each round.
        waiting: Mean fraction of a round in which the loop waited for images, 0 to 1.
    """

    first_seconds: float
    rounds: tuple[float, ...]
    waiting: float = 0.0

    @property
    def step_seconds(self) -> float:
        """Return the median seconds a step."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Return the slowest less the fastest round, as a fraction of the median."""
        return (max(self.rounds) - min(self.rounds)) / self.step_seconds

    def speed_to(self, other: "Timing") -> float:
        """Return the speed as a multiple of another way's: the median of the rounds' ratios."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.rounds, other.rounds, strict=True))


def measure(
    ways: Mapping[str, Take], *, steps: int, rounds: int, say: Callable[[str], None] = lambda _: None
) -> dict[str, Timing]:
    """Time ways of training in turn: A B C, A B C, ... after the first steps of every way."""
    first: dict[str, float] = {}
    for name, take in ways.items():
        say(f"first step: {name}")
        first[name] = take(1).seconds
        take(_WARM_UP)
    spans: dict[str, list[Span]] = {name: [] for name in ways}
    for number in range(1, rounds + 1):
        for name, take in ways.items():
            say(f"round {number} of {rounds}: {name}")
            spans[name].append(take(steps))
    return {
        name: Timing(
            first_seconds=first[name],
            rounds=tuple(span.seconds / steps for span in taken),
            waiting=statistics.mean(span.waited / span.seconds for span in taken),
        )
        for name, taken in spans.items()
    }


def timed(work: Callable[[], object]) -> Span:
    """Time a call."""
    began = time.perf_counter()
    work()
    return Span(time.perf_counter() - began)
