"""Selection: checkpoints of a zoo that conditions hold of, with their rows in the tables, their size, their download.

    chosen = Zoo("zoo").select(head_type="mlp", epoch=range(0, 51, 10), min_test_accuracy=0.8)
    len(chosen), chosen.bytes, chosen.epochs.to_pandas()

Made from the tables alone: no weights, and no torch. What a condition may say is `vitzoo.zoo.conditions`' business.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, overload

import pyarrow as pa

from vitzoo.errors import ConflictingArgumentsError, SelectionError, shown
from vitzoo.ids import MemberId, MemberRef
from vitzoo.progress import ByteProgress, in_bytes
from vitzoo.sources.folder import FolderSource
from vitzoo.zoo.checkpoints import Checkpoint, find_checkpoints, find_epoch_rows, parse_epochs
from vitzoo.zoo.conditions import Condition, describe, parse_where

if TYPE_CHECKING:
    import datasets

    from vitzoo.zoo.zoo import Zoo

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Selection(Sequence[MemberRef]):
    """Checkpoints of a zoo, by member and then by epoch. Made by `Zoo.select`.

    A reference without an epoch means the final weights. They are the last epoch's, so where that is chosen by its
    number, they are not there a second time.

    Args:
        zoo: The zoo.
        refs: The checkpoints.
        left_out: How many members all conditions held of, but that are not in it because of what became of them, by
            status.
    """

    zoo: "Zoo"
    refs: tuple[MemberRef, ...]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.refs)

    def __iter__(self) -> Iterator[MemberRef]:
        return iter(self.refs)

    @overload
    def __getitem__(self, index: int) -> MemberRef: ...

    @overload
    def __getitem__(self, index: slice) -> "Selection": ...

    def __getitem__(self, index: int | slice) -> "MemberRef | Selection":
        if isinstance(index, slice):
            return replace(self, refs=self.refs[index], left_out={})
        return self.refs[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selection) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        return (self.zoo.source.root, self.refs)

    def __repr__(self) -> str:
        left_out = f"; left out: {_count(self.left_out)}" if self.left_out else ""
        return f"Selection({len(self.ids)} members, {len(self)} checkpoints, {in_bytes(self.bytes)}{left_out})"

    @cached_property
    def ids(self) -> list[MemberId]:
        """The members, each once."""
        return list(dict.fromkeys(ref.member for ref in self.refs))

    @cached_property
    def members_table(self) -> pa.Table:
        """The rows of the table ``members`` of `ids`, in their order."""
        rows = {text: row for row, text in enumerate(self.zoo.table("members").column("id").to_pylist())}
        return _take(self.zoo.table("members"), [rows[str(member)] for member in self.ids])

    @cached_property
    def epochs_table(self) -> pa.Table:
        """The rows of the table ``epochs``, one for each checkpoint in its order; of final weights the last epoch's."""
        rows = find_epoch_rows(self.zoo)
        chosen = [rows[ref.member][max(rows[ref.member]) if ref.epoch is None else ref.epoch] for ref in self.refs]
        return _take(self.zoo.table("epochs"), chosen)

    @property
    def members(self) -> "datasets.Dataset":
        """`members_table` as a `datasets.Dataset`; ``.to_pandas()`` makes a data frame of it."""
        return _as_dataset(self.members_table)

    @property
    def epochs(self) -> "datasets.Dataset":
        """`epochs_table` as a `datasets.Dataset`; ``.to_pandas()`` makes a data frame of it."""
        return _as_dataset(self.epochs_table)

    @cached_property
    def sizes(self) -> list[int]:
        """The bytes of each checkpoint's weights file, in their order, as the zoo's records or manifest say."""
        of_members = {member: self.zoo.source.weights_sizes(member) for member in self.ids}
        return [of_members[ref.member][ref.epoch] for ref in self.refs]

    @property
    def bytes(self) -> int:
        """The size of all weights files; nothing is downloaded for it."""
        return sum(self.sizes)

    def download(self, to: str | os.PathLike[str] | None = None, *, progress: bool = True) -> None:
        """Get exactly these weights, and what their members need to be loaded, compared with the zoo's hashes.

        Of a zoo in a folder there is nothing to get. Ended at any moment, the same call goes on from there.

        Args:
            to: A folder that becomes a zoo of its own; None for the Hugging Face cache, where loading finds them.
            progress: Whether it shows on standard error where it stands.

        Raises:
            ConflictingArgumentsError: ``to`` is there and is no copy of this zoo, or this zoo is a folder itself.
            SelectionError: There are no checkpoints in it.
            WeightsError, RecordError, HubError, DownloadError: As `vitzoo.sources.download.run_download`.
        """
        if isinstance(self.zoo.source, FolderSource) and to is None:
            return
        from vitzoo.hub_http import quiet
        from vitzoo.sources.download import plan_download, run_download

        planned = plan_download(self.zoo, self.refs, to=to)
        with quiet():
            if not progress:
                run_download(planned)
                return
            with ByteProgress("downloading") as shown_progress:
                run_download(planned, report=shown_progress.update)


def select(zoo: "Zoo", where: str, *, epoch: object, status: object, conditions: Mapping[str, object]) -> Selection:
    """See `vitzoo.Zoo.select`."""
    said = parse_where(where)
    if "epochs" in (*said, *conditions):
        raise SelectionError(
            "epochs is how long a member was trained; which of its checkpoints is chosen says epoch=.... Of the length "
            "of training say min_epochs=... and max_epochs=....",
            value="epochs",
        )
    epoch = _said_once("epoch", said, epoch, default=("last",))
    status = _said_once("status", said, status, default=("completed", "any"))
    twice = next((name for name in conditions if name in said), None)
    if twice is not None:
        raise ConflictingArgumentsError(f'{twice} is said by where="{where}" and again by an argument. Say it once.')
    if not len(zoo):
        raise SelectionError(f"The zoo {zoo.source.name} has no members: there is nothing to choose from.", value=where)
    choice = parse_epochs(epoch)
    left, applied = find_checkpoints(zoo, choice), [f"epoch={describe(choice)}"]
    tables = {"members": _with_pretraining_objective(zoo.table("members")), "epochs": zoo.table("epochs")}
    for condition in (Condition(name, wanted) for name, wanted in {**said, **conditions}.items()):
        left = _keep(left, condition, tables, applied)
    left_out: Mapping[str, int] = {}
    if isinstance(status, str) and status == "completed":
        left, left_out = _keep_completed(left, tables["members"].column("status").to_pylist(), applied)
    elif not isinstance(status, str) or status != "any":
        left = _keep(left, Condition("status", status), tables, applied)
    refs = tuple(MemberRef(checkpoint.member, zoo.source.name, checkpoint.epoch) for checkpoint in left)
    return Selection(zoo=zoo, refs=refs, left_out=left_out)


def _said_once(name: str, said: dict[str, object], given: object, *, default: Sequence[str]) -> object:
    """What the text says of it, taken out of there, else what the argument does."""
    if name not in said:
        return given
    if not isinstance(given, str) or given not in default:
        raise ConflictingArgumentsError(
            f"{name}={describe(said[name])} is said by the text and {name}={describe(given)} by an argument. Say one."
        )
    return said.pop(name)


def _keep(
    checkpoints: Sequence[Checkpoint], condition: Condition, tables: Mapping[str, pa.Table], applied: list[str]
) -> list[Checkpoint]:
    """Those that a condition holds of; it joins those applied."""
    table, holds = condition.find(tables)
    applied.append(str(condition))
    left = [checkpoint for checkpoint in checkpoints if holds[checkpoint.rows[table]]]
    if not left:
        raise SelectionError(
            f'No checkpoint is left after "{condition}": each of {", ".join(applied)} holds of some, all of none.',
            value=str(condition),
        )
    return left


def _keep_completed(
    checkpoints: Sequence[Checkpoint], statuses: Sequence[str], applied: Sequence[str]
) -> tuple[list[Checkpoint], dict[str, int]]:
    """Those of completed members, and how many members there are of each other status."""
    by_member = {checkpoint.member: statuses[checkpoint.rows["members"]] for checkpoint in checkpoints}
    others = dict(Counter(status for status in by_member.values() if status != "completed"))
    left = [checkpoint for checkpoint in checkpoints if by_member[checkpoint.member] == "completed"]
    if not left:
        raise SelectionError(
            f'No completed member is left after {", ".join(applied)}, but {_count(others)}: status="any" takes them.',
            value="completed",
        )
    if others:
        _log.warning('Members left out because of their status: %s; status="any" takes them too.', _count(others))
    return left, others


def _count(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {shown(str(status))[1:-1]}" for status, number in statuses.items())


def _with_pretraining_objective(members: pa.Table) -> pa.Table:
    """The table in which ``objective`` tells children apart: their own is always supervised."""
    place = members.schema.get_field_index("objective")
    return members.set_column(place, "objective", members.column("pretraining_objective"))


def _take(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    return table.take(pa.array(rows, pa.int64()))


def _as_dataset(table: pa.Table) -> "datasets.Dataset":
    import datasets

    return datasets.Dataset(table)
