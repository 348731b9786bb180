"""Group members into families, from rows of the zoo's tables (`vitzoo.tables.columns`) in any order.

A child starts from its parent's weights, so a parent and its children are one family. Two families are joined if both
have an equal ``weights_id`` or ``backbone_id`` at any epoch, as two parents with one initialisation have. See
`vitzoo.splits.plan` for folds of families, and `vitzoo.splits.leaks` for families in two parts.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

from vitzoo.ids import MemberId

CONTENT_IDS = ("weights_id", "backbone_id")

Rows = Sequence[Mapping[str, Any]]
Kinship = Literal["content", "init_group"]


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
