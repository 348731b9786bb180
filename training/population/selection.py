"""Which members of a plan a run trains: ``--only`` and ``--shard``. Pure: nothing is read."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError, did_you_mean
from vitzoo.ids import MemberId


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One of several equal parts of a plan.

    Args:
        number: Which, from 1 on.
        of: How many there are.

    Raises:
        ValueError: The number is not among them.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(f"shard {self.number}/{self.of}: expected 1/{self.of} to {self.of}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """A shard from ``2/8``.

        Raises:
            ValueError: It is none.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if match is None:
            raise ValueError(f'shard "{text}": expected a number and how many there are, such as 2/8')
        return cls(number=int(match[1]), of=int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """What a run trains.

    Args:
        members: What was asked for.
        brought: Parents that those need and that are not among them.
    """

    members: frozenset[MemberId]
    brought: frozenset[MemberId]


def choose(
    planned: Sequence[PlannedMember],
    *,
    only: Sequence[str] = (),
    shard: Shard | None = None,
    done: Collection[MemberId] = (),
) -> Chosen:
    """The members that a run trains.

    Shards are a matter of the plan alone, whatever is done: parents, then children are dealt out by their operations,
    the largest first, each to the shard that has least.

    Args:
        planned: All members.
        only: Patterns on ids, such as ``pt-3/*`` (the children of pt-3) or ``pt-?`` (parents alone): ``*`` stands for
            anything between slashes. None of them for all members.
        shard: A part of those; None for all.
        done: Members that stand finished: they need no parent any more.

    Raises:
        TrainingError: A pattern fits no member.
    """
    ids = [member.id for member in planned]
    for pattern in only:
        if not any(_fits(member, pattern) for member in ids):
            raise TrainingError(
                f'--only "{pattern}" fits no member.{did_you_mean(pattern, ids)} Expected an id or a pattern: pt-3 is '
                "the parent alone, pt-3/* its children, pt-*/ft-0 the first child of each."
            )
    wanted = [member for member in planned if not only or any(_fits(member.id, pattern) for pattern in only)]
    if shard is not None:
        wanted = _deal(wanted, shard.of)[shard.number - 1]
    members = frozenset(member.id for member in wanted)
    parents = {parent for member in members.difference(done) if (parent := member.parent_id) is not None}
    return Chosen(members=members, brought=frozenset(parents.difference(members, done)))


def _fits(member: MemberId, pattern: str) -> bool:
    """Whether an id fits a pattern, part by part: ``*`` does not cross a slash."""
    parts, wanted = str(member).split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _deal(members: Sequence[PlannedMember], count: int) -> list[list[PlannedMember]]:
    """Members in so many parts of about equal cost."""
    parts: list[list[PlannedMember]] = [[] for _ in range(count)]
    costs = [0.0] * count
    for member in sorted(members, key=lambda member: (not member.id.is_parent, -member.flops, member.id)):
        least = min(range(count), key=costs.__getitem__)
        parts[least].append(member)
        costs[least] += member.flops + member.evaluation_flops
    return parts
