"""Selection: the checkpoints of a zoo that meet conditions, with their rows in the tables, their size, their download.

    chosen = Zoo("zoo").select(head_type="mlp", epoch=range(0, 51, 10), min_test_accuracy=0.8)
    len(chosen), chosen.bytes, chosen.epochs.to_pandas()

Made from the tables alone, without weights or torch. See `vitzoo.zoo.conditions` for what a condition may be.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import pyarrow as pa

from vitzoo.errors import ConflictingArgumentsError, RecordError, SelectionError, did_you_mean, shown
from vitzoo.ids import MemberId, MemberRef
from vitzoo.notebook import Shown
from vitzoo.progress import in_bytes
from vitzoo.records import FACTORS, layout
from vitzoo.records.epochs import Epochs
from vitzoo.tables.catalogue import Catalogue
from vitzoo.zoo.conditions import Condition, alternatives, describe, parse_where

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from vitzoo.weights.population import Part
    from vitzoo.zoo.features import FeaturesAndTarget

_SHOWN_FACTORS = 6  # columns in a notebook
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Selection(Shown, Sequence[MemberRef]):
    """Checkpoints of a zoo, by member and then by epoch. Made by `Zoo.select`.

    A reference without an epoch means the final weights. They equal the last epoch's, so a choice of epochs that names
    the last one does not list them twice.

    Args:
        catalogue: The zoo's records and files.
        refs: The checkpoints.
        left_out: Number of members that met all conditions but did not complete, by status.
    """

    catalogue: Catalogue
    refs: tuple[MemberRef, ...]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.refs)

    def __iter__(self) -> Iterator[MemberRef]:
        return iter(self.refs)

    @overload
    def __getitem__(self, index: SupportsIndex) -> MemberRef: ...

    @overload
    def __getitem__(self, index: slice) -> "Selection": ...

    def __getitem__(self, index: SupportsIndex | slice) -> "MemberRef | Selection":
        if isinstance(index, slice):
            return self.with_refs(self.refs[index])
        return self.refs[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selection) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        return (self.catalogue.source.root, self.refs)

    def __repr__(self) -> str:
        left_out = f"; left out: {_count(self.left_out)}" if self.left_out else ""
        return f"Selection({len(self.ids)} members, {len(self)} checkpoints, {in_bytes(self.bytes)}{left_out})"

    def __or__(self, other: "Selection") -> "Selection":
        """Return the checkpoints of either selection of one zoo, by member and epoch, each once."""
        return self._combine(other, lambda here, there: here or there)

    def __and__(self, other: "Selection") -> "Selection":
        """Return the checkpoints of both selections, by member and epoch, with the names of this one."""
        return self._combine(other, lambda here, there: here and there)

    def __sub__(self, other: "Selection") -> "Selection":
        """Return the checkpoints of this selection alone, by member and epoch."""
        return self._combine(other, lambda here, there: here and not there)

    def __xor__(self, other: "Selection") -> "Selection":
        """Return the checkpoints of one of two selections, by member and epoch."""
        return self._combine(other, lambda here, there: here != there)

    def _combine(self, other: object, keep: Callable[[bool, bool], bool]) -> "Selection":
        """Return the checkpoints to keep. The final weights and those of the last epoch are one checkpoint.

        Raises:
            SelectionError: The other selection is of another zoo.
        """
        if not isinstance(other, Selection):
            return NotImplemented
        source, others = self.catalogue.source, other.catalogue.source
        if os.path.realpath(source.root) != os.path.realpath(others.root):
            raise SelectionError(
                f"A selection of {source.name} was combined with one of {others.name}",
                expected="selections of one zoo",
                value=others.name,
            )
        here, there = ({self._place(ref): ref for ref in selection} for selection in (self, other))
        kept = sorted(place for place in here | there if keep(place in here, place in there))
        return self.with_refs([replace((there | here)[place], zoo=source.name) for place in kept])

    def _place(self, ref: MemberRef) -> tuple[MemberId, int]:
        """Return a checkpoint's member and epoch, a number for the final weights too."""
        return ref.member, max(self.catalogue.epoch_places[ref.member]) if ref.epoch is None else ref.epoch

    def _facts(self) -> dict[str, Any]:
        left_out = _count(self.left_out) or "none"
        counts = {"members": len(self.ids), "checkpoints": len(self), "size": in_bytes(self.bytes)}
        return {"zoo": self.catalogue.source.name} | counts | {"left out": left_out}

    def _table_rows(self) -> list[dict[str, Any]]:
        members = {row["id"]: row for row in self.members_table.to_pylist()}
        varying = [name for name in FACTORS if len({row[name] for row in members.values()}) > 1]
        shown = [name for name in varying if not name.endswith("_seed")][:_SHOWN_FACTORS]
        return [
            {"id": row["id"], "epoch": row["epoch"]}
            | {name: members[row["id"]][name] for name in shown}
            | {name: row[name] for name in ("val_accuracy", "test_accuracy")}
            for row in self.epochs_table.to_pylist()
        ]

    @cached_property
    def ids(self) -> list[MemberId]:
        """The members, without repetition."""
        return list(dict.fromkeys(ref.member for ref in self.refs))

    def with_refs(self, refs: Sequence[MemberRef]) -> "Selection":
        """Return a selection of other checkpoints of the same zoo."""
        return replace(self, refs=tuple(refs), left_out={})

    @cached_property
    def members_table(self) -> pa.Table:
        """The rows of the table ``members`` of `ids`, in their order."""
        return self.catalogue.member_rows(self.ids)

    @cached_property
    def epochs_table(self) -> pa.Table:
        """The rows of the table ``epochs``, one for each checkpoint in its order. Final weights are the last epoch."""
        return self.catalogue.epoch_rows(self.refs)

    @property
    def members(self) -> "datasets.Dataset":
        """`members_table` as a `datasets.Dataset`; ``.to_pandas()`` converts it."""
        return _as_dataset(self.members_table)

    @property
    def epochs(self) -> "datasets.Dataset":
        """`epochs_table` as a `datasets.Dataset`; ``.to_pandas()`` converts it."""
        return _as_dataset(self.epochs_table)

    def to_pandas(self) -> "pd.DataFrame":
        """Return a data frame with a row for each checkpoint, in the selection's order.

        The first column, ``ref``, is the checkpoint, such as ``pt-12/ft-3@7``. Then come the columns of the table
        ``members`` and those of ``epochs``. If both have a column, that of ``epochs`` begins with ``epoch_``: the
        factor ``learning_rate`` is the peak, and ``epoch_learning_rate`` that of the epoch's last step.
        """
        import pandas as pd

        members = self.catalogue.member_rows([ref.member for ref in self.refs]).to_pandas()
        epochs = self.epochs_table.drop_columns(["id"]).to_pandas()
        epochs.columns = [f"epoch_{name}" if name in members else name for name in epochs]
        refs = pd.DataFrame({"ref": [str(replace(ref, zoo=None)) for ref in self.refs]}, dtype=str)
        return pd.concat([refs, members, epochs], axis=1)

    def to_xy(
        self,
        target: str,
        *,
        representation: str = "statistics",
        part: "Part" = "backbone",
        missing: str = "refuse",
    ) -> "FeaturesAndTarget":
        """Read weights as features and a column as the target, for scikit-learn.

        Args:
            target: A column of the tables, or ``gap``, as `vitzoo.weights.learning.dataset.read_target` finds it.
            representation: ``statistics``, seven numbers of each tensor, or ``flat``, the weights themselves.
            part: The ``backbone``, the ``head`` or ``all``; heads must have the same tensors.
            missing: ``refuse``, or ``drop``, which leaves out checkpoints without a value, and a warning counts them.

        Returns:
            ``X``, ``y``, ``groups`` and ``ids``, with a row for each checkpoint in the selection's order. Give
            ``groups`` to scikit-learn's ``GroupKFold``: an initialisation and all of its descendants are one group.

        Raises:
            SelectionError: The target is unknown, the selection is empty, or checkpoints lack a value.
            RepresentationError: The representation has no vector of fixed length.
            WeightsError: Checkpoints have different tensors.

        Example:
            >>> from vitzoo import Zoo
            >>> X, y, groups, ids = Zoo("zoo").select(stage="finetuning").to_xy("test_accuracy")
            >>> len(X) == len(y) == len(groups) == len(ids)
            True
        """
        from vitzoo.zoo.features import features_and_target  # torch

        check_selection(self)
        return features_and_target(
            self.catalogue, self.refs, target, representation=representation, part=part, missing=missing
        )

    @cached_property
    def sizes(self) -> list[int]:
        """The recorded bytes of each checkpoint's weights file, in their order."""
        of_members = {member: self.catalogue.weights_sizes(member) for member in self.ids}
        return [of_members[ref.member][ref.epoch] for ref in self.refs]

    @property
    def bytes(self) -> int:
        """The bytes of all weights files; they are not downloaded."""
        return sum(self.sizes)

    def download(self, to: str | os.PathLike[str] | None = None, *, progress: bool = True) -> None:
        """Download these weights and the other files of their members, and compare them with the zoo's hashes.

        A zoo in a folder needs no download. An interrupted call resumes if it is repeated.

        Args:
            to: A folder that becomes a zoo of its own; None for the Hugging Face cache, which loading uses.
            progress: Whether to show progress on standard error.

        Raises:
            ConflictingArgumentsError: ``to`` exists and is not a copy of this zoo, or this zoo is a folder itself.
            SelectionError: The selection is empty.
            WeightsError, RecordError, HubError, DownloadError: As `vitzoo.sources.download.run_download`.
        """
        if self.catalogue.is_local and to is None:
            return
        from vitzoo.sources.download import download  # huggingface_hub

        download(self.catalogue.source, self.refs, to=to, progress=progress)


def check_selection(selection: object, *, each: str = "", fewest: int = 1) -> None:
    """Refuse an argument that is not a selection, and one that is empty or repeats what it may have once.

    Args:
        selection: The argument.
        each: ``checkpoint`` if each checkpoint may occur once, ``member`` if each member may have one checkpoint. The
            final weights and those of the last epoch are one checkpoint.
        fewest: Smallest number of checkpoints that is accepted: 0 or 1.

    Raises:
        SelectionError: It is refused.
    """
    if not isinstance(selection, Selection):
        raise SelectionError(
            f"A {type(selection).__name__} is not a selection",
            expected="zoo.select(...)",
            fix="Select members that you have by name with zoo.select(id=[...]).",
            value=selection,
        )
    if len(selection) < fewest:
        raise SelectionError("The selection is empty", expected="one or more checkpoints", value=selection)
    if each == "member" and len(selection.ids) < len(selection):
        member, count = Counter(ref.member for ref in selection).most_common(1)[0]
        raise SelectionError(
            f"The selection has {count} checkpoints of {member}",
            expected="one checkpoint of each member",
            fix='Choose an epoch: zoo.select(..., epoch="last").',
            value=str(member),
        )
    if each == "checkpoint":
        epochs = selection.epochs_table.column("epoch").to_pylist()
        places = Counter(zip((ref.member for ref in selection), epochs, strict=True))
        (member, epoch), count = places.most_common(1)[0]
        if count > 1:
            raise SelectionError(
                f"The selection has epoch {epoch} of {member} twice",
                expected="each checkpoint once",
                fix="Select it once.",
                value=str(member),
            )


def select(
    catalogue: Catalogue, where: str, *, epoch: object, status: object, conditions: Mapping[str, object]
) -> Selection:
    """Select checkpoints, as `vitzoo.Zoo.select` does."""
    parsed = parse_where(where)
    if "epochs" in (*parsed, *conditions):
        raise SelectionError(
            "epochs is the length of a member's training",
            fix="Choose checkpoints with epoch=..., and bound the length with min_epochs=... and max_epochs=....",
            value="epochs",
        )
    epoch = _take_argument("epoch", parsed, epoch, defaults=("last",))
    status = _take_argument("status", parsed, status, defaults=("completed", "any"))
    duplicate = next((name for name in conditions if name in parsed), None)
    if duplicate is not None:
        raise ConflictingArgumentsError(f'where="{where}" and an argument both name {duplicate}', fix="Name it once.")
    if not catalogue.member_ids:
        raise SelectionError(f"The zoo {catalogue.source.name} has no members", expected="1 or more", value=where)
    choice = parse_epochs(epoch)
    left, applied = find_checkpoints(catalogue, choice), [f"epoch={describe(choice)}"]
    members, epochs = catalogue.table("members"), catalogue.table("epochs")
    tables = {"members": _with_pretraining_objective(members), "epochs": epochs}
    for condition in (Condition(name, value) for name, value in {**parsed, **conditions}.items()):
        left = _keep(catalogue, left, condition, tables, applied)
    left_out: Mapping[str, int] = {}
    if isinstance(status, str) and status == "completed":
        left, left_out = _keep_completed(left, members.column("status").to_pylist(), applied)
    elif not isinstance(status, str) or status != "any":
        left = _keep(catalogue, left, Condition("status", status), tables, applied)
    refs = tuple(MemberRef(checkpoint.member, catalogue.source.name, checkpoint.epoch) for checkpoint in left)
    return Selection(catalogue=catalogue, refs=refs, left_out=left_out)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved checkpoint of a member, and its row number in each table; epoch None is the final weights."""

    member: MemberId
    epoch: int | None
    rows: Mapping[str, int]


def find_checkpoints(catalogue: Catalogue, choice: Epochs | range) -> list[Checkpoint]:
    """Find the checkpoints of the chosen epochs, by member and epoch.

    Raises:
        RecordError: A member has weights of an epoch without metrics.
        SelectionError: No member has a chosen epoch.
    """
    places, checkpoints, known, existing = catalogue.epoch_places, [], set(), set(catalogue.member_ids)
    table = catalogue.table("members").select(["id", "status", "epochs"])
    for row, (text, status, trained) in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True)):
        member = MemberId.parse(text)
        if member not in existing:  # a partial copy, with the tables of all members
            continue
        measured, saved = places.get(member, {}), catalogue.saved_epochs(member)
        last = max(measured, default=-1)
        missing = {number for number in saved if number is not None} - set(measured)
        if missing or last < 0 or (status == "completed" and last != trained):
            raise RecordError(
                f"{catalogue.source.name}: {member} has weights of epoch {max(missing, default=trained)}",
                expected="metrics of that epoch in metrics.jsonl",
                fix="Get the member again, or train it again.",
                path=catalogue.source.root / layout.metrics_file(member),
            )
        known.update(saved, [last] if None in saved else [])
        for number, epoch in sorted(_choose(choice, saved, last=last).items()):
            checkpoints.append(Checkpoint(member, epoch, {"members": row, "epochs": measured[number]}))
    unknown = sorted(choice.numbers - known) if isinstance(choice, Epochs) else []
    if unknown or not checkpoints:
        missing = unknown[0] if unknown else describe(choice)
        numbers = sorted(epoch for epoch in known if epoch is not None)
        fix = _how_to_get_epochs(catalogue, choice) or did_you_mean(missing, numbers)
        raise SelectionError(f"No member has weights of epoch {missing}", fix=fix, value=missing)
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.member)  # stable: epochs stay ascending


def _how_to_get_epochs(catalogue: Catalogue, choice: Epochs | range) -> str | None:
    """Say how a partial copy gets the chosen epochs of its members; None if its zoo does not have them."""
    source, manifest = catalogue.source, catalogue.source.manifest
    if source.copied is None or manifest is None or isinstance(choice, range):
        return None
    lacking = [member for member in catalogue.member_ids if choice.of(manifest.weights_sizes(member))]
    return source.how_to_widen(lacking, epochs=str(choice)) if lacking else None


def _how_to_get_members(catalogue: Catalogue, condition: Condition, matching: set[str]) -> str | None:
    """Say how a partial copy gets the members that meet a condition; None if it has all of them."""
    existing = {str(member) for member in catalogue.member_ids if catalogue.saved_epochs(member)}
    lacking = sorted(map(MemberId.parse, matching - existing))
    where = "" if isinstance(condition.choice, range) or "..." in str(condition) else str(condition)
    return catalogue.source.how_to_widen(lacking, where=where) if lacking else None


def _choose(choice: Epochs | range, saved: Sequence[int | None], *, last: int) -> dict[int, int | None]:
    """Return the chosen epochs of a member: number to the epoch of its reference.

    The last epoch's weights are the final ones, which None stands for.
    """
    numbers = {epoch for epoch in saved if epoch is not None} | ({last} if None in saved else set())
    if isinstance(choice, range):
        chosen: list[int | None] = [number for number in numbers if number in choice]
    else:
        chosen = choice.of([*numbers, None])
    named: dict[int, int | None] = {
        number: number if number in saved else None for number in chosen if number is not None
    }
    if None in chosen and last in numbers and last not in named:
        named[last] = None if None in saved else last
    return named


def parse_epochs(choice: object) -> Epochs | range:
    """Parse the ``epoch`` argument of `vitzoo.Zoo.select`.

    Raises:
        SelectionError: It is not a number, a list or range of numbers, or a text of `vitzoo.records.epochs.Epochs`.
    """
    if isinstance(choice, (Epochs, range)):
        return choice
    if choice is None or isinstance(choice, str):
        return Epochs("last" if choice is None else choice)
    return Epochs(",".join(map(str, alternatives(choice))))


def _take_argument(name: str, parsed: dict[str, object], given: object, *, defaults: Sequence[str]) -> object:
    """Take a value from the parsed text, or else the argument's."""
    if name not in parsed:
        return given
    if not isinstance(given, str) or given not in defaults:
        raise ConflictingArgumentsError(
            f"where has {name}={describe(parsed[name])}, and an argument {name}={describe(given)}",
            fix="Name it once.",
        )
    return parsed.pop(name)


def _keep(
    catalogue: Catalogue,
    checkpoints: Sequence[Checkpoint],
    condition: Condition,
    tables: Mapping[str, pa.Table],
    applied: list[str],
) -> list[Checkpoint]:
    """Return the checkpoints that meet a condition, and add it to the applied ones."""
    table, matches = condition.find(tables)
    others = ", ".join(applied)
    applied.append(str(condition))
    left = [checkpoint for checkpoint in checkpoints if matches[checkpoint.rows[table]]]
    if not left:
        ids = tables[table].column("id").to_pylist()
        matching = {member for member, is_match in zip(ids, matches, strict=True) if is_match}
        raise SelectionError(
            f'No checkpoint meets all conditions: none that meets {others} also meets "{condition}"',
            fix=_how_to_get_members(catalogue, condition, matching) or "Remove a condition.",
            value=str(condition),
        )
    return left


def _keep_completed(
    checkpoints: Sequence[Checkpoint], statuses: Sequence[str], applied: Sequence[str]
) -> tuple[list[Checkpoint], dict[str, int]]:
    """Return the checkpoints of completed members, and the number of members of each other status."""
    by_member = {checkpoint.member: statuses[checkpoint.rows["members"]] for checkpoint in checkpoints}
    others = dict(Counter(status for status in by_member.values() if status != "completed"))
    left = [checkpoint for checkpoint in checkpoints if by_member[checkpoint.member] == "completed"]
    if not left:
        raise SelectionError(
            f"No completed member meets {', '.join(applied)}, but {_count(others)} do",
            fix='Take them with status="any".',
            value="completed",
        )
    if others:
        _log.warning('Members left out because of their status: %s; status="any" takes them too.', _count(others))
    return left, others


def _count(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {shown(str(status))[1:-1]}" for status, number in statuses.items())


def _with_pretraining_objective(members: pa.Table) -> pa.Table:
    """Replace ``objective`` by the pre-training's: a child's own is always supervised."""
    place = members.schema.get_field_index("objective")
    return members.set_column(place, "objective", members.column("pretraining_objective"))


def _as_dataset(table: pa.Table) -> "datasets.Dataset":
    import datasets

    return datasets.Dataset(table)
