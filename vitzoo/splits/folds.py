"""Fold: one division of a zoo's members into train, val and test. See `vitzoo.splits.plan` for how folds are made."""

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown

PARTS = ("train", "val", "test")

Part = Literal["train", "val", "test"]


@runtime_checkable
class Checkpoints(Protocol):
    """Checkpoints that a fold divides, such as a `vitzoo.Selection`."""

    @property
    def refs(self) -> tuple[MemberRef, ...]:
        """The checkpoints."""
        ...

    def with_refs(self, refs: Any) -> Any:
        """Return a selection of other checkpoints of the same zoo."""
        ...


Chosen = TypeVar("Chosen", bound=Checkpoints)


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Fold(Shown):
    """A division of a zoo's members into parts.

    Args:
        scheme: Name of the scheme (`vitzoo.splits.schemes.SCHEMES`).
        name: Name of the fold: ``"0"``, ``"pt-3"``, ``"optimizer=sgd/0"``.
        parts: Ids to ``train``, ``val`` or ``test``, in the order of the ids; a member in no part is absent.
        groups: Every id to its group. The scheme never puts members of one group into two parts.
        families: Every id to its family (`vitzoo.splits.leaks`), which a bootstrap resamples.
    """

    scheme: str
    name: str
    parts: Mapping[str, Part]
    groups: Mapping[str, str]
    families: Mapping[str, str]

    def _facts(self) -> dict[str, Any]:
        return {"scheme": self.scheme, "name": self.name} | {part: len(ids) for part, ids in self.by_part().items()}

    def _table_rows(self) -> list[dict[str, Any]]:
        return [{"id": member, "part": part, "family": self.families[member]} for member, part in self.parts.items()]

    def ids(self, part: str) -> list[str]:
        """Return the members of ``train``, ``val`` or ``test``, parents before their children.

        Raises:
            SelectionError: There is no such part.
        """
        if part not in PARTS:
            raise SelectionError(
                f'"{part}" is not a part of a fold',
                expected=", ".join(PARTS),
                fix=did_you_mean(part, PARTS),
                value=part,
            )
        return [member for member, part_of_member in self.parts.items() if part_of_member == part]

    def by_part(self) -> dict[str, list[str]]:
        """Return the members of each part that has any, in the order train, val, test."""
        return {part: members for part in PARTS if (members := self.ids(part))}

    def inner(self, folds: int = 3) -> list["Fold"]:
        """Divide the members of train into inner folds that keep families whole, to choose settings of a method.

        Each inner fold has a share of the families as ``val`` and the others as ``train``. The families take their
        shares in turn, in the order of the ids: members with neighbouring ids often have one objective, which spreads
        evenly. Members of this fold's val and test are in no inner fold, so all inner folds together know nothing
        about them. Groups that are larger than families, such as those of by_init_group, stay whole, too.

        Published scores leak here: with inner folds of single members, the inner test has siblings of its own training,
        and the chosen settings fit families that are known.

        Args:
            folds: Number of inner folds, from 2; at most the number of families in train.

        Raises:
            SelectionError: ``folds`` is less than 2, or train has fewer families.
        """
        folds, of_family = operator.index(folds), {}
        for member in self.parts:
            of_family.setdefault(self.families[member], set()).add(self.groups[member])
        larger = all(len(groups) == 1 for groups in of_family.values())
        groups = self.groups if larger else self.families
        train = self.ids("train")
        shares = {group: number % max(folds, 1) for number, group in enumerate(dict.fromkeys(groups[m] for m in train))}
        if folds < 2 or len(shares) < folds:
            raise SelectionError(
                f"Fold {self.name} of {self.scheme} was asked for {folds} inner folds",
                expected=f"2 or more, and at most the number of families in train, {len(shares)}",
                fix="Take fewer inner folds, or a split with more families in train.",
                value=folds,
            )
        return [
            replace(
                self,
                name=f"{self.name}/inner-{number}",
                parts={member: "val" if shares[groups[member]] == number else "train" for member in train},
                groups=groups,
            )
            for number in range(folds)
        ]

    def of(self, selection: Chosen) -> dict[str, Chosen]:
        """Divide a selection's checkpoints into the parts. Members in no part are left out.

        Args:
            selection: A result of `vitzoo.Zoo.select`, from the zoo that was split.

        Returns:
            The parts that the fold has, in the order train, val, test; a part may be empty.

        Raises:
            SelectionError: A member was not split: it belongs to another zoo.
        """
        self.check_knows(str(ref.member) for ref in selection.refs)
        return {
            part: selection.with_refs([ref for ref in selection.refs if self.parts.get(str(ref.member)) == part])
            for part in self.by_part()
        }

    def check_knows(self, members: Iterable[str]) -> None:
        """Refuse ids of members that the split zoo did not have.

        Raises:
            SelectionError: A member was not split.
        """
        for member in members:
            if member not in self.groups:
                raise SelectionError(
                    f"{member} is not one of the {len(self.groups)} members that fold {self.name} of {self.scheme} has",
                    fix="Split the zoo that it belongs to.",
                    value=member,
                )
