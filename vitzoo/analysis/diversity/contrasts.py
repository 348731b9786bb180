"""Find the pairs of members that differ in one factor, from rows of the members table.

A contrast inside families is the pairs of one parent's children that agree in all factors but one. A contrast across
families is the pairs of two parents' children that agree in all factors but the parent. See
`vitzoo.analysis.diversity.diversity` for the measures of the pairs.

The rules look at the compared members alone:

- Columns that vary together are one factor. Two columns do so if each determines the other inside every family. The
  factor is named by its first column that is not a seed, or ``seeds`` if all are.
- A factor that determines another one is nested in it, as the learning rates of an optimizer are nested in the
  optimizer. The contrast of the outer factor ignores the nested one, which always differs.
- A column whose value determines the family is nested in the parent. Contrasts across families ignore it. Seeds that
  no two families share are an example.
- A factor with one value in each family belongs to the parent, as do the settings of the parent's own training (with
  the prefix ``pretraining_``). Contrasts across families are named by those in which the two parents differ. Seeds of
  the pre-training name none, but parents that share an initialisation have contrasts of their own.
- Null is a value of a setting that does not apply, such as the momentum of AdamW. Elsewhere it is unknown. A column of
  nulls is left out, and a member with an unknown value is in no pair.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
from jaxtyping import Bool, Int

from vitzoo.notebook import Shown
from vitzoo.records import ONLY_FOR, SEEDS, MemberRecord

Row = Mapping[str, Any]
Scope = Literal["within", "across"]
PARENT = "parent"
NO_VALUE = "none"  # of a setting that does not apply
_PRETRAINING = "pretraining_"
_OBJECTIVE = "pretraining_objective"
_NULL_BY_DEFAULT = {field.name for field in msgspec.structs.fields(MemberRecord) if field.default is None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Factor:
    """A factor of the compared members.

    Args:
        name: Name of the factor.
        columns: Columns that vary together.
        scope: ``within`` if it varies inside a family, ``across`` if each family has one value.
        nested_in: Factors that it determines, and ``parent`` if it determines the family.
        values: Value of each member in one of the columns; None if it is unknown.
    """

    name: str
    columns: tuple[str, ...]
    scope: Scope
    nested_in: tuple[str, ...]
    values: tuple[Any, ...]

    @property
    def is_seeds(self) -> bool:
        """True if it only repeats settings with other random numbers."""
        return all(column in SEEDS for column in self.columns)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Contrast(Shown):
    """The pairs of members that differ in one factor.

    Args:
        name: The factor, or the parent with the factors in which two parents differ.
        scope: ``within`` families or ``across`` families.
        nested_in: Factors that its factor is nested in.
        pairs: Row numbers of each pair, the smaller one first.
    """

    name: str
    scope: Scope
    nested_in: tuple[str, ...]
    pairs: Int[np.ndarray, "pairs 2"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Contrasts(Shown):
    """Factors and contrasts of some members.

    Args:
        factors: The factors that vary, those inside families first.
        contrasts: The contrasts with at least one pair, those inside families first.
        constant: Columns with one value, with that value.
        left_out: Columns and members that are left out, with the reason.
        in_common: Members of the families that have pairs of every contrast inside families.
    """

    factors: tuple[Factor, ...]
    contrasts: tuple[Contrast, ...]
    constant: Mapping[str, Any]
    left_out: Mapping[str, str]
    in_common: Bool[np.ndarray, " members"]


def find_contrasts(rows: Sequence[Row], parents: Mapping[str, Row], *, columns: Sequence[str]) -> Contrasts:
    """Find the factors and contrasts of members, by the rules of this module.

    Args:
        rows: Row of each member in the members table: ``id``, ``parent``, ``init_group``, ``pretraining_objective`` and
            the columns.
        parents: Rows of the members' parents by id. A parent that the zoo lacks has none.
        columns: Names of the columns that are factors.
    """
    names = [row["parent"] or row["id"] for row in rows]
    families = list(dict.fromkeys(names))
    members = _Items(
        {name: [_value(row, name) for row in rows] for name in columns}, [families.index(name) for name in names]
    )
    known_last = sorted(range(len(rows)), key=lambda place: (place not in members.unknown, -place))
    firsts = {names[place]: rows[place] for place in known_last}
    table = _parents_table([firsts[name] for name in families], parents, columns, inside=members.varying)
    above = _Items(table, [0] * len(families))
    same_start = np.array(
        [[firsts[one]["init_group"] == firsts[two]["init_group"] for two in families] for one in families]
    )
    contrasts = [*_contrasts_within(members), *_contrasts_across(members, above, same_start)]
    in_common = np.ones(len(rows), bool)
    for contrast in contrasts:
        if contrast.scope == "within":
            having = {names[place] for place in contrast.pairs[:, 0]}
            in_common &= np.array([name in having for name in names], bool)
    if not any(contrast.scope == "within" for contrast in contrasts):
        in_common[:] = False
    unknown = [name for name in columns if name not in members.columns and name not in _NULL_BY_DEFAULT]
    left_out = dict.fromkeys(unknown, "null for all members")
    for items, ids, partners in ((members, [row["id"] for row in rows], ""), (above, families, " across families")):
        left_out |= {
            ids[place]: f"{name} is unknown, so it is in no pair{partners}" for place, name in items.unknown.items()
        }
    return Contrasts(
        factors=(
            *(group.as_factor("within", members.columns[group.lead]) for group in members.groups),
            *(
                group.as_factor("across", [above.columns[group.lead][family] for family in members.blocks])
                for group in above.groups
            ),
        ),
        contrasts=tuple(contrasts),
        constant={
            name: members.columns[name][0] if name in members.columns else None
            for name in columns
            if name not in members.columns or _count(members.columns[name]) == 1
        },
        left_out=left_out,
        in_common=in_common,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Columns that vary together, with a code for the value of each known item."""

    name: str
    lead: str
    columns: tuple[str, ...]
    codes: Int[np.ndarray, " known"]
    nested_in: tuple[str, ...] = ()

    def as_factor(self, scope: Scope, values: Sequence[Any]) -> Factor:
        """Return the factor with the value of each item."""
        return Factor(name=self.name, columns=self.columns, scope=scope, nested_in=self.nested_in, values=tuple(values))


class _Items:
    """Columns of some items, members or parents, that are divided into blocks.

    Args:
        columns: Values of each item, by column. Columns of nulls are left out.
        blocks: Number of each item's block: of a member its family.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]], blocks: Sequence[int]):
        self.columns = {name: values for name, values in columns.items() if any(value is not None for value in values)}
        self.blocks = blocks
        self.unknown = {
            place: name for name, values in self.columns.items() for place, value in enumerate(values) if value is None
        }

    @cached_property
    def known(self) -> Int[np.ndarray, " known"]:
        """The items without an unknown value."""
        return np.array([place for place in range(len(self.blocks)) if place not in self.unknown], np.int64)

    @cached_property
    def known_blocks(self) -> list[int]:
        """The blocks of the known items."""
        return [self.blocks[place] for place in self.known]

    @cached_property
    def varying(self) -> dict[str, list[int]]:
        """The columns that vary inside a block, as codes of the known items."""
        coded = {}
        for name, values in self.columns.items():
            numbers: dict[Any, int] = {}
            codes = [numbers.setdefault(values[place], len(numbers)) for place in self.known]
            if _count(self.known_blocks, codes) > _count(self.known_blocks):
                coded[name] = codes
        return coded

    @cached_property
    def groups(self) -> list[_Group]:
        """The varying columns, those that vary together as one, with those that each is nested in."""
        together: list[list[str]] = []
        for name in self.varying:
            for others in together:
                if self.determines(name, others[0]) and self.determines(others[0], name):
                    others.append(name)
                    break
            else:
                together.append([name])
        seeds = [names for names in together if all(name in SEEDS for name in names)]
        groups = []
        for names in together:
            lead = next((name for name in names if name not in SEEDS), names[0])
            name = "seeds" if seeds == [names] else lead
            groups.append(_Group(name=name, lead=lead, columns=tuple(names), codes=np.array(self.varying[lead])))
        return [replace(group, nested_in=self._outer(group, groups)) for group in groups]

    def determines(self, one: str, two: str) -> bool:
        """Return whether, inside each block, items of one value in a column have one value in another."""
        blocks, codes = self.known_blocks, self.varying
        return _count(blocks, codes[one]) == _count(blocks, codes[one], codes[two])

    def _outer(self, group: _Group, groups: Sequence[_Group]) -> tuple[str, ...]:
        outer = [other.name for other in groups if other is not group and self.determines(group.lead, other.lead)]
        if _count(self.known_blocks) > 1 and all(self.tells_block(name) for name in group.columns):
            outer.append(PARENT)
        return tuple(outer)

    def tells_block(self, name: str) -> bool:
        """Return whether no two blocks share a value of a column."""
        return _determines(self.varying[name], self.known_blocks)


def _contrasts_within(members: _Items) -> Iterator[Contrast]:
    """Yield the contrast of each factor that varies inside families."""
    blocks = np.array(members.known_blocks, np.int64)
    for group in members.groups:
        alike = blocks[:, None] == blocks
        for other in members.groups:
            if other is not group and group.name not in other.nested_in:
                alike &= other.codes[:, None] == other.codes
        pairs = np.argwhere(np.triu(alike & (group.codes[:, None] != group.codes), 1))
        if len(pairs):
            yield Contrast(name=group.name, scope="within", nested_in=group.nested_in, pairs=members.known[pairs])


def _contrasts_across(
    members: _Items, parents: _Items, same_start: Bool[np.ndarray, "families families"]
) -> Iterator[Contrast]:
    """Yield the contrast of each set of factors in which two parents differ, fewest factors first."""
    blocks = np.array(members.known_blocks, np.int64)
    alike = blocks[:, None] != blocks
    for name, codes in members.varying.items():
        if not members.tells_block(name):
            alike &= np.array(codes)[:, None] == np.array(codes)
    pairs = np.argwhere(np.triu(alike, 1))
    place = np.full(len(parents.blocks), -1)
    place[parents.known] = np.arange(len(parents.known))
    pairs = pairs[(place[blocks[pairs]] >= 0).all(axis=1)]
    if not len(pairs):
        return
    one, two = place[blocks[pairs]].T
    differs = [group.codes[one] != group.codes[two] for group in parents.groups]
    kinds, kind_of = np.unique(
        np.stack([same_start[tuple(blocks[pairs].T)], *differs], axis=1), axis=0, return_inverse=True
    )
    for kind in sorted(range(len(kinds)), key=lambda kind: (kinds[kind, 1:].sum(), not kinds[kind, 0])):
        shares_start, *differ = kinds[kind]
        names = [group.name for group, is_other in zip(parents.groups, differ, strict=True) if is_other]
        nested = {group.name for group in parents.groups if not set(names).isdisjoint(group.nested_in)}
        yield Contrast(
            name=" and ".join([PARENT, *(name for name in names if name not in nested)])
            + (", one initialisation" if shares_start else ""),
            scope="across",
            nested_in=(),
            pairs=members.known[pairs[kind_of.reshape(-1) == kind]],
        )


def _parents_table(
    rows: Sequence[Row], parents: Mapping[str, Row], columns: Sequence[str], *, inside: Collection[str]
) -> dict[str, list[Any]]:
    """Return the factors of families: those with one value in each family, and those of the parents' own training.

    Args:
        rows: Row of one member of each family.
        parents: Rows of parents by id.
        columns: Names of the columns that are factors.
        inside: Those that vary inside a family.
    """
    columns = [name for name in columns if name not in SEEDS]
    table = {name: [_value(row, name) for row in rows] for name in (_OBJECTIVE, *columns) if name not in inside}
    above = [parents.get(row["parent"] or "") for row in rows]
    if any(above):
        for name in columns:
            table.setdefault(f"{_PRETRAINING}{name}", [None if row is None else _value(row, name) for row in above])
    return table


def _value(row: Row, name: str) -> Any:
    """Return a value of a member, None if it is unknown."""
    value = row[name]
    if value is None and name in ONLY_FOR:
        other, needed = ONLY_FOR[name]
        return NO_VALUE if row[other] not in (None, needed) else None
    return value if value == value else None  # NaN is unknown


def _count(*columns: Sequence[Any]) -> int:
    """Count the different combinations of values."""
    return len(set(zip(*columns, strict=True)))


def _determines(one: Sequence[Any], two: Sequence[Any]) -> bool:
    """Return whether items of one value in a column have one value in another."""
    return _count(one) == _count(one, two)
