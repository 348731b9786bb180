"""Zoo: a population as a Python object: its members, tables, selections, splits and weights.

    zoo = Zoo("zoo")
    member = zoo["pt-12/ft-3"]

Where a name leads is `vitzoo.sources.locate`'s business; one member is `vitzoo.zoo.member`'s.
"""

import os
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vitzoo.errors import SelectionError
from vitzoo.ids import MemberId
from vitzoo.sources.locate import open_source
from vitzoo.sources.source import HubOptions, ZooSource
from vitzoo.splits.folds import Fold
from vitzoo.splits.leaks import InitGroups, Sides, assert_no_leaks
from vitzoo.splits.plan import plan_folds
from vitzoo.zoo.member import Member

if TYPE_CHECKING:
    import pyarrow as pa

    from vitzoo.weights.population import PopulationWeights
    from vitzoo.zoo.selection import Selection


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

    def table(self, name: str) -> "pa.Table":
        """One of the zoo's tables: of a folder built from its members' own records, of a Hub repo the published one.

        Args:
            name: One of `vitzoo.tables.metadata.TABLES`, where the columns are explained: ``members``, ``epochs``, ...

        Raises:
            SelectionError: There is no such table.
            RecordError: A record, or the published table, is damaged.
            HubError: The Hub cannot be reached, or refuses.
        """
        return self.source.table(name)

    def select(
        self, where: str = "", *, epoch: object = "last", status: object = "completed", **conditions: object
    ) -> "Selection":
        """The checkpoints that all conditions hold of.

        Args:
            where: Conditions as the command line takes them, such as ``"head_type=mlp,optimizer=adamw|sgd"``.
            epoch: Finished epochs: a number, several, or a range, which stands for those of it that were kept;
                ``"last"`` (the final weights), ``"all"`` or ``"every-10"``.
            status: What became of the members; ``"any"`` for all. Those that did not complete are left out by default,
                and a warning says how many.
            **conditions: A column of the tables ``members`` and ``epochs`` (the first that has it) and its value; a
                list, tuple or set of alternatives; of whole numbers a range; None for null; ``min_<column>`` and
                ``max_<column>`` (inclusive) of numbers. What only ``epochs`` has, as ``min_test_accuracy``, is the
                checkpoint's own figure. ``objective`` is that of the pre-training, a child's its parent's (the column
                ``pretraining_objective``): every child is fine-tuned supervised.

        Returns:
            By member, then by epoch. Nothing is downloaded but the tables.

        Raises:
            SelectionError: A name, a value or an epoch is unknown, or nothing is left; the message says after which
                condition, in their order.
            ConflictingArgumentsError: Something is said by ``where`` and again by an argument.
            RecordError, HubError: As `table`.

        Example:
            >>> Zoo("zoo").select(head_type="mlp", epoch=range(0, 51, 10), min_test_accuracy=0.8)  # doctest: +SKIP
            Selection(45 members, 104 checkpoints, 20.2 MB)
        """
        from vitzoo.zoo.selection import select

        return select(self, where, epoch=epoch, status=status, conditions=conditions)

    def weights(self, selection: "Selection | None" = None) -> "PopulationWeights":
        """The weights of many checkpoints as arrays, without building a module.

        Args:
            selection: Which, in which order; the final weights of all completed members by default.

        Returns:
            A `vitzoo.weights.population.PopulationWeights`; nothing is read before it is asked for.

        Raises:
            SelectionError: It is of another zoo.

        Example:
            >>> weights = zoo.weights(zoo.select(stage="finetuning"))  # doctest: +SKIP
            >>> weights.tensor("vit.layernorm.weight").shape, weights.matrix().values.shape  # doctest: +SKIP
            ((128, 32), (128, 39232))
        """
        from vitzoo.weights.population import PopulationWeights
        from vitzoo.zoo.selection import Selection

        if selection is None:
            selection = self.select()
        elif not isinstance(selection, Selection):
            raise SelectionError(
                f"A {type(selection).__name__} is no selection: give zoo.select(...), a part of "
                "fold.of(zoo.select(...)), or zoo.select(id=[...]) of members that you have by name.",
                value=selection,
            )
        if os.path.realpath(selection.zoo.source.root) != os.path.realpath(self.source.root):
            raise SelectionError(
                f"The selection is of {selection.zoo.source.name}, not of {self.source.name}: ask its own zoo for its "
                "weights.",
                value=selection,
            )
        return PopulationWeights(selection)

    def splits(self, scheme: str, *, factor: str | None = None, folds: int = 5, seed: int = 0) -> list[Fold]:
        """The zoo's members in train, val and test, fold by fold.

        Args:
            scheme: ``by_parent``, ``by_init_group``, ``leave_one_parent_out`` or ``leave_one_factor_out``, which do not
                leak; ``random_members`` or ``by_seed``, which do, and show what that makes of a score.
            factor: Of leave_one_factor_out: one of `vitzoo.zoo.member.FACTORS`; ``objective`` is that of the
                pre-training.
            folds: Shares that by_parent, by_init_group, random_members and a factor inside families make, from 2.
            seed: Which of the possible divisions into shares.

        Returns:
            The folds; with the defaults, those of the table ``splits``.

        Raises:
            SelectionError: Scheme or factor are unknown, ``folds`` is less than 2, or the zoo has too few families.
            RecordError, HubError: As `table`.

        Example:
            >>> fold = Zoo("zoo").splits("by_parent")[0]  # doctest: +SKIP
            >>> len(fold.ids("train")), len(fold.ids("val")), len(fold.ids("test"))  # doctest: +SKIP
            (62, 52, 27)
        """
        members, epochs = self._rows
        return plan_folds(scheme, members, epochs, factor=factor, folds=folds, seed=seed)

    def assert_no_leaks(self, parts: Fold | Sides, *, init_groups: InitGroups = "ignored") -> None:
        """Refuse parts that leak into each other: that share a member, a family, or the same weights or backbone.

        Families are those of the whole zoo: what members on no side tie together is a leak, too.

        Args:
            parts: A fold, or the members of each part under its name: a `Selection`, ids, references or `Member`.
            init_groups: ``apart`` where members that share a random initialisation are to be on one side, too.

        Raises:
            LeakError: They do; the message names the first leak.
            MemberNotFoundError, MemberIdError: One of them is no member of this zoo.
            SelectionError: One of them is of another zoo.
            RecordError, HubError: As `table`.

        Example:
            >>> Zoo("zoo").assert_no_leaks({"train": ["pt-0/ft-0"], "test": ["pt-2/ft-1"]})  # doctest: +SKIP
        """
        members, epochs = self._rows
        assert_no_leaks(parts, members=members, epochs=epochs, init_groups=init_groups, zoo=self.source)

    @cached_property
    def _rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What splits and leaks are looked for in, of members and epochs."""
        epochs = self.table("epochs").select(["id", "epoch", "weights_id", "backbone_id"])
        return self.table("members").to_pylist(), epochs.to_pylist()

    @property
    def parents(self) -> list["Member"]:
        """The pre-trained members."""
        return [member for member in self if member.id.is_parent]
