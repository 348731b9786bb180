"""Leaks: what must not stand on two sides of a split, and the assertion that nothing does.

    zoo.assert_no_leaks({"train": ["pt-0", "pt-0/ft-0"], "test": ["pt-2/ft-1"]})

Two sides leak where they share a member; a family, for a child starts from its parent's weights; the same weights or
backbone at any recorded epoch; or what members that stand on no side tie together: the children of two parents that
start from one initialisation. Splits that do not leak are planned by `vitzoo.splits.plan`, which holds them to this.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Literal

from vitzoo.errors import LeakError, MemberNotFoundError, did_you_mean, shown
from vitzoo.ids import MemberId
from vitzoo.splits.families import CONTENT_IDS, Rows, join_families
from vitzoo.splits.folds import Fold

InitGroups = Literal["ignored", "apart"]
Sides = Mapping[str, Iterable[str]]


def assert_no_leaks(parts: Fold | Sides, *, members: Rows, epochs: Rows, init_groups: InitGroups = "ignored") -> None:
    """Refuse parts that leak into each other.

    Args:
        parts: A fold, or the ids of the members of each part by its name. A member is in one part with its whole
            training.
        members: Rows of the members table: ``id``, ``parent`` and ``init_group``, of all members of the zoo.
        epochs: Rows of the epochs table: ``id``, ``epoch``, ``weights_id`` and ``backbone_id``, of all members.
        init_groups: ``apart`` if an equal ``init_group`` in two parts is a leak, too.

    Raises:
        LeakError: Two parts share a member, a family, a digest of weights or backbone, or an ``init_group``, or other
            members tie them together. The message names the first leak.
        MemberNotFoundError: A member is in no row.
        MemberIdError: A text is not a member id.

    Example:
        >>> rows = [{"id": "pt-0", "parent": None}, {"id": "pt-0/ft-0", "parent": "pt-0"}]
        >>> assert_no_leaks({"train": ["pt-0", "pt-0/ft-0"], "test": []}, members=rows, epochs=[])
    """
    Detector(members, epochs).check(parts, init_groups=init_groups)


class Detector:
    """Finds leaks in any number of splits of one zoo. Args as `assert_no_leaks`."""

    def __init__(self, members: Rows, epochs: Rows):
        self._rows = {str(row["id"]): row for row in members}
        self._tables = members, epochs
        self._families = join_families(members, epochs, by="parent")
        self._joined = join_families(members, epochs, by="content")
        self._content = _shared_content(epochs, {member: place for place, member in enumerate(self._families)})

    @cached_property
    def _by_init_group(self) -> dict[str, str]:
        return join_families(*self._tables, by="init_group")

    def check(self, parts: Fold | Sides, *, init_groups: InitGroups = "ignored") -> None:
        """As `assert_no_leaks`."""
        sides = self._parts_of(parts.by_part() if isinstance(parts, Fold) else parts)
        self._check_families(sides)
        self._check_content(sides)
        self._check_ties(sides, self._joined, init_groups="ignored")
        if init_groups == "apart":
            self._check_init_groups(sides)
            self._check_ties(sides, self._by_init_group, init_groups="apart")

    def _parts_of(self, parts: Sides) -> dict[str, str]:
        """Return each member's part."""
        sides: dict[str, str] = {}
        for part, members in parts.items():
            for member in members:
                if member not in self._rows:
                    raise MemberNotFoundError(
                        f'"{part}" has {member}, which the zoo does not have.{did_you_mean(member, self._rows)}',
                        member=MemberId.parse(member),
                    )
                if sides.setdefault(member, part) != part:
                    raise LeakError(
                        f'{member} is in "{sides[member]}" and in "{part}"',
                        fix="A member is in one part only, at every epoch: remove it from the other.",
                        kind="member",
                        members=(member, member),
                        parts=(sides[member], part),
                        value=member,
                    )
        return sides

    def _check_families(self, sides: dict[str, str]) -> None:
        seen: dict[str, str] = {}
        for member, part in sides.items():
            first = seen.setdefault(self._families[member], member)
            if sides[first] != part:
                raise LeakError(
                    f"{self._describe_kin(first, sides[first], member, part)}",
                    fix='Keep families whole, as zoo.splits("by_parent") does.',
                    kind="family",
                    members=(first, member),
                    parts=(sides[first], part),
                    value=self._families[member],
                )

    def _describe_kin(self, first: str, first_part: str, member: str, part: str) -> str:
        parents = {name: self._rows[name]["parent"] for name in (first, member)}
        if parents[first] == member:
            first, first_part, member, part = member, part, first, first_part
        elif parents[member] != first:
            return (
                f'{member} is in "{part}", its sibling {first} in "{first_part}": both start from the weights of '
                f"{shown(parents[member])}"
            )
        return f'{member} is in "{part}", its parent {first} in "{first_part}": it starts from those weights'

    def _check_content(self, sides: dict[str, str]) -> None:
        for name in CONTENT_IDS:
            for value, holders in self._content[name].items():
                placed = [(member, epoch, sides[member]) for member, epoch in holders.items() if member in sides]
                for member, epoch, part in placed[1:]:
                    first, first_epoch, first_part = placed[0]
                    if part != first_part:
                        what = "the same weights" if name == "weights_id" else "the same backbone"
                        raise LeakError(
                            f'{first} at epoch {first_epoch} in "{first_part}" and {member} at epoch {epoch} in '
                            f'"{part}" have {what}, {name} {shown(value[:16])}',
                            fix='Keep both on one side, as zoo.splits("by_parent") does.',
                            kind=name,
                            members=(first, member),
                            parts=(first_part, part),
                            epochs=(first_epoch, epoch),
                            value=value,
                        )

    def _check_ties(self, sides: dict[str, str], families: Mapping[str, str], *, init_groups: InitGroups) -> None:
        """What is left: members of one family in two parts that only members outside tie together."""
        seen: dict[str, str] = {}
        for member, part in sides.items():
            first = seen.setdefault(families[member], member)
            if sides[first] != part:
                raise LeakError(
                    f'{first} in "{sides[first]}" and {member} in "{part}" are of one family: '
                    f"{'; '.join(self._bridge(first, member, families, init_groups))}",
                    fix='Keep families whole, as zoo.splits("'
                    f"""{("by_parent" if init_groups == "ignored" else "by_init_group")}") does.""",
                    kind="family",
                    members=(first, member),
                    parts=(sides[first], part),
                    value=families[member],
                )

    def _bridge(self, first: str, last: str, families: Mapping[str, str], init_groups: InitGroups) -> Iterator[str]:
        """What ties two members of a family together, step by step, in the fewest steps."""
        holders: dict[tuple[str, str], dict[str, int]] = {}
        family = dict.fromkeys(member for member in families if families[member] == families[first])
        for member in family:
            row = self._rows[member]
            holders.setdefault(("parent", str(row["parent"] or member)), {})[member] = 0
            if init_groups == "apart":
                holders.setdefault(("init_group", str(row["init_group"])), {})[member] = 0
        for name, values in self._content.items():
            holders |= {(name, value): its for value, its in values.items() if next(iter(its)) in family}
        before: dict[str, tuple[str, tuple[str, str]]] = {}
        reached = [first]
        for member in reached:
            for tie, its in holders.items() if last not in before else ():
                for other in its if member in its else ():
                    if other != first and other not in before:
                        before[other] = (member, tie)
                        reached.append(other)
        steps = [last]
        while steps[0] != first:
            steps.insert(0, before[steps[0]][0])
        for one, other in pairwise(steps):
            yield self._describe_tie(one, other, before[other][1], holders[before[other][1]])

    def _describe_tie(self, one: str, other: str, tie: tuple[str, str], epochs: Mapping[str, int]) -> str:
        kind, value = tie
        if kind == "parent":
            child, parent = (one, other) if self._rows[one]["parent"] == other else (other, one)
            if self._rows[child]["parent"] == parent:
                return f"{child} starts from the weights of {parent}"
            return f"{one} and {other} start from the weights of {value}"
        if kind == "init_group":
            return f"{one} and {other} share init_group {shown(value)}"
        what = "weights" if kind == "weights_id" else "backbone"
        return (
            f"{one} at epoch {epochs[one]} and {other} at epoch {epochs[other]} have the same {what}, {kind} "
            f"{shown(value[:16])}"
        )

    def _check_init_groups(self, sides: dict[str, str]) -> None:
        seen: dict[str, str] = {}
        for member, part in sides.items():
            group = self._rows[member]["init_group"]
            first = seen.setdefault(group, member)
            if sides[first] != part:
                raise LeakError(
                    f'{first} in "{sides[first]}" and {member} in "{part}" share a random initialisation, '
                    f"init_group {shown(group)}",
                    fix='Keep both on one side, as zoo.splits("by_init_group") does.',
                    kind="init_group",
                    members=(first, member),
                    parts=(sides[first], part),
                    value=group,
                )


def _shared_content(epochs: Rows, places: Mapping[str, int]) -> dict[str, dict[str, dict[str, int]]]:
    """Digests that more than one member has: column to value to member to its first such epoch."""
    holders: dict[str, dict[str, dict[str, int]]] = {name: {} for name in CONTENT_IDS}
    rows = [row for row in epochs if row["id"] in places]
    for row in sorted(rows, key=lambda row: (places[row["id"]], row["epoch"])):
        for name, values in holders.items():
            if row[name] is not None:  # whose weights nobody has
                values.setdefault(row[name], {}).setdefault(row["id"], row["epoch"])
    return {name: {value: its for value, its in values.items() if len(its) > 1} for name, values in holders.items()}
