"""Fold: one way to part a zoo's members into train, val and test. `vitzoo.splits.plan` plans them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.ids import MemberRef

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
        """Return the same with other checkpoints."""
        ...


Chosen = TypeVar("Chosen", bound=Checkpoints)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """One way to part a zoo's members.

    Args:
        scheme: The scheme that it is of (`vitzoo.splits.schemes.SCHEMES`).
        name: Which fold of the scheme: ``"0"``, ``"pt-3"``, ``"optimizer=sgd/0"``.
        parts: Ids to ``train``, ``val`` or ``test``, in the order of the ids; a member that is in no part is absent.
        groups: Every id to the group that the scheme keeps whole: members of one group are never on two sides.
        families: Every id to its family (`vitzoo.splits.families`), whatever the scheme: what a bootstrap resamples.
    """

    scheme: str
    name: str
    parts: Mapping[str, Part]
    groups: Mapping[str, str]
    families: Mapping[str, str]

    def ids(self, part: str) -> list[str]:
        """The members of a part, parents before their children.

        Args:
            part: ``train``, ``val`` or ``test``.

        Raises:
            SelectionError: It is none of these.
        """
        if part not in PARTS:
            raise SelectionError(
                f'"{part}" is no part of a fold: expected one of {", ".join(PARTS)}.{did_you_mean(part, PARTS)}',
                value=part,
            )
        return [member for member, its in self.parts.items() if its == part]

    def by_part(self) -> dict[str, list[str]]:
        """The members of each part that has some, in the order train, val, test."""
        return {part: found for part in PARTS if (found := self.ids(part))}

    def of(self, selection: Chosen) -> dict[str, Chosen]:
        """Divide a selection's checkpoints into the parts. Members in no part are left out.

        Args:
            selection: A result of `vitzoo.Zoo.select`, of the zoo that was split.

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
        """Refuse members that were not there when the zoo was split.

        Args:
            members: Their ids.

        Raises:
            SelectionError: One is none of those that were split.
        """
        for member in members:
            if member not in self.groups:
                raise SelectionError(
                    f"{member} is none of the {len(self.groups)} members that fold {self.name} of {self.scheme} parts",
                    fix="Split the zoo that it is of.",
                    value=member,
                )
