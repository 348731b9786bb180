"""Zoo: a population as a Python object, with its members, tables, selections, splits and weights.

    zoo = Zoo("zoo")
    member = zoo["pt-12/ft-3"]

See `vitzoo.sources.locate` for how names resolve, and `vitzoo.zoo.member` for one member.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vitzoo.errors import SelectionError
from vitzoo.ids import MemberId, MemberRef
from vitzoo.notebook import Shown, brief
from vitzoo.sources.locate import is_same_zoo, open_source
from vitzoo.sources.source import HubOptions, ZooSource
from vitzoo.splits.folds import Fold
from vitzoo.splits.leaks import InitGroups, assert_no_leaks
from vitzoo.splits.plan import plan_folds
from vitzoo.tables.catalogue import Catalogue
from vitzoo.zoo.completion import register
from vitzoo.zoo.member import Member

if TYPE_CHECKING:
    import pyarrow as pa

    from vitzoo.weights.population import PopulationWeights
    from vitzoo.zoo.selection import Selection

Sides = Mapping[str, Iterable[Member | MemberRef | MemberId | str]]


class Zoo(Shown):
    """A population of vision transformers with its family tree.

    Args:
        name: ``"zoo"`` (``$VITZOO_ZOO``, else ``./zoo``), a path to a folder with zoo.json, a Hub repo ``org/name``, or
            ``"demo"``, the small zoo that comes with vitzoo, unless ``./demo`` is a zoo.
        revision: A Hub repo's branch, tag or commit. Resolved now, and pinned.
        token: As in huggingface_hub. A pickled zoo contains it.
        cache_dir: The Hugging Face cache; None for the usual one.
        local_files_only: Whether to use the cache alone.
        digest: ``sha256:...`` of the zoo's manifest, as its authors publish it. It proves the zoo's identity: every
            file is compared with the manifest before it is used, cached ones included (about .6 ms a MB).

    Raises:
        ZooNotFoundError: The name leads to no zoo.
        RecordError: zoo.json is damaged, or has a newer format.
        AuthenticityError: The zoo has another digest.
        HubError: The Hub cannot be reached, or refuses.

    Example:
        >>> zoo = Zoo("zoo")
        >>> zoo["pt-0/ft-1"].parent
        Member('pt-0')
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
        self.catalogue = Catalogue(open_source(name, options=options, digest=digest))
        register(Zoo)

    @classmethod
    def of(cls, source: ZooSource) -> "Zoo":
        """Make the zoo of an open source."""
        zoo = cls.__new__(cls)
        zoo.catalogue = Catalogue(source)
        return zoo

    def __repr__(self) -> str:
        known = f", {len(self)} members" if "member_ids" in vars(self.catalogue) else ""  # never asks the network
        return f"Zoo({brief(self.source.name)!r}{known})"

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"zoo": self.source.name, "recipe": self.recipe.get("name", "custom")}
        if self.catalogue.is_local or "member_ids" in vars(self.catalogue):
            facts |= {"parents": len(self.parents), "children": len(self) - len(self.parents)}
        return facts if self.source.record.unit == "epoch" else facts | {"numbers": "steps, not epochs"}

    def __len__(self) -> int:
        return len(self.catalogue.member_ids)

    def __iter__(self) -> Iterator[Member]:
        return (Member(self.catalogue, member) for member in self.catalogue.member_ids)

    def __contains__(self, member: object) -> bool:
        return any(member in (known, str(known), Member(self.catalogue, known)) for known in self.catalogue.member_ids)

    def __getitem__(self, member: str | MemberId) -> Member:
        member = MemberId.parse(member) if isinstance(member, str) else member
        if member not in self.catalogue.member_ids:
            raise self.source.no_member(member)
        return Member(self.catalogue, member)

    def _ipython_key_completions_(self) -> list[str]:
        return [str(member) for member in self.catalogue.member_ids]

    @property
    def source(self) -> ZooSource:
        """The zoo's files."""
        return self.catalogue.source

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that made the zoo, as plain JSON."""
        return self.source.record.recipe

    @property
    def parents(self) -> list[Member]:
        """The pre-trained members."""
        return [member for member in self if member.id.is_parent]

    def table(self, name: str) -> "pa.Table":
        """Return a table of the zoo: built from a folder's records, or a Hub repo's published one.

        Args:
            name: ``members``, ``epochs`` or ``splits``. `vitzoo.tables.columns.TABLES` explains the columns.

        Raises:
            SelectionError: There is no such table.
            RecordError: A record, or the published table, is damaged.
            AuthenticityError: The published table differs from the manifest.
            HubError: The Hub cannot be reached, or refuses.
        """
        return self.catalogue.table(name)

    def select(
        self, where: str = "", *, epoch: object = "last", status: object = "completed", **conditions: object
    ) -> "Selection":
        """Select the checkpoints that meet all conditions.

        Args:
            where: Conditions in the command line's form, such as ``"head_type=mlp,optimizer=adamw|sgd"``.
            epoch: Finished epochs: a number, several, or a range, of which the saved ones are taken; ``"last"`` (the
                final weights), ``"all"`` or ``"every-10"``.
            status: Status of the members; ``"any"`` for all. By default a warning says how many members did not
                complete.
            **conditions: A column of the tables ``members`` and ``epochs`` (the first that has it) and its value; a
                list, tuple or set of alternatives; a range of whole numbers; None for null; ``min_<column>`` and
                ``max_<column>`` (inclusive) for numbers. Columns of ``epochs`` alone, such as ``min_test_accuracy``,
                are the checkpoint's own metrics. ``objective`` means the pre-training's (the column
                ``pretraining_objective``), because every child is fine-tuned supervised.

        Returns:
            Checkpoints by member, then by epoch. Only the tables are downloaded.

        Raises:
            SelectionError: A name, a value or an epoch is unknown, or no checkpoint is left; the message names the
                condition that removed the last ones.
            ConflictingArgumentsError: ``where`` and an argument name the same condition.
            RecordError, HubError: As `table`.

        Example:
            >>> Zoo("zoo").select(head_type="mlp", epoch=[0, 2], min_test_accuracy=0.2)
            Selection(... members, ... checkpoints, ...)
        """
        from vitzoo.zoo.selection import select  # pyarrow

        return select(self.catalogue, where, epoch=epoch, status=status, conditions=conditions)

    def condition_names(self) -> list[str]:
        """Return the names that `select` takes as conditions: columns, and their bounds ``min_`` and ``max_``."""
        from vitzoo.zoo.conditions import condition_columns

        return list(condition_columns({name: self.table(name) for name in ("members", "epochs")}))

    def weights(self, selection: "Selection | None" = None) -> "PopulationWeights":
        """Open the weights of many checkpoints as arrays, without building a module.

        Args:
            selection: The checkpoints, in their order; the final weights of all completed members by default.

        Returns:
            A `vitzoo.weights.population.PopulationWeights`, which reads files when they are needed.

        Raises:
            SelectionError: It belongs to another zoo.
        """
        from vitzoo.weights.population import PopulationWeights  # numpy and pyarrow
        from vitzoo.zoo.selection import check_selection

        if selection is None:
            selection = self.select()
        check_selection(selection, fewest=0)
        self._check_own(selection)
        return PopulationWeights(self.catalogue, selection.refs)

    def splits(self, scheme: str, *, factor: str | None = None, folds: int = 5, seed: int = 0) -> list[Fold]:
        """Split the zoo's members into train, val and test, fold by fold.

        Args:
            scheme: ``by_parent``, ``by_init_group``, ``leave_one_parent_out`` or ``leave_one_factor_out``, which do not
                leak; ``random_members`` or ``by_seed``, which do, and show how a leak changes a score.
            factor: For leave_one_factor_out, one of `vitzoo.records.members.FACTORS`; ``objective`` means the
                pre-training's.
            folds: Number of folds of by_parent, by_init_group, random_members and a factor inside families, from 2.
            seed: Seed of the division into folds.

        Returns:
            The folds. With the defaults, the table ``splits`` has the same.

        Raises:
            SelectionError: Scheme or factor are unknown, ``folds`` is less than 2, or the zoo has too few families.
            RecordError, HubError: As `table`.
        """
        members, epochs = self._rows
        return plan_folds(scheme, members, epochs, factor=factor, folds=folds, seed=seed)

    def assert_no_leaks(self, parts: Fold | Sides, *, init_groups: InitGroups = "ignored") -> None:
        """Refuse parts that share a member, a family, or the same weights or backbone.

        Members in no part may tie two parts together, because families are of the whole zoo.

        Args:
            parts: A fold, or the members of each part by its name: a `Selection`, ids, references or `Member`.
            init_groups: ``apart`` if members that share a random initialisation must be in one part, too.

        Raises:
            LeakError: They leak; the message names the first leak.
            MemberNotFoundError, MemberIdError: One of them is not a member of this zoo.
            SelectionError: One of them belongs to another zoo.
            RecordError, HubError: As `table`.
        """
        members, epochs = self._rows
        sides = parts if isinstance(parts, Fold) else {part: self._own_ids(items) for part, items in parts.items()}
        assert_no_leaks(sides, members=members, epochs=epochs, init_groups=init_groups)

    @cached_property
    def _rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The rows of members and epochs that splits and leaks depend on."""
        epochs = self.table("epochs").select(["id", "epoch", "weights_id", "backbone_id"])
        return self.table("members").to_pylist(), epochs.to_pylist()

    def _own_ids(self, items: Iterable[Member | MemberRef | MemberId | str]) -> list[str]:
        """Return ids of this zoo's members; refuse members of another zoo."""
        from vitzoo.zoo.selection import Selection  # pyarrow

        if isinstance(items, Selection):
            self._check_own(items)
            return [str(member) for member in items.ids]
        ids = []
        for item in items:
            if isinstance(item, Member):
                self._check_own(item)
                ids.append(str(item.id))
                continue
            ref = MemberRef.parse(str(item))
            if ref.zoo not in (None, "zoo") and not is_same_zoo(ref.zoo, self.source):
                raise self._other_zoo(str(ref.zoo))
            ids.append(str(ref.member))
        return ids

    def _check_own(self, item: "Member | Selection") -> None:
        source = item.catalogue.source
        if os.path.realpath(source.root) != os.path.realpath(self.source.root):
            raise self._other_zoo(source.name)

    def _other_zoo(self, name: str) -> SelectionError:
        return SelectionError(
            f"Members of {name} were given to the zoo {self.source.name}",
            fix="Ask their own zoo, or select them from this one.",
            value=name,
        )
