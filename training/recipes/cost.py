"""What a plan costs before it starts: operations, hours at a rate, disk. Pure; free disk space is handed in.

Hours are reckoned from operations: a rate of training images a second of one kind of member is a rate of operations, at
which all else is taken to run, forward passes of evaluation among it. What one image costs is `plan.py`'s.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

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
    """What one kind of members costs.

    Args:
        name: Of the kind.
        members: How many.
        epochs: Of training, of all of them together.
        images: Images that pass through training, each view counted.
        training_flops: Floating-point operations of training.
        evaluation_flops: Floating-point operations of measuring every epoch.
        checkpoints: Weights files that are kept, the link to the last epoch not counted.
        bytes: Disk for them.
        hours: On one card; None without a rate.
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
    """A data set that is trained on.

    Args:
        name: Of the data set.
        train_images: Images to train on.
        members: How many members train on it.
    """

    name: str
    train_images: int
    members: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a plan, or what is left of it, costs. `describe` prints it.

    Args:
        groups: By kind of member; kinds without members are left out.
        total: All of them together.
        done: Members of the plan that are done, which cost nothing any more.
        datasets: What is trained on.
        longest: The member with most operations, and its hours; None where nothing is left.
        largest: The member with the largest weights, and their bytes; None where nothing is left.
        images_per_second: The rate that hours are reckoned at; None for no hours.
        reference: The member whose training images the rate counts; None for an empty plan.
        keep: Which epochs' weights stay.
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
        """Lines for a person.

        Args:
            free_bytes: What is free where the zoo is to lie, in bytes; a line warns where that is too little.
        """
        if not self.groups:
            its = "its 1 member is" if self.done == 1 else f"all {self.done} members are"
            return [f"Nothing is left to do: {its} done."]
        rows = [("", "members", "epochs", "images", "training", "evaluation", "checkpoints", "disk", "hours")]
        rows += [_row(group) for group in (*self.groups, self.total)]
        if self.images_per_second is None:
            rows = [row[:-1] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                text.rjust(width) if place else text.ljust(width)
                for place, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
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
            cure = "Name a larger disk."
            if self.keep.text != "last":
                cure = "Keep fewer epochs, such as --keep last, or name a larger disk."
            lines.append(
                f"warning: {in_bytes(self.total.bytes)} are needed with --keep {self.keep}, {in_bytes(free_bytes)} are "
                f"free. {cure}"
            )
        return lines

    def summary(self) -> str:
        """The totals in one line."""
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
    """The cost of what is left of a plan.

    Args:
        planned: The members of a recipe.
        done: Those that stand finished.
        images_per_second: A rate of training, in images a second of the plan's first supervised parent (or its first
            member, where it has none), measured or given; a contrastive image in two views counts twice.
        keep: Which epochs' weights stay; all by default.

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
    """A number of floating-point operations as a person reads it: ``27.5 GFLOP``."""
    units = ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.1f} {units[0]}"


def in_hours(hours: float) -> str:
    """A time as a person reads it: ``4.6 min``, ``3.6 h``."""
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
    its = [member for member in members if member.training.dataset.name == name]
    return DatasetNeed(name=name, train_images=its[0].training.dataset.train_images, members=len(its))


def _row(group: GroupCost) -> tuple[str, ...]:
    return (
        group.name,
        f"{group.members:,}",
        f"{group.epochs:,}",
        f"{group.images:,}",
        in_flop(group.training_flops),
        in_flop(group.evaluation_flops),
        f"{group.checkpoints:,}",
        in_bytes(group.bytes),
        "" if group.hours is None else in_hours(group.hours),
    )
