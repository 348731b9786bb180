"""Estimate the cost of a plan: operations, hours at a rate, disk. Nothing is read or measured here.

A rate of training images or tokens a second of one member gives a rate of operations, at which every member and every
evaluation is taken to run. See `plan.py` for the operations of one image or token.
"""

import io
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from training.recipes.plan import PlannedMember
from training.recipes.retention import Retention
from vitzoo.cli.display import Number, print_table
from vitzoo.ids import MemberId
from vitzoo.progress import in_bytes

_GROUPS: dict[str, Callable[[PlannedMember], bool]] = {
    "supervised parents": lambda member: member.id.is_parent and member.training.objective == "supervised",
    "contrastive parents": lambda member: member.id.is_parent and member.training.objective == "contrastive",
    "autoencoding parents": lambda member: member.id.is_parent and member.training.objective == "autoencoding",
    "distillation parents": lambda member: member.id.is_parent and member.training.objective == "distillation",
    "masked parents": lambda member: member.id.is_parent and member.training.objective == "masked",
    "children": lambda member: not member.id.is_parent,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The cost of the remaining members of a plan, or of one kind of them.

    Args:
        remaining: Members to train.
        done: Number of finished members of the plan, which cost nothing more.
        throughput: Images or tokens a second, for the hours; None for no hours.
        reference: Member whose images or tokens the rate counts; None for an empty plan.
        keep: Epochs whose weights are saved.
        dtype: Type of the saved epochs between the first and the last: ``fp32`` or ``bf16``.
    """

    remaining: tuple[PlannedMember, ...]
    done: int
    throughput: float | None
    reference: PlannedMember | None
    keep: Retention
    dtype: str = "fp32"

    @property
    def groups(self) -> dict[str, "Cost"]:
        """Return the cost by kind of member, without kinds that have no members."""
        kinds = {name: tuple(filter(fits, self.remaining)) for name, fits in _GROUPS.items()}
        return {name: replace(self, remaining=members) for name, members in kinds.items() if members}

    @property
    def training_flops(self) -> float:
        """Return the floating-point operations of training."""
        return sum(member.flops for member in self.remaining)

    @property
    def evaluation_flops(self) -> float:
        """Return the floating-point operations of measuring every epoch."""
        return sum(member.evaluation_flops for member in self.remaining)

    @property
    def checkpoints(self) -> int:
        """Return the number of saved weights files, without the link to the last epoch."""
        return sum(self.keep.count(member.training.epochs) for member in self.remaining)

    @property
    def bytes(self) -> int:
        """Return the disk for the weights files."""
        total = 0.0
        for member in self.remaining:
            last = member.training.epochs
            whole = 1 + self.keep.keeps(0, last) if self.dtype == "bf16" else self.keep.count(last)
            total += (self.keep.count(last) + whole) / 2 * member.checkpoint_bytes
        return round(total)

    @property
    def hours(self) -> float | None:
        """Return the hours on one card; None without a rate."""
        if self.throughput is None or self.reference is None:
            return None
        flops = self.training_flops + self.evaluation_flops
        return flops / (self.throughput * self.reference.unit_flops * 3600)

    def describe(self, *, free_bytes: int | None = None, width: int = 1000) -> list[str]:
        """Return lines of text.

        Args:
            free_bytes: Free bytes on the zoo's disk; a line warns where they are too few.
            width: Columns of the terminal, into which the table fits.
        """
        if not self.remaining:
            members = "its 1 member is" if self.done == 1 else f"all {self.done} members are"
            return [f"Nothing is left to do: {members} done."]
        lines = _table({**self.groups, "together": self}, width=width)
        trainings = [member.training for member in self.remaining]
        datasets = Counter((one.dataset.name, one.dataset.n_train, one.dataset.unit) for one in trainings)
        lines += [
            f"data: {name}, {count:,} training {unit}, {_counted(members, 'member')}"
            for (name, count, unit), members in datasets.items()
        ]
        longest = max(self.remaining, key=lambda member: member.flops + member.evaluation_flops)
        largest = max(self.remaining, key=lambda member: member.checkpoint_bytes)
        hours = replace(self, remaining=(longest,)).hours
        time = "" if hours is None else f", {in_hours(hours)}"
        lines.append(
            f"longest: {longest.id}{time}; largest: {largest.id}, {in_bytes(largest.checkpoint_bytes)} an epoch"
        )
        if self.throughput is None or self.reference is None:
            lines.append(f"hours: unknown without a rate of training {self.remaining[0].unit} a second")
        else:
            lines.append(
                f"hours: of one card that trains {self.reference.id} at {self.throughput:,.0f} "
                f"{self.reference.unit}/s, if data never keep it waiting"
            )
        if self.done:
            lines.append(f"done: {_counted(self.done, 'member')}, not counted above")
        if free_bytes is not None and (warning := self.disk_warning(free_bytes)):
            lines.append(warning)
        return lines

    def disk_warning(self, free_bytes: int) -> str | None:
        """Return a warning if the weights files need more than the free bytes of the zoo's disk, else None."""
        if free_bytes >= self.bytes:
            return None
        fix = "Name a larger disk."
        if self.keep.text != "last":
            fix = "Keep fewer epochs, such as --keep last, or name a larger disk."
        needed = f"{in_bytes(self.bytes)} are needed with --keep {self.keep}"
        return f"warning: {needed}, {in_bytes(free_bytes)} are free. {fix}"

    def summary(self) -> str:
        """Return the totals in one line."""
        parents = sum(member.id.is_parent for member in self.remaining)
        return (
            f"{_counted(len(self.remaining), 'member')} ({_counted(parents, 'parent')}, "
            f"{_counted(len(self.remaining) - parents, 'child', 'children')}), "
            f"{_counted(self.checkpoints, 'checkpoint')}, {in_flop(self.training_flops)}, {in_bytes(self.bytes)}"
        )


def estimate(
    planned: Sequence[PlannedMember],
    *,
    done: Collection[MemberId] = frozenset(),
    throughput: float | None = None,
    keep: Retention | None = None,
    dtype: str = "fp32",
) -> Cost:
    """Estimate the cost of the remaining members of a plan.

    Args:
        planned: Members of a recipe.
        done: Finished members.
        throughput: Images or tokens a second of the plan's first supervised parent, or of its first member where it
            has none. A contrastive image in two views counts twice.
        keep: Epochs whose weights are saved; all by default.
        dtype: Type of the saved epochs between the first and the last: ``fp32`` or ``bf16``.

    Raises:
        ValueError: The rate is not above 0.
    """
    if throughput is not None and not throughput > 0:
        raise ValueError(f"throughput is {throughput}; expected a number above 0")
    reference = next(filter(_GROUPS["supervised parents"], planned), next(iter(planned), None))
    remaining = tuple(member for member in planned if member.id not in done)
    return Cost(
        remaining=remaining,
        done=len(planned) - len(remaining),
        throughput=throughput,
        reference=reference,
        keep=keep or Retention(),
        dtype=dtype,
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


def _table(costs: Mapping[str, Cost], *, width: int) -> list[str]:
    hours = [] if costs["together"].hours is None else ["hours"]
    unit = costs["together"].remaining[0].unit
    columns = ["", "members", *hours, "disk", "checkpoints", "training", "evaluation", "epochs", unit]
    rows = []
    for name, cost in costs.items():
        members = cost.remaining
        cells = [
            f"{len(members):,}",
            *([] if cost.hours is None else [in_hours(cost.hours)]),
            in_bytes(cost.bytes),
            f"{cost.checkpoints:,}",
            in_flop(cost.training_flops),
            in_flop(cost.evaluation_flops),
            f"{sum(member.training.epochs for member in members):,}",
            f"{sum(member.units for member in members):,}",
        ]
        rows.append([name, *map(Number, cells)])
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        print_table(console, columns, rows)
    return [line.rstrip() for line in capture.get().splitlines()]
