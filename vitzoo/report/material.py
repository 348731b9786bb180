"""The material of the report page's sections, and the parts that they return.

See `vitzoo.report.sections` for the sections.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np

from vitzoo.analysis.behaviour.behaviour import Behaviour, behaviour
from vitzoo.analysis.diversity.diversity import Diversity, diversity
from vitzoo.errors import DatasetError, SelectionError
from vitzoo.models.layers import POOLS
from vitzoo.report import plots
from vitzoo.report.rows import Row, text_of
from vitzoo.weights.distances import Distances
from vitzoo.zoo.member import Member
from vitzoo.zoo.selection import Selection

MOST_FEATURES = 4 * 10**9  # bytes that CKA may add to the cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of a section: its caption, column names, and rows of text."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture of a section.

    Args:
        key: Its name in links and files.
        title: Its title.
        chart: An Altair chart.
        matrix: Ids and distances behind a heat map, by which a pointer finds the pair; None for other pictures.
    """

    key: str
    title: str
    chart: Any
    matrix: tuple[Sequence[str], np.ndarray] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A section of the page.

    Args:
        key: Its name in links.
        title: Its title.
        definition: How its numbers are computed.
        counts: Numbers of members, families and samples.
        limits: A conclusion that it does not allow.
        pictures: Its pictures.
        tables: Its tables.
        problem: The reason why it has no pictures; empty if it has.
    """

    key: str
    title: str
    definition: str = ""
    counts: str = ""
    limits: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    problem: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """The members of a report, and the results that several sections use. Each is computed once, when it is needed.

    Args:
        selection: The members, of any status.
        tables_only: Whether to read no weights and run no model.
        data: Local folders of data sets by name.
        device: Where models run.
        cache: Folder of the outputs of models; None for the usual one.
    """

    selection: Selection
    tables_only: bool = False
    data: Mapping[str, str | PathLike[str]] = field(default_factory=dict)
    device: str = "cpu"
    cache: str | PathLike[str] | None = None

    @cached_property
    def rows(self) -> list[Row]:
        """Rows of the members table."""
        return self.selection.members_table.to_pylist()

    @cached_property
    def completed(self) -> Selection:
        """The completed members."""
        return self._only(lambda row: row["status"] == "completed")

    @cached_property
    def comparable(self) -> Selection:
        """The largest group of completed classifiers with one data set."""
        groups: dict[tuple[Any, ...], list[str]] = {}
        for row in self.rows:
            if row["status"] == "completed" and row["head_role"] == "classifier":
                keys = ("stage", "dataset", "dataset_fingerprint", "n_test")
                key = (*(row[name] for name in keys), tuple(row["classes"]))
                groups.setdefault(key, []).append(row["id"])
        if not groups:
            raise SelectionError("No completed member is a classifier", expected="one or more", value=0)
        largest = set(max(groups.values(), key=len))
        return self._only(lambda row: row["id"] in largest)

    @property
    def families(self) -> dict[str, str]:
        """Family of each member: a parent with its children, joined with those of the same initialisation."""
        return self.selection.catalogue.init_families

    @cached_property
    def distances(self) -> Distances:
        """The L2 distances of the completed members' backbones, without members whose weights are not finite."""
        self.check_reads()
        return plots.finite_distances(self.completed)

    @cached_property
    def behaviour(self) -> Behaviour:
        """The outputs of the comparable members on their test data, with features if the cache has room for them."""
        self.check_reads()
        keep = ("logits", "features") if self.feature_bytes <= MOST_FEATURES else ("logits",)
        return behaviour(self.comparable, part="test", keep=keep, data=self.data, device=self.device, cache=self.cache)

    @cached_property
    def diversity(self) -> Diversity:
        """The contrasts of the comparable members; without their behaviour if their data are not available."""
        self.check_reads()
        try:
            outputs = self.behaviour
        except DatasetError:
            outputs = None
        return diversity(self.comparable, behaviour=outputs)

    @cached_property
    def feature_bytes(self) -> int:
        """Size of the comparable members' features of all layers."""
        first, rows = self.comparable.ids[0], self.comparable.members_table.to_pylist()
        model = Member(self.comparable.catalogue, first).load()
        values = model.config.hidden_size * len(model.layers) * len(POOLS)
        return len(rows) * (rows[0]["n_test"] or 0) * values * 4  # bytes of float32

    def count(self, selection: Selection, *, samples: bool = False) -> str:
        """Write the numbers of members and families, of those left out, and of test samples."""
        families = {self.families[str(member)] for member in selection.ids}
        text = f"{_number(len(selection.ids), 'member')} of {_number(len(families), 'family', 'families')}"
        others = len(self.rows) - len(selection.ids)
        if samples:
            row = selection.members_table.slice(0, 1).to_pylist()[0]
            kind = "text" if row["max_length"] is not None else "image"
            text += f", {_number(row['n_test'], f'test {kind}') if row['n_test'] else 'test data of unknown size'}"
            text += f" ({text_of(row['dataset'])})"
        return (
            f"{text}. {_number(others, 'other member')} of this report {'is' if others == 1 else 'are'} not in it."
            if others
            else f"{text}."
        )

    def _only(self, condition: Callable[[Row], bool]) -> Selection:
        refs = [ref for ref, row in zip(self.selection.refs, self.rows, strict=True) if condition(row)]
        return self.selection.with_refs(refs)

    def check_reads(self) -> None:
        """Raise SelectionError if no weights may be read."""
        if self.tables_only:
            raise SelectionError(
                "This report was made from the tables alone", fix="Make it again without --tables-only.", value=True
            )


def _number(count: int, noun: str, plural: str = "") -> str:
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
