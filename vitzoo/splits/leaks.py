"""Leaks: members in two parts of a split that share weights or descent.

    zoo.assert_no_leaks({"train": ["pt-0", "pt-0/ft-0"], "test": ["pt-2/ft-1"]})

Two parts leak if they share a member or a family. A child starts from its parent's weights, so a parent and its
children are one family. Two families are joined if both have an equal ``weights_id`` or ``backbone_id`` at any epoch,
as two parents with one initialisation have. Members in no part may tie a family together. See `vitzoo.splits.plan` for
splits without leaks, and `vitzoo.tables.columns` for the rows, which may have any order.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vitzoo.errors import LeakError, MemberNotFoundError, did_you_mean, shown
from vitzoo.ids import MemberId
from vitzoo.splits.folds import Fold

CONTENT_IDS = ("weights_id", "backbone_id")

Rows = Sequence[Mapping[str, Any]]
Kinship = Literal["content", "init_group"]
InitGroups = Literal["ignored", "apart"]
Sides = Mapping[str, Iterable[str]]
_SCHEMES: dict[Kinship, str] = {"content": "by_parent", "init_group": "by_init_group"}


def assert_no_leaks(parts: Fold | Sides, *, members: Rows, epochs: Rows, init_groups: InitGroups = "ignored") -> None:
    """Refuse parts that leak into each other.

    Args:
        parts: A fold, or the ids of the members of each part by its name. A member is in one part at every epoch.
        members: Rows of the members table: ``id``, ``parent`` and ``init_group``, of all members of the zoo.
        epochs: Rows of the epochs table: ``id``, ``epoch``, ``weights_id`` and ``backbone_id``, of all members.
        init_groups: ``apart`` if an equal ``init_group`` in two parts is a leak, too.

    Raises:
        LeakError: Two parts share a member, a family, a digest of weights or backbone, or an ``init_group``, or other
            members tie them together. The message names one leak.
        MemberNotFoundError: No row has a member.
        MemberIdError: A text is not a member id.

    Example:
        >>> rows = [{"id": "pt-0", "parent": None}, {"id": "pt-0/ft-0", "parent": "pt-0"}]
        >>> assert_no_leaks({"train": ["pt-0", "pt-0/ft-0"], "test": []}, members=rows, epochs=[])
    """
    Detector(members, epochs).check(parts, init_groups=init_groups)


@dataclass(frozen=True, slots=True)
class _Tie:
    """A value that members of a family share; ``epochs`` is each member's first epoch with a digest."""

    kind: str
    value: str
    epochs: dict[str, int]

    def describe(self, left: str, right: str) -> str:
        if self.kind == "family":
            parents = {left, right} & {self.value}
            children = sorted({left, right} - parents, key=MemberId.parse)
            return f"{' and '.join(children)} {'starts' if parents else 'start'} from the weights of {self.value}"
        if self.kind == "init_group":
            return f"{left} and {right} share a random initialisation, init_group {shown(self.value)}"
        return (
            f"{left} at epoch {self.epochs[left]} and {right} at epoch {self.epochs[right]} have the same "
            f"{self.kind.removesuffix('_id')}, {self.kind} {shown(self.value[:16])}"
        )


class Detector:
    """Finds leaks in any number of splits of one zoo. Args as `assert_no_leaks`."""

    def __init__(self, members: Rows, epochs: Rows):
        self._rows = {str(row["id"]): row for row in members}
        self._tables = members, epochs
        self._families: dict[Kinship, dict[str, str]] = {}

    def families(self, by: Kinship) -> dict[str, str]:
        """Return the family of each member, as `join_families` does."""
        if by not in self._families:
            self._families[by] = join_families(*self._tables, by=by)
        return self._families[by]

    def check(self, parts: Fold | Sides, *, init_groups: InitGroups = "ignored") -> None:
        """Refuse parts that leak into each other, as `assert_no_leaks` does."""
        part_of = self._parts_of(parts.by_part() if isinstance(parts, Fold) else parts)
        kinds: tuple[Kinship, ...] = ("content", "init_group") if init_groups == "apart" else ("content",)
        for by in kinds:
            families, firsts = self.families(by), {}
            for member, part in part_of.items():
                first = firsts.setdefault(families[member], member)
                if part_of[first] != part:
                    raise self._leak(first, part_of, by)

    def _parts_of(self, parts: Sides) -> dict[str, str]:
        """Return each member's part."""
        part_of: dict[str, str] = {}
        for part, members in parts.items():
            for member in members:
                if member not in self._rows:
                    raise MemberNotFoundError(
                        f'"{part}" has {member}, which the zoo does not have',
                        fix=did_you_mean(member, self._rows),
                        member=MemberId.parse(member),
                    )
                if part_of.setdefault(member, part) != part:
                    raise LeakError(
                        f'{member} is in "{part_of[member]}" and in "{part}"',
                        fix="A member is in one part only, at every epoch: remove it from the other.",
                        kind="member",
                        members=(member, member),
                        parts=(part_of[member], part),
                        value=member,
                    )
        return part_of

    def _leak(self, first: str, part_of: Mapping[str, str], by: Kinship) -> LeakError:
        """Describe the ties that lead from a member's part into another part."""
        steps = self._steps(first, part_of, by)
        (left, tie, _), (_, _, right) = steps[0], steps[-1]
        is_direct = len(steps) == 1
        ties = "; ".join(tie.describe(start, end) for start, tie, end in steps)
        return LeakError(
            f'{left} in "{part_of[left]}" and {right} in "{part_of[right]}" are of one family: {ties}',
            fix=f'Keep families whole, as zoo.splits("{_SCHEMES[by]}") does.',
            kind=tie.kind if is_direct else "family",
            members=(left, right),
            parts=(part_of[left], part_of[right]),
            epochs=(tie.epochs[left], tie.epochs[right]) if is_direct and tie.kind in CONTENT_IDS else (),
            value=tie.value if is_direct else self.families(by)[left],
        )

    def _steps(self, first: str, part_of: Mapping[str, str], by: Kinship) -> list[tuple[str, _Tie, str]]:
        """Search breadth-first for another part; return the ties from the last member in the first one's part."""
        ties, paths = self._ties(first, by), {first: []}
        for member in (queue := [first]):
            part = part_of.get(member, part_of[first])
            if part != part_of[first]:
                return paths[member]
            path = [] if member in part_of else paths[member]
            for tie in ties:
                for other in tie.epochs if member in tie.epochs else ():
                    if other not in paths:
                        paths[other] = [*path, (member, tie, other)]
                        queue.append(other)
        raise AssertionError(f"nothing ties {first} to another part")

    def _ties(self, first: str, by: Kinship) -> list[_Tie]:
        """Return everything that members of a member's family share."""
        families = self.families(by)
        family = [member for member in families if families[member] == families[first]]
        values = [("family", self._rows[member]["parent"] or member, member, 0) for member in family]
        if by == "init_group":
            values += [("init_group", self._rows[member]["init_group"], member, 0) for member in family]
        places = {member: place for place, member in enumerate(family)}
        epochs = [row for row in self._tables[1] if row["id"] in places]
        for row in sorted(epochs, key=lambda row: (places[row["id"]], row["epoch"])):
            values += [(name, row[name], row["id"], row["epoch"]) for name in CONTENT_IDS if row[name] is not None]
        ties: dict[tuple[str, str], _Tie] = {}
        for kind, value, member, epoch in values:
            ties.setdefault((kind, value), _Tie(kind, value, {})).epochs.setdefault(member, epoch)
        return list(ties.values())


def join_families(members: Rows, epochs: Rows, *, by: Kinship = "content") -> dict[str, str]:
    """Return the family of each member, in the order of the ids. A family is named by its first member.

    Args:
        members: Rows of the members table: ``id``, ``parent``, and ``init_group`` if ``by`` is that.
        epochs: Rows of the epochs table: ``id``, ``weights_id`` and ``backbone_id``.
        by: ``content`` joins members of one parent, and of an equal digest of weights or backbone. ``init_group`` also
            joins members of an equal ``init_group``.
    """
    ids = sorted((str(row["id"]) for row in members), key=MemberId.parse)
    known = set(ids)
    sets = _DisjointSets()
    for row in members:
        if row["parent"] is not None:
            sets.join(("id", row["id"]), ("id", row["parent"]))  # siblings are kin even if the zoo lacks their parent
        if by == "init_group":
            sets.join(("id", row["id"]), ("init_group", row["init_group"]))
    for row in epochs:
        for name in CONTENT_IDS if row["id"] in known else ():
            if row[name] is not None:
                sets.join(("id", row["id"]), (name, row[name]))
    names: dict[Hashable, str] = {}
    return {member: names.setdefault(sets.root(("id", member)), member) for member in ids}


class _DisjointSets:
    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def root(self, node: Hashable) -> Hashable:
        path = []
        while (above := self._above.get(node, node)) != node:
            path.append(node)
            node = above
        self._above |= dict.fromkeys(path, node)
        return node

    def join(self, left: Hashable, right: Hashable) -> None:
        self._above[self.root(right)] = self.root(left)
