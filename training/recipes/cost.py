"""Estimate the cost of a plan: operations, hours at a rate, disk. Nothing is read or measured here.

A rate of training images a second of one member gives a rate of operations, at which every member and every evaluation
is taken to run. See `plan.py` for the operations of one image.
"""

import io
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from training.recipes.plan import PlannedMember
from training.recipes.retention import Retention
from vitzoo.ids import MemberId
from vitzoo.progress import in_bytes

_GROUPS: dict[str, Callable[[PlannedMember], bool]] = {
    "supervised parents": lambda member: member.id.is_parent and member.training.objective == "supervised",
    "contrastive parents": lambda member: member.id.is_parent and member.training.objective == "contrastive",
    "children": lambda member: not member.id.is_parent,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupCost:
    """The cost of one kind of members.

    Args:
        name: Name of the kind.
        members: Number of members.
        epochs: Epochs of all members together.
        images: Images of all steps, each view counted.
        training_flops: Floating-point operations of training.
        evaluation_flops: Floating-point operations of measuring every epoch.
        checkpoints: Saved weights files, without the link to the last epoch.
        bytes: Disk for the weights files.
        hours: Hours on one card; None without a rate.
    """

    name: str
    members: int
    epochs: int
    images: int
    training_flops: float
    evaluation_flops: float
    checkpoints: int
    bytes: int
    hours: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The cost of the remaining members of a plan.

    Args:
        remaining: Members to train.
        done: Number of finished members of the plan, which cost nothing more.
        images_per_second: Rate for the hours; None for no hours.
        reference: Member whose training images the rate counts; None for an empty plan.
        keep: Epochs whose weights are saved.
    """

    remaining: tuple[PlannedMember, ...]
    done: int
    images_per_second: float | None
    reference: PlannedMember | None
    keep: Retention

    @property
    def groups(self) -> tuple[GroupCost, ...]:
        """Return the cost by kind of member, without kinds that have no members."""
        kinds = {name: [member for member in self.remaining if fits(member)] for name, fits in _GROUPS.items()}
        return tuple(self._group(name, members) for name, members in kinds.items() if members)

    @property
    def total(self) -> GroupCost:
        """Return the cost of all kinds together."""
        return self._group("together", self.remaining)

    def hours(self, *members: PlannedMember) -> float | None:
        """Return the hours of members on one card; None without a rate."""
        if self.images_per_second is None or self.reference is None:
            return None
        return sum(map(_flops, members)) / (self.images_per_second * self.reference.image_flops * 3600)

    def _group(self, name: str, members: Sequence[PlannedMember]) -> GroupCost:
        saved = {epochs: self.keep.count(epochs) for epochs in {member.training.epochs for member in members}}
        return GroupCost(
            name=name,
            members=len(members),
            epochs=sum(member.training.epochs for member in members),
            images=sum(member.images for member in members),
            training_flops=sum(member.flops for member in members),
            evaluation_flops=sum(member.evaluation_flops for member in members),
            checkpoints=sum(saved[member.training.epochs] for member in members),
            bytes=sum(saved[member.training.epochs] * member.checkpoint_bytes for member in members),
            hours=self.hours(*members),
        )

    def describe(self, *, free_bytes: int | None = None) -> list[str]:
        """Return lines of text.

        Args:
            free_bytes: Free bytes on the zoo's disk; a line warns where they are too few.
        """
        if not self.remaining:
            members = "its 1 member is" if self.done == 1 else f"all {self.done} members are"
            return [f"Nothing is left to do: {members} done."]
        total = self.total
        lines = _table((*self.groups, total))
        trainings = [member.training for member in self.remaining]
        datasets = Counter((training.dataset.name, training.dataset.train_images) for training in trainings)
        lines += [
            f"data: {name}, {images:,} training images, {_counted(members, 'member')}"
            for (name, images), members in datasets.items()
        ]
        longest = max(self.remaining, key=_flops)
        largest = max(self.remaining, key=lambda member: member.checkpoint_bytes)
        hours = self.hours(longest)
        time = "" if hours is None else f", {in_hours(hours)}"
        lines.append(
            f"longest: {longest.id}{time}; largest: {largest.id}, {in_bytes(largest.checkpoint_bytes)} an epoch"
        )
        if self.images_per_second is None or self.reference is None:
            lines.append("hours: unknown without a rate of training images a second")
        else:
            lines.append(
                f"hours: of one card that trains {self.reference.id} at {self.images_per_second:,.0f} images/s, if "
                "data never keep it waiting"
            )
        if self.done:
            lines.append(f"done: {_counted(self.done, 'member')}, not counted above")
        if free_bytes is not None and free_bytes < total.bytes:
            fix = "Name a larger disk."
            if self.keep.text != "last":
                fix = "Keep fewer epochs, such as --keep last, or name a larger disk."
            lines.append(
                f"warning: {in_bytes(total.bytes)} are needed with --keep {self.keep}, {in_bytes(free_bytes)} are "
                f"free. {fix}"
            )
        return lines

    def summary(self) -> str:
        """Return the totals in one line."""
        parents = sum(group.members for group in self.groups if group.name.endswith("parents"))
        total = self.total
        return (
            f"{_counted(total.members, 'member')} ({_counted(parents, 'parent')}, "
            f"{_counted(total.members - parents, 'child', 'children')}), "
            f"{_counted(total.checkpoints, 'checkpoint')}, {in_flop(total.training_flops)}, {in_bytes(total.bytes)}"
        )


def estimate(
    planned: Sequence[PlannedMember],
    *,
    done: Collection[MemberId] = frozenset(),
    images_per_second: float | None = None,
    keep: Retention | None = None,
) -> Cost:
    """Estimate the cost of the remaining members of a plan.

    Args:
        planned: Members of a recipe.
        done: Finished members.
        images_per_second: Training rate of the plan's first supervised parent, or of its first member where it has
            none. A contrastive image in two views counts twice.
        keep: Epochs whose weights are saved; all by default.

    Raises:
        ValueError: The rate is not above 0.
    """
    if images_per_second is not None and not images_per_second > 0:
        raise ValueError(f"images_per_second is {images_per_second}; expected a number above 0")
    reference = next(filter(_GROUPS["supervised parents"], planned), next(iter(planned), None))
    remaining = tuple(member for member in planned if member.id not in done)
    return Cost(
        remaining=remaining,
        done=len(planned) - len(remaining),
        images_per_second=images_per_second,
        reference=reference,
        keep=keep or Retention(),
    )


def in_flop(count: float) -> str:
    """Format a number of floating-point operations: ``27.5 GFLOP``."""
    units = ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.1f} {units[0]}"


def in_hours(hours: float) -> str:
    """Format a time: ``4.6 min``, ``3.6 h``."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"


def _counted(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def _flops(member: PlannedMember) -> float:
    return member.flops + member.evaluation_flops


def _table(groups: Sequence[GroupCost]) -> list[str]:
    table = Table("", box=None, pad_edge=False)
    for column in ("members", "epochs", "images", "training", "evaluation", "checkpoints", "disk"):
        table.add_column(column, justify="right")
    if groups[0].hours is not None:
        table.add_column("hours", justify="right")
    for group in groups:
        numbers = [f"{group.members:,}", f"{group.epochs:,}", f"{group.images:,}"]
        numbers += [in_flop(group.training_flops), in_flop(group.evaluation_flops)]
        numbers += [f"{group.checkpoints:,}", in_bytes(group.bytes)]
        table.add_row(group.name, *numbers, *([] if group.hours is None else [in_hours(group.hours)]))
    console = Console(file=io.StringIO(), width=1000, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]
