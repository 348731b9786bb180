"""Zoo: a population as a Python object: its members, its recipe, and which of them a condition holds of.

    zoo = Zoo("zoo")
    member = zoo["pt-12/ft-3"]

Where a name leads is `vitzoo.locate`'s business; one member is `vitzoo.member`'s.
"""

import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from vitzoo.ids import MemberId
from vitzoo.locate import open_source
from vitzoo.member import Member
from vitzoo.selection import matching
from vitzoo.source import HubOptions, ZooSource


class Zoo:
    """A population of vision transformers with its family tree.

    Args:
        name: ``"zoo"`` (``$VITZOO_ZOO``, else ``./zoo``), a path to a folder with zoo.json, or a Hub repo ``org/name``.
        revision: Of a Hub repo: a branch, tag or commit. Resolved now, and pinned.
        token: As in huggingface_hub. A pickled zoo holds it.
        cache_dir: The Hugging Face cache; None for the usual one.
        local_files_only: Only what is in the cache.
        digest: ``sha256:...`` of the zoo's manifest, as its authors publish it: proves which zoo this is. Every file is
            then compared with the manifest before it is used, cached ones included (about .6 ms a MB).

    Raises:
        ZooNotFoundError: The name leads to no zoo.
        RecordError: zoo.json is damaged, or of a newer format.
        AuthenticityError: It is not the zoo of that digest.
        HubError: The Hub cannot be reached, or refuses.

    Example:
        >>> zoo = Zoo("zoo")  # doctest: +SKIP
        >>> len(zoo), zoo["pt-12/ft-3"].parent  # doctest: +SKIP
        (141, Member('pt-12'))
    """

    def __init__(
        self,
        name: str | os.PathLike[str] = "zoo",
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        digest: str | None = None,
    ):
        options = HubOptions(revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
        self.source: ZooSource = open_source(name, options=options, digest=digest)

    @classmethod
    def of(cls, source: ZooSource) -> "Zoo":
        """The zoo of a source that is open already."""
        zoo = cls.__new__(cls)
        zoo.source = source
        return zoo

    def __repr__(self) -> str:
        known = f", {len(self)} members" if "_ids" in vars(self) else ""  # never by asking the network
        return f"Zoo({self.source.name!r}{known})"

    @cached_property
    def _ids(self) -> list[MemberId]:
        return self.source.member_ids()

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator["Member"]:
        return (Member(self, member) for member in self._ids)

    def __contains__(self, member: object) -> bool:
        return any(member in (known, str(known), Member(self, known)) for known in self._ids)

    def __getitem__(self, member: str | MemberId) -> "Member":
        member = MemberId.parse(member) if isinstance(member, str) else member
        if member not in self._ids:
            raise self.source.no_member(member)
        return Member(self, member)

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that the zoo was made by, as plain JSON."""
        return self.source.record.recipe

    def match(self, where: str) -> list["Member"]:
        """The members that a condition holds of.

        Args:
            where: ``factor=value`` pairs joined by commas, such as ``"head_type=mlp,optimizer=adamw"``; empty for all.

        Raises:
            SelectionError: A factor or a value is unknown; the message names the valid ones.
        """
        members = list(self)
        chosen = matching(where, [member.factors | {"id": str(member.id)} for member in members])
        return [members[i] for i in chosen]

    @property
    def parents(self) -> list["Member"]:
        """The pre-trained members."""
        return [member for member in self if member.id.is_parent]
