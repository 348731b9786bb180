"""Splits: schemes that part a zoo's members into train, val and test, fold by fold.

    for fold in zoo.splits("by_parent"):
        fold.ids("train"), fold.ids("val"), fold.ids("test")

What the schemes are is said in `vitzoo.splits.schemes`. Folds follow from the members alone, not from the order of
rows or files, and those of sound schemes are held to `vitzoo.splits.leaks` before they are given out.

The stored table (`vitzoo.tables.columns.SPLITS`) has the folds of `plan_stored_folds`: what changes them here
changes the
format. Pure: on rows of the tables.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, SupportsIndex

from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.records import FACTORS
from vitzoo.splits.families import Rows, join_families
from vitzoo.splits.folds import Fold, Part
from vitzoo.splits.leaks import Detector
from vitzoo.splits.schemes import SCHEMES

_OBJECTIVES = ("objective", "pretraining_objective")  # one question, in two names
STORED_FACTORS = ("head_type", "optimizer", "learning_rate", "objective")
_MOST_ROWS = 2**18  # of one scheme and factor in the stored table


def plan_folds(
    scheme: str, members: Rows, epochs: Rows, *, factor: str | None = None, folds: int = 5, seed: int = 0
) -> list[Fold]:
    """Part a zoo's members.

    Args:
        scheme: One of `vitzoo.splits.schemes.SCHEMES`.
        members: Rows of the members table, all of them: ``id``, ``parent``, ``init_group``, ``objective``,
            ``replicate`` and the factor.
        epochs: Rows of the epochs table, all of them: ``id``, ``epoch``, ``weights_id`` and ``backbone_id``.
        factor: Of leave_one_factor_out: one of `vitzoo.records.members.FACTORS`, with the children's own values;
            ``objective`` means that of the pre-training. A child without its parent, of which that is not known, is
            then in no part.
        folds: How many shares are made, from 2; where there are fewer groups, a share is a group. With two shares there
            is no val. Without meaning for schemes whose folds are families, values or replicates.
        seed: Which of the possible divisions into shares.

    Returns:
        The folds. In those of one scheme (and of one factor) no member is in test twice.

    Raises:
        SelectionError: Scheme or factor are unknown, ``folds`` is no number from 2, or the zoo has too few groups.
    """
    return list(_iter_folds(_Population(members, epochs), scheme, factor=factor, folds=folds, seed=seed))


def plan_stored_folds(members: Rows, epochs: Rows) -> list[Fold]:
    """The folds of every scheme with its defaults, leave_one_factor_out for each of `STORED_FACTORS`.

    Left out is what the zoo is too small for, and what would have over 2^18 rows (`plan_folds` makes it still).

    Args:
        members: As `plan_folds`.
        epochs: As `plan_folds`.
    """
    population = _Population(members, epochs)
    stored: list[Fold] = []
    for scheme in SCHEMES:
        for factor in STORED_FACTORS if scheme == "leave_one_factor_out" else (None,):
            stored += _bounded(population, scheme, factor)
    return stored


def _bounded(population: "_Population", scheme: str, factor: str | None) -> list[Fold]:
    found: list[Fold] = []
    rows = 0
    try:
        for fold in _iter_folds(population, scheme, factor=factor, folds=5, seed=0):
            found.append(fold)
            rows += len(fold.parts)
            if rows > _MOST_ROWS:
                return []
    except SelectionError:
        return []
    return found


class _Population:
    """The members that are split, and what is known of them."""

    def __init__(self, members: Rows, epochs: Rows):
        self.families = join_families(members, epochs)
        self.init_groups = join_families(members, epochs, by="init_group")
        self.detector = Detector(members, epochs)
        rows = {str(row["id"]): row for row in members}
        self.rows: dict[str, Mapping[str, Any]] = {member: rows[member] for member in self.families}

    @property
    def children(self) -> list[str]:
        """Members that were fine-tuned."""
        return [member for member, row in self.rows.items() if row["parent"] is not None]

    def objective(self, member: str) -> str | None:
        """Of the pre-training that a member comes from; None where that is not known: its parent is not there."""
        row = self.rows[member]
        origin = row if row["parent"] is None else self.rows.get(row["parent"])
        return row.get("pretraining_objective") or (None if origin is None else origin["objective"])

    def value(self, member: str, factor: str) -> str | None:
        """What a member has of a factor, as text; None where that is not known."""
        return self.objective(member) if factor in _OBJECTIVES else _text(self.rows[member][factor])


def _iter_folds(population: _Population, scheme: str, *, factor: str | None, folds: int, seed: int) -> Iterator[Fold]:
    if scheme not in SCHEMES:
        raise SelectionError(
            f'"{scheme}" is no scheme of splits: expected one of {", ".join(SCHEMES)}.{did_you_mean(scheme, SCHEMES)}',
            value=scheme,
        )
    _check_folds(folds)
    if factor is not None and scheme != "leave_one_factor_out":
        raise SelectionError(
            f'factor="{factor}" has no meaning for {scheme}: leave it out, or split by leave_one_factor_out.',
            value=factor,
        )
    division = _Division(population, scheme, folds, seed)
    planned = _leave_factor_out(division, factor) if scheme == "leave_one_factor_out" else _PLANNERS[scheme](division)
    for fold in planned:
        if SCHEMES[scheme].sound:
            population.detector.check(fold, init_groups="apart" if scheme == "by_init_group" else "ignored")
        yield fold


def _check_folds(folds: object) -> None:
    if not isinstance(folds, SupportsIndex) or isinstance(folds, bool) or folds.__index__() < 2:
        raise SelectionError(
            f"folds is {folds!r}", expected="a whole number from 2: one share is test, others train", value=folds
        )


@dataclass(frozen=True, slots=True)
class _Division:
    """One scheme at work on a population."""

    population: _Population
    scheme: str
    folds: int
    seed: int

    def fold(self, name: str, parts: Mapping[str, Part], groups: Mapping[str, str]) -> Fold:
        """A fold of this scheme."""
        return Fold(scheme=self.scheme, name=name, parts=parts, groups=groups, families=self.population.families)

    def shares(self, groups: Mapping[str, str], scheme: str) -> dict[str, int]:
        """Each group's share: sorted by the objectives of its members, then by a hash, they are dealt like cards."""
        objectives: dict[str, set[str]] = {}  # one that is not known is as good as another
        for member, group in groups.items():
            objectives.setdefault(group, set()).add(_text(self.population.objective(member)))
        if len(objectives) < 2:
            raise self.too_few(f"its {len(groups)} members are one group ({SCHEMES[self.scheme].keeps_whole})")

        def place(group: str) -> tuple[list[str], str]:
            return sorted(objectives[group]), hashlib.sha256(f"{scheme}\n{self.seed}\n{group}".encode()).hexdigest()

        count = min(self.folds, len(objectives))
        return {group: number % count for number, group in enumerate(sorted(objectives, key=place))}

    def too_few(self, why: str) -> SelectionError:
        """The error that a zoo is too small for the scheme."""
        return SelectionError(
            f"This zoo cannot be split by {self.scheme}: {why}",
            expected="2 or more",
            fix="Take another scheme, or a zoo with more families.",
            value=self.scheme,
        )


def _in_shares(division: _Division, groups: Mapping[str, str]) -> Iterator[Fold]:
    shares = division.shares(groups, division.scheme)
    count = max(shares.values()) + 1

    def part(group: str, test: int) -> Part:
        if shares[group] == test:
            return "test"
        return "val" if count > 2 and shares[group] == (test + 1) % count else "train"

    for test in range(count):
        yield division.fold(str(test), {member: part(group, test) for member, group in groups.items()}, groups)


def _leave_family_out(division: _Division) -> Iterator[Fold]:
    families = division.population.families
    names = list(dict.fromkeys(families.values()))
    if len(names) < 2:
        raise division.too_few(f"its {len(families)} members are one family")
    for name in names:
        yield division.fold(
            name, {member: "test" if family == name else "train" for member, family in families.items()}, families
        )


def _leave_factor_out(division: _Division, factor: str | None) -> Iterator[Fold]:
    population, families = division.population, division.population.families
    values = _values(division, factor)
    of_family: dict[str, set[str]] = {}
    for child in values.keys() & population.children:
        of_family.setdefault(families[child], set()).add(values[child])
    known = {value for found in of_family.values() for value in found}
    crossed = any(len(found) > 1 for found in of_family.values())
    shares = division.shares(families, "by_parent") if crossed else {}
    for parent in values.keys() - population.children:
        of_family.setdefault(families[parent], {values[parent]})  # of families without children
    count = 0
    for value in _in_order(population, factor, known):
        for share in sorted(set(shares.values())) if crossed else (None,):
            tested = {
                family
                for family, found in of_family.items()
                if (shares[family] == share if crossed else value in found)
            }
            parts: dict[str, Part] = {
                member: "test" if its == value else "train"
                for member, its in values.items()
                if (its == value) == (families[member] in tested)
            }
            if len(set(parts.values())) == 2:
                count += 1
                yield division.fold(f"{factor}={value}" + (f"/{share}" if crossed else ""), parts, families)
    if not count:
        raise division.too_few(f"no two families can be told apart by {factor}")


def _values(division: _Division, factor: str | None) -> dict[str, str]:
    """Each member's value of a factor, as text; members of which it is not known are not there."""
    population, known = division.population, dict.fromkeys([*STORED_FACTORS, *FACTORS, *_OBJECTIVES])
    if factor not in known:
        asked = "factor is not given" if factor is None else f'"{factor}" is no factor'
        raise SelectionError(
            f"{asked}: expected one of {', '.join(known)}.{did_you_mean(factor, known) if factor else ''}", value=factor
        )
    found = {member: population.value(member, factor) for member in population.rows}
    values = {member: value for member, value in found.items() if value is not None}
    count = len({values[child] for child in population.children if child in values})
    if count < 2:
        raise division.too_few(f"its children have {count} values of {factor}")
    return values


def _text(value: Any) -> str:
    return "null" if value is None else str(value)  # of a float, str() is the shortest text that is no other float's


def _in_order(population: _Population, factor: str | None, texts: set[str]) -> list[str]:
    """Numbers ascending, then everything else as text."""
    own = (population.rows[child].get(str(factor)) for child in population.children)
    numbers = {_text(value): value for value in own if isinstance(value, (int, float))}
    return sorted(texts, key=lambda text: (text not in numbers, numbers.get(text, 0), text))


def _by_seed(division: _Division) -> Iterator[Fold]:
    rows, children = division.population.rows, set(division.population.children)
    groups = {member: f"replicate={row['replicate']}" if member in children else member for member, row in rows.items()}
    replicates = sorted({rows[child]["replicate"] for child in children})
    if len(replicates) < 2:
        raise division.too_few(f"its children are of {len(replicates)} replicates")
    for replicate in replicates:
        name = f"replicate={replicate}"
        yield division.fold(
            name, {member: "test" if group == name else "train" for member, group in groups.items()}, groups
        )


_PLANNERS: dict[str, Callable[[_Division], Iterator[Fold]]] = {
    "by_parent": lambda division: _in_shares(division, division.population.families),
    "by_init_group": lambda division: _in_shares(division, division.population.init_groups),
    "leave_one_parent_out": _leave_family_out,
    "random_members": lambda division: _in_shares(division, {member: member for member in division.population.rows}),
    "by_seed": _by_seed,
}
