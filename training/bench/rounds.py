"""Subjects timed in turn, round after round, so that what drifts drifts for all of them alike."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_WARM_UP = 2  # steps after the first


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """What some steps took.

    Args:
        seconds: All of them.
        waited: Of these, how long the loop waited for images; a GPU may have had queued work meanwhile.
    """

    seconds: float
    waited: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Something whose steps are timed.

    Args:
        name: Beside the others'.
        take: Takes so many steps and waits until the device has done them.
    """

    name: str
    take: Callable[[int], Span]


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """What was measured of a subject.

    Args:
        first_seconds: The first step, compilation included.
        rounds: Seconds a step, of each round.
        waiting: Share of each round in which the loop waited for images, 0 to 1.
    """

    first_seconds: float
    rounds: tuple[float, ...]
    waiting: tuple[float, ...]

    @property
    def step_seconds(self) -> float:
        """Median seconds a step."""
        return statistics.median(self.rounds)

    def speed_to(self, other: "Timing") -> float:
        """How many times as fast as another subject of the same rounds: the median of the rounds' ratios."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.rounds, other.rounds, strict=True))

    @property
    def compile_seconds(self) -> float:
        """What the first step took beyond a step."""
        return max(0.0, self.first_seconds - self.step_seconds)


def measure(
    subjects: Sequence[Subject], *, steps: int, rounds: int, say: Callable[[str], None] = lambda _: None
) -> dict[str, Timing]:
    """Time subjects in turn: A B C, A B C, ...

    Args:
        subjects: With different names.
        steps: Of a round, of each subject.
        rounds: After each subject has taken its first steps.
        say: Told what is being done.

    Returns:
        Timing by the subject's name.
    """
    first: dict[str, float] = {}
    spans: dict[str, list[Span]] = {subject.name: [] for subject in subjects}
    for subject in subjects:
        say(f"first step: {subject.name}")
        first[subject.name] = subject.take(1).seconds
        subject.take(_WARM_UP)
    for number in range(1, rounds + 1):
        for subject in subjects:
            say(f"round {number} of {rounds}: {subject.name}")
            spans[subject.name].append(subject.take(steps))
    return {
        name: Timing(
            first_seconds=first[name],
            rounds=tuple(span.seconds / steps for span in its),
            waiting=tuple(span.waited / span.seconds for span in its),
        )
        for name, its in spans.items()
    }
