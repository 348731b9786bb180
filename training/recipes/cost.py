"""Estimate the cost of a plan: operations, hours at a rate, disk. Nothing is read or measured here.

A rate of training images a second of one kind of member gives a rate of operations. Every member and every evaluation
is taken to run at that rate. See `plan.py` for the operations of one image.
"""

import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from training.recipes.plan import PlannedMember
from training.recipes.retention import Retention
from vitzoo.ids import MemberId
from vitzoo.progress import in_bytes

_GROUPS: dict[str, Callable[[PlannedMember], bool]] = {
    "supervised parents": lambda one: one.id.is_parent and one.training.objective == "supervised",
    "contrastive parents": lambda one: one.id.is_parent and one.training.objective == "contrastive",
    "children": lambda one: not one.id.is_parent,
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
class DatasetNeed:
    """A data set of a plan.

    Args:
        name: Name of the data set.
        train_images: Number of training images.
        members: Number of members that train on it.
    """

    name: str
    train_images: int
    members: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The cost of the remaining members of a plan.

    Args:
        groups: Cost by kind of member, without kinds that have no members.
        total: Cost of all kinds together.
        done: Finished members of the plan, which cost nothing more.
        datasets: Data sets of the plan.
        longest: Member with most operations, and its hours; None where no member is left.
        largest: Member with the largest weights, and their bytes; None where no member is left.
        images_per_second: Rate for the hours; None for no hours.
        reference: Member whose training images the rate counts; None for an empty plan.
        keep: Epochs whose weights are saved.
    """

    groups: tuple[GroupCost, ...]
    total: GroupCost
    done: int
    datasets: tuple[DatasetNeed, ...]
    longest: tuple[MemberId, float | None] | None
    largest: tuple[MemberId, int] | None
    images_per_second: float | None
    reference: MemberId | None
    keep: Retention

    def describe(self, *, free_bytes: int | None = None) -> list[str]:
        """Return lines of text.

        Args:
            free_bytes: Free bytes on the zoo's disk; a line warns where they are too few.
        """
        if not self.groups:
            members = "its 1 member is" if self.done == 1 else f"all {self.done} members are"
            return [f"Nothing is left to do: {members} done."]
        lines = _table((*self.groups, self.total), with_hours=self.images_per_second is not None)
        lines += [
            f"data: {one.name}, {one.train_images:,} training images, {_counted(one.members, 'member')}"
            for one in self.datasets
        ]
        if self.longest is not None and self.largest is not None:
            member, hours = self.longest
            time = "" if hours is None else f", {in_hours(hours)}"
            lines.append(f"longest: {member}{time}; largest: {self.largest[0]}, {in_bytes(self.largest[1])} an epoch")
        if self.images_per_second is None:
            lines.append("hours: unknown without a rate of training images a second")
        else:
            lines.append(
                f"hours: of one card that trains {self.reference} at {self.images_per_second:,.0f} images/s, if data "
                "never keep it waiting"
            )
        if self.done:
            lines.append(f"done: {_counted(self.done, 'member')}, not counted above")
        if free_bytes is not None and free_bytes < self.total.bytes:
            fix = "Name a larger disk."
            if self.keep.text != "last":
                fix = "Keep fewer epochs, such as --keep last, or name a larger disk."
            lines.append(
                f"warning: {in_bytes(self.total.bytes)} are needed with --keep {self.keep}, {in_bytes(free_bytes)} are "
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
    keep = keep or Retention()
    reference = next((one for one in planned if _GROUPS["supervised parents"](one)), next(iter(planned), None))
    rate = None if images_per_second is None or reference is None else images_per_second * reference.image_flops * 3600
    left = [member for member in planned if member.id not in done]
    longest = max(left, key=_flops, default=None)
    largest = max(left, key=lambda member: member.checkpoint_bytes, default=None)
    groups = [_group(name, [one for one in left if holds(one)], rate, keep) for name, holds in _GROUPS.items()]
    names = dict.fromkeys(member.training.dataset.name for member in left)
    return Cost(
        groups=tuple(group for group in groups if group.members),
        total=_group("together", left, rate, keep),
        done=len(planned) - len(left),
        datasets=tuple(_need(name, left) for name in names),
        longest=None if longest is None else (longest.id, None if rate is None else _flops(longest) / rate),
        largest=None if largest is None else (largest.id, largest.checkpoint_bytes),
        images_per_second=images_per_second,
        reference=None if reference is None else reference.id,
        keep=keep,
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


def _counted(number: int, one: str, several: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def _flops(member: PlannedMember) -> float:
    return member.flops + member.evaluation_flops


def _group(name: str, members: Sequence[PlannedMember], rate: float | None, keep: Retention) -> GroupCost:
    kept = {epochs: keep.count(epochs) for epochs in {member.training.epochs for member in members}}
    return GroupCost(
        name=name,
        members=len(members),
        epochs=sum(member.training.epochs for member in members),
        images=sum(member.images for member in members),
        training_flops=sum(member.flops for member in members),
        evaluation_flops=sum(member.evaluation_flops for member in members),
        checkpoints=sum(kept[member.training.epochs] for member in members),
        bytes=sum(kept[member.training.epochs] * member.checkpoint_bytes for member in members),
        hours=None if rate is None else sum(map(_flops, members)) / rate,
    )


def _need(name: str, members: Sequence[PlannedMember]) -> DatasetNeed:
    datasets = [member.training.dataset for member in members if member.training.dataset.name == name]
    return DatasetNeed(name=name, train_images=datasets[0].train_images, members=len(datasets))


def _table(groups: Sequence[GroupCost], *, with_hours: bool) -> list[str]:
    table = Table("", box=None, pad_edge=False)
    for column in ("members", "epochs", "images", "training", "evaluation", "checkpoints", "disk", "hours"):
        if column != "hours" or with_hours:
            table.add_column(column, justify="right")
    for group in groups:
        numbers = [f"{group.members:,}", f"{group.epochs:,}", f"{group.images:,}"]
        numbers += [in_flop(group.training_flops), in_flop(group.evaluation_flops)]
        numbers += [f"{group.checkpoints:,}", in_bytes(group.bytes)]
        table.add_row(group.name, *numbers, *([] if group.hours is None else [in_hours(group.hours)]))
    console = Console(file=io.StringIO(), width=1000, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]
