"""What is left of a zoo that is being trained, in hours and bytes, from what was measured. Pure: nothing is read."""

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from training.population.traces import Timing
from training.recipes.plan import PlannedMember
from vitzoo.ids import MemberId


def hours_left(
    planned: Sequence[PlannedMember],
    *,
    left: Mapping[MemberId, float],
    timings: Mapping[MemberId, Sequence[Timing]],
    slots: int,
) -> float | None:
    """Hours until everything is trained, if it goes on as it went.

    The operations that are left over the operations a second of finished epochs, in wall time and over the members that
    run at a time; but as long at least as the longest chain of a parent and a child. Members of a kind (objective and
    data set) are reckoned at their kind's speed, where one of them has finished epochs. How long starts take between
    members is not in it.

    Args:
        planned: The members of a recipe.
        left: How much of each member is yet to be trained, 0 to 1; of those that are trained at all.
        timings: Of each member's finished epochs.
        slots: How many members run now.

    Returns:
        The hours; None where nothing runs, or nothing has finished an epoch.
    """
    work, seconds = defaultdict[object, float](float), defaultdict[object, float](float)
    for one in planned:
        its = timings.get(one.id, ())
        if (an_epoch := seconds_an_epoch(its)) is not None:
            for kind in (_kind(one), None):
                work[kind] += one.flops / one.training.epochs * its[-1].epoch
                seconds[kind] += an_epoch * its[-1].epoch
    if not slots or not work[None]:
        return None
    waits: dict[MemberId, float] = {}
    for one in planned:
        kind = _kind(one) if work[_kind(one)] else None
        waits[one.id] = one.flops * left.get(one.id, 0.0) * seconds[kind] / work[kind]
    chains = [waits[one.id] + waits.get(one.id.parent_id or one.id, 0.0) * (not one.id.is_parent) for one in planned]
    hours = max(sum(waits.values()) / slots, *chains) / 3600
    return round(hours, 4) if math.isfinite(hours) else None


def seconds_an_epoch(timings: Sequence[Timing]) -> float | None:
    """Wall time of one epoch of a member, evaluation and writing included; None where none is known.

    A member's epochs are equal work, so their median leaves out the pauses between attempts.
    """
    seconds = [
        after.finished_at - before.finished_at
        for before, after in pairwise(timings)
        if after.epoch == before.epoch + 1 and after.finished_at > before.finished_at
    ]
    return statistics.median_low(seconds) if seconds else None


def bytes_left(
    planned: Sequence[PlannedMember],
    *,
    left: Collection[MemberId],
    done: Collection[MemberId],
    written: Mapping[MemberId, int],
) -> int:
    """Bytes of weights yet to be written.

    Which epochs a run keeps is not known from the folder: it is taken to be the share of bytes that members kept which
    are done; all of them where none is.

    Args:
        planned: The members of a recipe.
        left: Members that are yet to be trained, or run.
        done: Members that are done.
        written: Bytes of each member's weights that are there.
    """
    whole = sum(one.bytes for one in planned if one.id in done)
    kept = sum(written.get(member, 0) for member in done) / whole if whole else 1.0
    return sum(max(round(kept * one.bytes) - written.get(one.id, 0), 0) for one in planned if one.id in left)


def _kind(member: PlannedMember) -> tuple[str, str]:
    """Members of a kind reach about the same operations a second."""
    return member.training.objective, member.training.dataset.name
