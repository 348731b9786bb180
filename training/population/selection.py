"""Choose the members that a run trains, by ``--only`` and ``--shard``. Nothing is read from disk."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError, did_you_mean
from vitzoo.ids import MemberId


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A share of a plan; all shares have about equal cost.

    Args:
        number: Number of the shard, from 1.
        of: Number of shards.

    Raises:
        TrainingError: The number is above ``of``, or 0.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise TrainingError(f"--shard {self} does not exist", expected=f"1/{self.of} to {self.of}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse a shard such as ``2/8``.

        Raises:
            TrainingError: The text is not a shard.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if match is None:
            raise TrainingError(f'--shard "{text}" is not a shard', expected="its number and how many there are: 2/8")
        return cls(number=int(match[1]), of=int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def select_members(
    planned: Sequence[PlannedMember],
    *,
    only: Sequence[str] = (),
    shard: Shard | None = None,
    done: Collection[MemberId] = (),
) -> tuple[list[PlannedMember], frozenset[MemberId]]:
    """Select the members that a run trains.

    Shards depend on the plan alone, not on `done`. Each member goes to the cheapest shard so far: first the parents,
    then the children, each group from the most expensive on.

    Args:
        planned: All members of the recipe.
        only: Patterns on ids, such as ``pt-3/*`` (the children of pt-3) or ``pt-?`` (parents alone). ``*`` stands for
            any text without a slash. Empty for all members.
        shard: A shard of the selected members; None for all.
        done: Finished members. A parent that is missing is not trained again for finished children alone.

    Returns:
        The members to train, in the plan's order. Then those among them that no option names: parents from which
        selected children start.

    Raises:
        TrainingError: A pattern matches no member.
    """
    ids = [member.id for member in planned]
    for pattern in only:
        if not any(_matches(member, pattern) for member in ids):
            raise TrainingError(
                f'--only "{pattern}" matches no member',
                expected="an id or a pattern: pt-3 (the parent alone), pt-3/* (its children), pt-*/ft-0",
                fix=did_you_mean(pattern, ids).strip() or None,
            )
    selected = [member for member in planned if not only or any(_matches(member.id, pattern) for pattern in only)]
    if shard is not None:
        selected = _split(selected, shard.of)[shard.number - 1]
    requested = {member.id for member in selected}
    parents = {
        parent
        for member in requested
        if (parent := member.parent_id) is not None and (parent in done or member not in done)
    } - requested
    return [member for member in planned if member.id in requested | parents], frozenset(parents)


def _matches(member: MemberId, pattern: str) -> bool:
    names, patterns = str(member).split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _split(members: Sequence[PlannedMember], count: int) -> list[list[PlannedMember]]:
    """Split members into shards of about equal cost."""
    shards: list[list[PlannedMember]] = [[] for _ in range(count)]
    costs = [0.0] * count
    for member in sorted(members, key=lambda member: (not member.id.is_parent, -member.flops, member.id)):
        least = min(range(count), key=costs.__getitem__)
        shards[least].append(member)
        costs[least] += member.flops + member.evaluation_flops
    return shards
