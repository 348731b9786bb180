"""Estimate the hours and bytes that a zoo under training needs yet, from finished epochs. Nothing is read from disk."""

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from training.recipes.plan import PlannedMember
from vitzoo.ids import MemberId
from vitzoo.records import TimingRecord


def hours_left(
    planned: Sequence[PlannedMember],
    *,
    left: Mapping[MemberId, float],
    timings: Mapping[MemberId, Sequence[TimingRecord]],
    slots: int,
) -> float | None:
    """Estimate the hours until every member is trained.

    The estimate divides the operations to come by the slots and by the speed of finished epochs, in wall time. It is at
    least the time of the longest chain of a parent and a child. Members of a kind (objective and data set) have their
    kind's speed, if one of them has finished epochs. Starts between members are not counted.

    Args:
        planned: The members of a recipe.
        left: Unfinished share of each member that will be trained, 0 to 1.
        timings: Finished epochs of each member.
        slots: Number of members that run now.

    Returns:
        The hours; None if no member runs, or none has finished an epoch.
    """
    work, seconds = defaultdict[object, float](float), defaultdict[object, float](float)
    for member in planned:
        finished = timings.get(member.id, ())
        if (an_epoch := seconds_an_epoch(finished)) is not None:
            for kind in (member_kind(member), None):
                work[kind] += member.flops / member.training.epochs * finished[-1].epoch
                seconds[kind] += an_epoch * finished[-1].epoch
    if not slots or not work[None]:
        return None
    costs: dict[MemberId, float] = {}  # seconds
    for member in planned:
        kind = member_kind(member) if work[member_kind(member)] else None
        costs[member.id] = member.flops * left.get(member.id, 0.0) * seconds[kind] / work[kind]
    chains = [cost + (0.0 if id.parent_id is None else costs.get(id.parent_id, 0.0)) for id, cost in costs.items()]
    hours = max(sum(costs.values()) / slots, *chains) / 3600
    return round(hours, 4) if math.isfinite(hours) else None


def seconds_an_epoch(timings: Sequence[TimingRecord]) -> float | None:
    """Return the wall time of one epoch of a member, evaluation and writing included; None if it is unknown.

    A member's epochs are equal work, so their median leaves out the pauses between attempts.
    """
    times = [(timing.epoch, timing.finished_at) for timing in timings if timing.finished_at is not None]
    seconds = [
        after - before
        for (number, before), (following, after) in pairwise(times)
        if following == number + 1 and after > before
    ]
    return statistics.median_low(seconds) if seconds else None


def bytes_left(
    planned: Sequence[PlannedMember],
    *,
    left: Collection[MemberId],
    done: Collection[MemberId],
    written: Mapping[MemberId, int],
) -> int:
    """Estimate the bytes of weights to come.

    The folder does not say which epochs a run saves. Members are taken to save the share of bytes that done members
    saved; all bytes if none is done.

    Args:
        planned: The members of a recipe.
        left: Members that run or will be trained.
        done: Members that are done.
        written: Bytes of each member's weights on disk.
    """
    total = sum(member.bytes for member in planned if member.id in done)
    share = sum(written.get(id, 0) for id in done) / total if total else 1.0
    missing = [round(share * member.bytes) - written.get(member.id, 0) for member in planned if member.id in left]
    return sum(max(size, 0) for size in missing)


def member_kind(member: PlannedMember) -> tuple[str, str]:
    """Return the objective and the data set: such members have about the same operations a second."""
    return member.training.objective, member.training.dataset.name
