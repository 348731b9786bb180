"""Checkpoints: which weights of which member a choice of epochs means, and their rows in the zoo's tables.

What else they are chosen by is `vitzoo.zoo.conditions`' business, what becomes of them `vitzoo.zoo.selection`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitzoo.errors import RecordError, SelectionError, did_you_mean
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.zoo.conditions import Epochs, alternatives, describe

if TYPE_CHECKING:
    from vitzoo.zoo.zoo import Zoo


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights that can be chosen: a member's, at an epoch or the final ones, and their row in each table."""

    member: MemberId
    epoch: int | None
    rows: Mapping[str, int]


def find_checkpoints(zoo: "Zoo", choice: Epochs | range) -> list[Checkpoint]:
    """Those of the chosen epochs, in order."""
    epoch_rows, found, there, here = find_epoch_rows(zoo), [], set(), set(zoo.source.member_ids())
    table = zoo.table("members").select(["id", "status", "epochs"])
    for row, (text, status, trained) in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True)):
        member = MemberId.parse(text)
        if member not in here:  # a copy of some members, with the tables of all
            continue
        last, kept = max(epoch_rows.get(member, [-1])), zoo.source.kept_epochs(member)
        lacking = {number for number in kept if number is not None} - set(epoch_rows.get(member, []))
        if lacking or last < 0 or (status == "completed" and last != trained):
            raise RecordError(
                f"{zoo.source.name}: {member} has weights of epoch {max(lacking, default=trained)}, but no figures of "
                "it: its metrics are cut. Get the member again, or train it again.",
                path=zoo.source.root / layout.metrics_file(member),
            )
        there.update(kept, [last] if None in kept else [])
        for number, epoch in sorted(_choose(choice, kept, last=last).items()):
            found.append(Checkpoint(member, epoch, {"members": row, "epochs": epoch_rows[member][number]}))
    missing = sorted(choice.numbers - there) if isinstance(choice, Epochs) else []
    if missing or not found:
        wanted = missing[0] if missing else describe(choice)
        known = sorted(epoch for epoch in there if epoch is not None)
        raise SelectionError(f"No member has weights of epoch {wanted}.{did_you_mean(wanted, known)}", value=wanted)
    return sorted(found, key=lambda checkpoint: checkpoint.member)  # which leaves each member's epochs in their order


def _choose(choice: Epochs | range, kept: Sequence[int | None], *, last: int) -> dict[int, int | None]:
    """The chosen epochs of a member by their numbers, each as a reference names it.

    Args:
        choice: What is chosen.
        kept: The weights files that there are; None for the final ones.
        last: The number of the last epoch, whose weights are the final ones.
    """
    numbers = {epoch for epoch in kept if epoch is not None} | ({last} if None in kept else set())
    if isinstance(choice, range):
        chosen: list[int | None] = [number for number in numbers if number in choice]
    else:
        chosen = choice.of([*numbers, None])
    named: dict[int, int | None] = {
        number: number if number in kept else None for number in chosen if number is not None
    }
    if None in chosen and last in numbers and last not in named:
        named[last] = None if None in kept else last
    return named


def parse_epochs(wanted: object) -> Epochs | range:
    """A choice of epochs from what a user gave for ``epoch``.

    Raises:
        SelectionError: It is no number, no list or range of them, and no text that `vitzoo.zoo.conditions.Epochs`
            takes.
    """
    if isinstance(wanted, (Epochs, range)):
        return wanted
    if wanted is None or isinstance(wanted, str):
        return Epochs("last" if wanted is None else wanted)
    return Epochs(",".join(map(str, alternatives(wanted))))


def find_epoch_rows(zoo: "Zoo") -> dict[MemberId, dict[int, int]]:
    """Where the table ``epochs`` has each epoch of each member."""
    table, rows = zoo.table("epochs"), {}
    for row, (text, epoch) in enumerate(
        zip(*(table.column(name).to_pylist() for name in ("id", "epoch")), strict=True)
    ):
        rows.setdefault(text, {})[epoch] = row
    return {MemberId.parse(text): its for text, its in rows.items()}
