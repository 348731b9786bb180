"""Families: which members may never be told apart as if one knew nothing of the other.

A child starts from its parent's weights, so a parent and its children are one family. Two families are joined where an
equal ``weights_id`` or ``backbone_id`` stands in both at any recorded epoch, as it does in two parents that start from
one initialisation. What is made of families is `vitzoo.splits.plan`'s business and `vitzoo.splits.leaks`'.

Pure: on rows of the zoo's tables (`vitzoo.tables.columns.MEMBERS`, `EPOCHS`), in any order.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

from vitzoo.ids import MemberId

CONTENT_IDS = ("weights_id", "backbone_id")

Rows = Sequence[Mapping[str, Any]]
Kinship = Literal["parent", "content", "init_group"]


def join_families(members: Rows, epochs: Rows, *, by: Kinship = "content") -> dict[str, str]:
    """Which family each member belongs to.

    Args:
        members: Rows of the members table: ``id``, ``parent``, and ``init_group`` where it is asked for.
        epochs: Rows of the epochs table: ``id``, ``weights_id`` and ``backbone_id``.
        by: What makes two members kin: ``parent``, that they descend from one; ``content``, that or an equal digest of
            weights or backbone; ``init_group``, all that or an equal ``init_group``. Each joins what the one before
            joins.

    Returns:
        Ids to families, in the order of the ids; a family is named by its first member.
    """
    ids = sorted((str(row["id"]) for row in members), key=MemberId.parse)
    known = set(ids)
    trees = _Trees()
    for row in members:
        if row["parent"] is not None:
            trees.join(("id", row["id"]), ("id", row["parent"]))  # siblings are kin where the parent is gone, too
        if by == "init_group":
            trees.join(("id", row["id"]), ("init_group", row["init_group"]))
    for row in epochs if by != "parent" else ():
        if row["id"] in known:
            for name in CONTENT_IDS:
                if row[name] is not None:  # whose weights nobody has
                    trees.join(("id", row["id"]), (name, row[name]))
    names: dict[Hashable, str] = {}
    return {member: names.setdefault(trees.root(("id", member)), member) for member in ids}


class _Trees:
    """Disjoint sets of whatever is hashable."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def root(self, node: Hashable) -> Hashable:
        path = []
        while (above := self._above.get(node, node)) != node:
            path.append(node)
            node = above
        self._above |= dict.fromkeys(path, node)
        return node

    def join(self, one: Hashable, other: Hashable) -> None:
        self._above[self.root(other)] = self.root(one)
