"""Divide a zoo's members into train, val and test, fold by fold, from rows of the zoo's tables.

    for fold in zoo.splits("by_parent"):
        fold.ids("train"), fold.ids("val"), fold.ids("test")

See `vitzoo.splits.schemes` for the schemes. Folds depend on the members alone, not on the order of rows or files.
`vitzoo.splits.leaks` checks the folds of sound schemes. The stored table (`vitzoo.tables.columns.SPLITS`) has the folds
of `plan_stored_folds`, so a change of the folds is a change of the format.
"""

import hashlib
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.records import FACTORS
from vitzoo.splits.folds import Fold, Part
from vitzoo.splits.leaks import Detector, Rows
from vitzoo.splits.schemes import SCHEMES

_OBJECTIVES = ("objective", "pretraining_objective")  # as factors, both mean the pre-training's
STORED_FACTORS = ("head_type", "optimizer", "learning_rate", "objective")
_MOST_ROWS = 2**18  # of one scheme and factor in the stored table


def plan_folds(
    scheme: str, members: Rows, epochs: Rows, *, factor: str | None = None, folds: int = 5, seed: int = 0
) -> list[Fold]:
    """Divide a zoo's members by a scheme. No member is in test twice in the folds of one scheme and factor.

    Args:
        scheme: One of `vitzoo.splits.schemes.SCHEMES`.
        members: All rows of the members table: ``id``, ``parent``, ``init_group``, ``objective``, ``replicate`` and the
            factor.
        epochs: All rows of the epochs table: ``id``, ``epoch``, ``weights_id`` and ``backbone_id``.
        factor: For leave_one_factor_out: one of `vitzoo.records.members.FACTORS`. ``objective`` means the
            pre-training's; a child whose pre-training is unknown is in no part.
        folds: Number of shares, from 2; at most the number of groups. With two shares there is no val. Schemes whose
            folds are families, values or replicates ignore it.
        seed: Seed of the division into shares.

    Raises:
        SelectionError: Scheme or factor are unknown, ``folds`` is less than 2, or the zoo has too few groups.
    """
    return list(_iter_folds(_Population(members, epochs), scheme, factor=factor, folds=folds, seed=seed))


def plan_stored_folds(members: Rows, epochs: Rows) -> list[Fold]:
    """Return the folds of every scheme with its defaults, leave_one_factor_out for each of `STORED_FACTORS`.

    Schemes that the zoo is too small for, or with over 2^18 rows, are left out. Args as `plan_folds`.
    """
    population = _Population(members, epochs)
    stored: list[Fold] = []
    for scheme in SCHEMES:
        for factor in STORED_FACTORS if scheme == "leave_one_factor_out" else (None,):
            planned, rows = [], 0
            with suppress(SelectionError):
                for fold in _iter_folds(population, scheme, factor=factor, folds=5, seed=0):
                    planned.append(fold)
                    rows += len(fold.parts)
                    if rows > _MOST_ROWS:
                        planned = []
                        break
            stored += planned
    return stored


class _Population:
    """The members of a zoo, with their families."""

    def __init__(self, members: Rows, epochs: Rows):
        self.detector = Detector(members, epochs)
        self.families = self.detector.families("content")
        rows = {str(row["id"]): row for row in members}
        self.rows: dict[str, Mapping[str, Any]] = {member: rows[member] for member in self.families}
        self.children = [member for member, row in self.rows.items() if row["parent"] is not None]

    def objective(self, member: str) -> str | None:
        """Return the objective of a member's pre-training; None if the zoo lacks the parent of a child."""
        row = self.rows[member]
        origin = row if row["parent"] is None else self.rows.get(row["parent"])
        return row.get("pretraining_objective") or (None if origin is None else origin["objective"])

    def value(self, member: str, factor: str) -> str | None:
        """Return a member's value of a factor as text; None if it is unknown."""
        return self.objective(member) if factor in _OBJECTIVES else _text(self.rows[member][factor])


def _iter_folds(population: _Population, scheme: str, *, factor: str | None, folds: int, seed: int) -> Iterator[Fold]:
    if scheme not in SCHEMES:
        raise SelectionError(
            f'"{scheme}" is not a scheme of splits',
            expected=", ".join(SCHEMES),
            fix=did_you_mean(scheme, SCHEMES),
            value=scheme,
        )
    if operator.index(folds) < 2:
        raise SelectionError(f"folds is {folds!r}", expected="2 or more", value=folds)
    if factor is not None and scheme != "leave_one_factor_out":
        raise SelectionError(
            f'{scheme} has no factor, but factor is "{factor}"',
            fix="Leave it out, or split by leave_one_factor_out.",
            value=factor,
        )
    division = _Division(population, scheme, folds, seed)
    planned = _leave_factor_out(division, factor) if scheme == "leave_one_factor_out" else _PLANNERS[scheme](division)
    for fold in planned:
        if SCHEMES[scheme].sound:
            population.detector.check(fold, init_groups="apart" if scheme == "by_init_group" else "ignored")
        yield fold


@dataclass(frozen=True, slots=True)
class _Division:
    """The arguments of one division of a population."""

    population: _Population
    scheme: str
    folds: int
    seed: int

    def fold(self, name: str, parts: Mapping[str, Part], groups: Mapping[str, str]) -> Fold:
        """Make a fold of this scheme."""
        return Fold(scheme=self.scheme, name=name, parts=parts, groups=groups, families=self.population.families)

    def one_fold_each(self, names: list[str], groups: Mapping[str, str]) -> Iterator[Fold]:
        """Make a fold for each named group: it is test, all other members are train."""
        for name in names:
            yield self.fold(name, {m: "test" if group == name else "train" for m, group in groups.items()}, groups)

    def shares(self, groups: Mapping[str, str], scheme: str) -> dict[str, int]:
        """Return each group's share: groups sorted by their objectives, then by a hash, take the shares in turn."""
        objectives: dict[str, set[str]] = {}  # an unknown one is a value, too
        for member, group in groups.items():
            objectives.setdefault(group, set()).add(_text(self.population.objective(member)))
        if len(objectives) < 2:
            raise self.too_few(f"its {len(groups)} members are one group ({SCHEMES[self.scheme].keeps_whole})")

        def place(group: str) -> tuple[list[str], str]:
            return sorted(objectives[group]), hashlib.sha256(f"{scheme}\n{self.seed}\n{group}".encode()).hexdigest()

        count = min(self.folds, len(objectives))
        return {group: number % count for number, group in enumerate(sorted(objectives, key=place))}

    def too_few(self, why: str) -> SelectionError:
        """Make the error that a zoo is too small for the scheme."""
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
    yield from division.one_fold_each(names, families)


def _leave_factor_out(division: _Division, factor: str | None) -> Iterator[Fold]:
    population, families = division.population, division.population.families
    values = _values(division, factor)
    of_family: dict[str, set[str]] = {}
    for child in values.keys() & population.children:
        of_family.setdefault(families[child], set()).add(values[child])
    known = {value for own in of_family.values() for value in own}
    crossed = any(len(own) > 1 for own in of_family.values())
    shares = division.shares(families, "by_parent") if crossed else {}
    for parent in values.keys() - population.children:
        of_family.setdefault(families[parent], {values[parent]})  # a family without children
    count = 0
    for value in _in_order(population, factor, known):
        for share in sorted(set(shares.values())) if crossed else (None,):
            tested = {
                family for family, own in of_family.items() if (shares[family] == share if crossed else value in own)
            }
            parts: dict[str, Part] = {
                member: "test" if own == value else "train"
                for member, own in values.items()
                if (own == value) == (families[member] in tested)
            }
            if len(set(parts.values())) == 2:
                count += 1
                yield division.fold(f"{factor}={value}" + (f"/{share}" if crossed else ""), parts, families)
    if not count:
        raise division.too_few(f"no two families differ in {factor}")


def _values(division: _Division, factor: str | None) -> dict[str, str]:
    """Return each member's value of a factor as text, without the members whose value is unknown."""
    population, known = division.population, dict.fromkeys([*STORED_FACTORS, *FACTORS, *_OBJECTIVES])
    if factor not in known:
        raise SelectionError(
            "There is no factor" if factor is None else f'"{factor}" is not a factor',
            expected=f"one of {', '.join(known)}",
            fix=did_you_mean(factor, known) if factor else None,
            value=factor,
        )
    recorded = {member: population.value(member, factor) for member in population.rows}
    values = {member: value for member, value in recorded.items() if value is not None}
    count = len({values[child] for child in population.children if child in values})
    if count < 2:
        raise division.too_few(f"its children have {count} values of {factor}")
    return values


def _text(value: Any) -> str:
    return "null" if value is None else str(value)  # different floats have different texts


def _in_order(population: _Population, factor: str | None, texts: set[str]) -> list[str]:
    """Sort numbers ascending, then everything else as text."""
    own = (population.rows[child].get(str(factor)) for child in population.children)
    numbers = {_text(value): value for value in own if isinstance(value, (int, float))}
    return sorted(texts, key=lambda text: (text not in numbers, numbers.get(text, 0), text))


def _by_seed(division: _Division) -> Iterator[Fold]:
    rows, children = division.population.rows, set(division.population.children)
    known = {member: row["replicate"] for member, row in rows.items() if row["replicate"] is not None}
    groups = {
        member: f"replicate={known.get(member)}" if member in children else member
        for member in rows
        if member in known or member not in children
    }
    replicates = sorted({known[child] for child in children if child in known})
    if len(replicates) < 2:
        raise division.too_few(f"its children are of {len(replicates)} replicates")
    yield from division.one_fold_each([f"replicate={replicate}" for replicate in replicates], groups)


_PLANNERS: dict[str, Callable[[_Division], Iterator[Fold]]] = {
    "by_parent": lambda division: _in_shares(division, division.population.families),
    "by_init_group": lambda division: _in_shares(division, division.population.detector.families("init_group")),
    "leave_one_parent_out": _leave_family_out,
    "random_members": lambda division: _in_shares(division, {member: member for member in division.population.rows}),
    "by_seed": _by_seed,
}
