"""Plan an import without opening a weights file: rows of a table become members with ids.

Members without a parent are ``pt-0``, ``pt-1``, ... in the order of their first rows. Members with one are ``ft-0``,
``ft-1``, ... of it, in the same order. A member keeps the id that the zoo has for its name, and new ones come after. A
zoo has two generations: the child of a child becomes a child of their common ancestor, so that the family stays
together, and its ``extra`` has the name of its parent as ``fine_tuned_from``.

The unit of all numbers is an epoch if every numbered row says one, else a step.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vitzoo.errors import CheckpointError, ReleaseError, VitZooError, did_you_mean, printable
from vitzoo.ids import MemberId
from vitzoo.interop.checkpoints.job import Import
from vitzoo.interop.checkpoints.places import Place, find_place, public_name
from vitzoo.interop.checkpoints.table import Row, Table

Unit = Literal["epoch", "step"]
UNNUMBERED = 1  # the only checkpoint of a member whose training nobody counted


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Source:
    """A checkpoint of a member.

    Args:
        row: Its row of the table.
        place: Its files.
    """

    row: Row
    place: Place


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlannedMember:
    """A member of the table.

    Args:
        id: Its id.
        name: Its name in the table, without a private path.
        checkpoints: Numbers to checkpoints, ascending. The last one has the final weights.
        keep: Numbers whose weights are kept beside the final ones.
        is_numbered: Whether the table says the number of its last checkpoint.
        parent: Name of its parent; None for a parent.
        parent_number: Number of the parent's checkpoint; None for the last one.
        is_grandchild: Whether its parent is a child itself.
    """

    id: MemberId
    name: str
    checkpoints: Mapping[int, Source]
    keep: tuple[int, ...]
    is_numbered: bool
    parent: str | None = None
    parent_number: int | None = None
    is_grandchild: bool = False

    @property
    def last(self) -> int:
        """Number of the final weights."""
        return max(self.checkpoints)

    @property
    def numbers(self) -> list[int]:
        """Numbers of the checkpoints that are read, ascending."""
        return sorted({*self.keep, self.last})

    @property
    def bytes(self) -> int:
        """Size of the checkpoints that are read."""
        return sum(self.checkpoints[number].place.bytes for number in self.numbers)


def plan_table(table: Table, job: Import, known: Mapping[str, MemberId]) -> tuple[list[PlannedMember], Unit]:
    """Plan the members of a table, and report the rows that are not taken.

    Args:
        table: The rows.
        job: The import.
        known: Names to the ids that the zoo has for them.

    Returns:
        Members by id, and the unit of their numbers.
    """
    for name, why in table.skipped.items():
        job.report.skip(name, why)
    for note in table.notes:
        job.report.note(job.table.name, note)
    unit = find_unit(table.rows)
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in table.rows:
        groups[row.member].append(row)
    names = _public_names(groups, job)
    parents = _find_parents(groups, job)
    found = {name: made for name, rows in groups.items() if (made := _find_checkpoints(names[name], rows, unit, job))}
    roots = {name: _root_of(name, parents) for name in found}
    members: dict[str, MemberId] = {}
    own = [name for name in found if roots[name] == name]
    taken = {name: known[names[name]].parent for name in own if names[name] in known}
    following = max((member.parent for member in known.values()), default=-1) + 1
    for name in own:
        if name not in taken:
            taken[name], following = following, following + 1
        members[name] = MemberId(taken[name])
    children: dict[int, int] = defaultdict(int)
    for member in known.values():
        if member.child is not None:
            children[member.parent] = max(children[member.parent], member.child + 1)
    for name in found:
        if (root := roots[name]) == name:
            continue
        if root not in members:
            job.report.skip(names[name], f"its parent {printable(names.get(root, root))} is not taken")
            continue
        members[name] = known.get(names[name]) or MemberId(members[root].parent, children[members[root].parent])
        if names[name] not in known:
            children[members[root].parent] += 1
    starts: dict[str, set[int]] = defaultdict(set)
    for name in members:
        number = next((row.parent_epoch for row in groups[name] if row.parent_epoch is not None), None)
        if number is not None and parents.get(name) in found:
            starts[parents[name] or ""].add(number)
    planned = []
    for name, member in members.items():
        checkpoints, numbered = found[name]
        last = max(checkpoints)
        kept = {number for number in job.epochs.of(checkpoints) if number is not None}
        kept |= starts[name] & checkpoints.keys()
        if job.epochs.text == "last" or len(checkpoints) == 1:
            kept -= {last} - starts[name]
        planned.append(
            PlannedMember(
                id=member,
                name=names[name],
                checkpoints=checkpoints,
                keep=tuple(sorted(kept)),
                is_numbered=numbered,
                parent=parents.get(name) and names[parents[name] or ""],
                parent_number=next((row.parent_epoch for row in groups[name] if row.parent_epoch is not None), None),
                is_grandchild=parents.get(name) not in (None, roots[name]),
            )
        )
    return sorted(planned, key=lambda one: one.id), unit


def find_unit(rows: Iterable[Row]) -> Unit:
    """Return the unit of the numbers of a table."""
    numbered = [row for row in rows if (row.epoch, row.step) != (None, None)]
    return "epoch" if all(row.epoch is not None for row in numbered) else "step"


def _public_names(groups: Mapping[str, Sequence[Row]], job: Import) -> dict[str, str]:
    """Return the names of members without private paths; each stays unique."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for name, rows in groups.items():
        public = public_name(name, job.base) if name == rows[0].location else name
        while public in taken:
            public += "'"
        names[name] = public
        taken.add(public)
    return names


def _find_parents(groups: dict[str, list[Row]], job: Import) -> dict[str, str]:
    """Return the parents that rows name. Rows of one member must agree, and no member is its own ancestor."""
    places = {row.location: name for name, rows in groups.items() for row in rows}
    parents: dict[str, str] = {}
    for name, rows in list(groups.items()):
        named = list(dict.fromkeys(row.parent for row in rows if row.parent is not None))
        if not named:
            continue
        parent = places.get(named[0], named[0]) if named[0] not in groups else named[0]
        if len(named) > 1:
            problem = f"its rows name several parents: {', '.join(map(printable, named[:3]))}"
        elif parent == name:
            problem = "it is its own parent"
        elif parent not in groups:
            problem = f"its parent {printable(parent)} is not a member of the table.{did_you_mean(parent, groups)}"
        else:
            parents[name] = parent
            continue
        job.report.skip(name, problem)
        del groups[name]
    for name in list(parents):
        if _root_of(name, parents) == "":
            job.report.skip(name, "its parents form a circle")
            groups.pop(name, None)
    return {name: parent for name, parent in parents.items() if name in groups}


def _root_of(name: str, parents: Mapping[str, str]) -> str:
    """Return a member's oldest ancestor; empty for a circle."""
    seen = {name}
    while (parent := parents.get(name)) is not None:
        if parent in seen:
            return ""
        seen.add(parent)
        name = parent
    return name


def _find_checkpoints(name: str, rows: Sequence[Row], unit: Unit, job: Import) -> tuple[dict[int, Source], bool] | None:
    """Find the files of a member's rows, or report why there are none and return None."""
    numbers = {id(row): row.epoch if unit == "epoch" else row.step for row in rows}
    numbered = all(number is not None for number in numbers.values())
    if not numbered and len(rows) > 1:
        lines = ", ".join(str(row.line) for row in rows[:4])
        job.report.skip(name, f"rows {lines} are of one member; expected an epoch or a step in each")
        return None
    found: dict[int, Source] = {}
    for row in rows:
        number = numbers[id(row)]
        number = UNNUMBERED if number is None else number
        if number in found:
            job.report.skip(name, f"rows {found[number].row.line} and {row.line} are both of {unit} {number}")
            return None
        try:
            place = find_place(row.location, base=job.base)
            place.weights()
            found[number] = Source(row=row, place=place)
        except VitZooError as error:
            if isinstance(error, OSError) and not isinstance(error, ReleaseError) and error.errno is not None:
                raise
            if len(rows) == 1:
                job.report.skip(name, error)
            else:
                job.report.note(name, f"{unit} {number} is not taken: {str(error).rstrip('.')}")
    if len(rows) > 1 and not found:
        job.report.skip(name, "none of its checkpoints can be used")
    if not numbered and found:
        job.report.note(name, f"nothing says its {unit}: its checkpoint has the number {UNNUMBERED}")
    return (dict(sorted(found.items())), numbered) if found else None


def check_unit(unit: Unit, before: object, *, root: str) -> None:
    """Raise CheckpointError if a zoo counts otherwise."""
    if before is not None and before != unit:
        raise CheckpointError(
            f"{root} counts {before}s, the table {unit}s", fix="Complete the column, or name another folder."
        )
