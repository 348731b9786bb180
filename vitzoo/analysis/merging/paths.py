"""Follow the straight line between two models: loss and error at points on it, and the barrier between the two.

    found = path(zoo["pt-0/ft-0"], zoo["pt-0/ft-1"])
    found.barrier.loc["test"]          # of the loss and of the error

One module takes the weights of all points. `barriers` does the same for sampled pairs of a whole selection, by the
factor in which they differ. See `vitzoo.analysis.diversity.contrasts` for the pairs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64

from vitzoo.analysis.diversity.contrasts import find_contrasts
from vitzoo.analysis.merging.compatible import check_compatible, check_one_data_set
from vitzoo.analysis.resampling import bootstrap_pairs
from vitzoo.errors import DatasetError, SelectionError, WeightsError
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown
from vitzoo.records import FACTORS
from vitzoo.sources.locate import locate
from vitzoo.tables.catalogue import Catalogue
from vitzoo.tables.columns import MEMBERS
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.population import PopulationWeights
from vitzoo.zoo.member import Member
from vitzoo.zoo.selection import Selection, check_selection

if TYPE_CHECKING:
    from vitzoo.models.loading import MemberModel
    from vitzoo.weights.models import ReusedModel

_PARTS = ("train", "val", "test")
_MEASURES = ("loss", "error")
End = Any  # a Member, a MemberRef, a text that names a member, or a model of a member


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class WeightsPath(Shown):
    """Loss and error on the straight line between two models. Made by `path`.

    Args:
        ends: Names of the two models.
        points: A row for each part and point: ``part``, ``position`` (0 at the first end, 1 at the second), ``loss``
            (mean cross-entropy in nats) and ``error`` (one minus the accuracy).
    """

    ends: tuple[str, str]
    points: pd.DataFrame

    def _facts(self) -> dict[str, Any]:
        points = self.points["position"].nunique()
        last = self.barrier.iloc[-1]
        shown = f"{last['loss']:.3g} of the loss, {last['error']:.3g} of the error on {self.barrier.index[-1]}"
        return {"ends": self.ends, "points": points, "barrier": shown}

    def _table_rows(self) -> list[dict[Any, Any]]:
        return self.points.to_dict("records")

    @property
    def barrier(self) -> pd.DataFrame:
        """The barrier of ``loss`` and ``error`` by part, from 0: the largest height above the line between both ends.

        It is max over t of L(t) - (1 - t) L(0) - t L(1).
        """
        rows = {}
        for part, own in self.points.groupby("part", sort=False):
            position = own["position"].to_numpy()
            rows[part] = {name: barrier_of(position, own[name].to_numpy()) for name in _MEASURES}
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(_MEASURES)).rename_axis("part")


def barrier_of(positions: Float64[np.ndarray, " points"], values: Float64[np.ndarray, " points"]) -> float:
    """Compute max over t of L(t) - (1 - t) L(0) - t L(1), from 0, for a path from position 0 to 1.

    Source: Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis, section 2, with the line
        between the ends in place of their mean.
    """
    return float((values - values[0] - positions * (values[-1] - values[0])).max())  # exactly 0 at both ends


def path(
    a: End,
    b: End,
    *,
    points: int = 25,
    parts: Sequence[str] | None = None,
    data: Mapping[str, str | PathLike[str]] | None = None,
    device: Any = "cpu",
) -> WeightsPath:
    """Evaluate models on the straight line between the weights of two models, head included.

    Sums are in float64 and rounded once. Both ends are exact. Of a Hub zoo, both weights files are read.

    Args:
        a: A `Member` (its final weights), a `MemberRef` or a text such as ``"zoo/pt-0/ft-0@3"``, or a model that was
            loaded from a member. One of both ends is a member, whose data are evaluated.
        b: Likewise, with the same network, classes and preparation of inputs.
        points: Number of points with both ends, from 2.
        parts: ``train`` (the training samples that metrics are of), ``val`` and ``test``; None for those with samples.
        data: Local folders of data sets by name, as in `vitzoo.images.load_images`.
        device: Where the model runs.

    Raises:
        SelectionError: The models differ in network, classes or preparation; ``points`` is below 2; or an end is
            something else.
        WeightsError: A weight is NaN or infinite, or the models have different tensors.
        DatasetError: The data are not available, a part has no samples, or the heads are embeddings.

    Example:
        >>> path("zoo/pt-0/ft-0@1", "zoo/pt-0/ft-0@2", points=3)
        WeightsPath(ends=zoo/pt-0/ft-0@1, zoo/pt-0/ft-0@2, points=3, barrier=...)
    """
    _check_points(points)
    ends = [_open_end(end) for end in (a, b)]
    known = [end for end in ends if end.ref is not None]
    if not known:
        raise SelectionError(
            "Both ends are models without a member",
            expected="one end or more that is a member, whose data are evaluated",
            fix="Give a member of the zoo as one end.",
            value=a,
        )
    for end in known[1:]:
        _check_one_zoo(known[0], end)
        check_compatible(end.catalogue, [known[0].ref, end.ref])  # pyright: ignore[reportArgumentType]
    index, vectors = _read_ends(ends, known[0])
    member = Member(known[0].catalogue, known[0].ref.member)
    splits = _load_splits([member], parts, data)
    found = _follow(member, _module(known[0], index, vectors, device), splits, vectors, points)
    return WeightsPath(ends=(ends[0].name, ends[1].name), points=pd.DataFrame(found))


def barriers(
    selection: Selection,
    *,
    pairs: int = 20,
    points: int = 11,
    part: str = "test",
    data: Mapping[str, str | PathLike[str]] | None = None,
    device: Any = "cpu",
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the barriers of sampled pairs of a selection, by the factor in which the members of a pair differ.

    Pairs of two checkpoints of one member have the contrast ``epoch``. Other contrasts compare the latest selected
    checkpoint of each member. Contrasts whose members have other networks or heads are left out.

    Args:
        selection: Classifiers with one data set and the same classes, all children or all parents.
        pairs: Largest number of pairs of a contrast, drawn without replacement.
        points: Number of points of a path, from 2.
        part: ``train``, ``val`` or ``test``.
        data: As `path`.
        device: As `path`.
        seed: Seed of the draws.

    Returns:
        A row for each contrast and measure (``loss``, ``error``): number of pairs that exist and that were measured,
        families, mean barrier, and a 95% interval over families that share no initialisation. Fewer than five families
        have none.

    Raises:
        SelectionError: ``points`` or ``pairs`` are too few, members have different classes, or no two checkpoints can
            be compared.
        WeightsError, DatasetError: As `path`.
    """
    _check_points(points)
    if pairs < 1:
        raise SelectionError(f"pairs is {pairs}", expected="1 or more", value=pairs)
    check_selection(selection, each="checkpoint")
    check_one_data_set(selection.catalogue, selection.refs)
    families = selection.catalogue.init_families
    splits = _load_splits([Member(selection.catalogue, member) for member in selection.ids], [part], data)
    generator, rows = np.random.default_rng(seed), []
    modules: dict[bytes, ReusedModel] = {}
    for contrast, scope, found in _contrasts_of(selection):
        fitting = [pair for pair in found if _have_equal_tensors(selection, pair)]
        if not fitting:
            continue
        order = generator.permutation(len(fitting))[:pairs]
        measured, of_families = [], []
        for one, two in (fitting[place] for place in sorted(order)):
            check_compatible(selection.catalogue, [one, two])
            ends = [_End(str(ref), selection.catalogue, ref, None) for ref in (one, two)]
            index, vectors = _read_ends(ends, ends[0])
            config = selection.catalogue.config_file(one).read_bytes()
            if config not in modules:
                modules[config] = _module(ends[0], index, vectors, device)
            member = Member(selection.catalogue, one.member)
            table = pd.DataFrame(_follow(member, modules[config], splits, vectors, points))
            position = table["position"].to_numpy()
            measured.append({name: barrier_of(position, table[name].to_numpy()) for name in _MEASURES})
            of_families.append((families[str(one.member)], families[str(two.member)]))
        for name in _MEASURES:
            interval = bootstrap_pairs(np.array([row[name] for row in measured]), of_families)
            rows.append(
                {
                    "contrast": contrast,
                    "scope": scope,
                    "measure": name,
                    "existing": len(fitting),
                    "pairs": len(measured),
                    "families": interval.groups,
                    "barrier": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    if not rows:
        raise SelectionError(
            "No two checkpoints of the selection differ in one factor and have equal tensors",
            expected="a pair or more",
            fix="Select more members or epochs.",
            value=selection,
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a path: a checkpoint of a zoo, or a model, maybe loaded from a member."""

    name: str
    catalogue: Any
    ref: Any
    model: "MemberModel | None"


def _open_end(end: End) -> _End:
    if isinstance(end, Member):
        return _End(str(end.id), end.catalogue, MemberRef(end.id, end.catalogue.source.name), None)
    if isinstance(end, (MemberRef, str)):
        located = locate(str(end))
        if located is None:
            raise SelectionError(f"{end} is not a member of a zoo", expected='such as "zoo/pt-0/ft-0@3"', value=end)
        ref, source = located
        catalogue = Catalogue(source)
        catalogue.member_files(ref)
        return _End(str(end), catalogue, ref, None)
    if hasattr(end, "features_and_logits"):
        origin = getattr(end, "origin", None)
        if origin is None:
            return _End(type(end).__name__, None, None, end)
        located = locate(str(origin.ref))
        if located is None:
            return _End(type(end).__name__, None, None, end)
        return _End(str(origin.ref), Catalogue(located[1]), origin.ref, end)
    raise SelectionError(
        f"A {type(end).__name__} is not an end of a path",
        expected='a Member, a MemberRef, a text such as "zoo/pt-0/ft-0@3", or a model of a zoo',
        value=end,
    )


def _check_one_zoo(one: _End, two: _End) -> None:
    if one.catalogue.source.root != two.catalogue.source.root:
        raise SelectionError(
            f"{one.name} and {two.name} are of two zoos",
            expected="members of one zoo",
            fix="Load one of them as a model, and give that.",
            value=two.name,
        )


def _read_ends(ends: Sequence[_End], known: _End) -> tuple[WeightsIndex, list[Float[np.ndarray, " params"]]]:
    """Return the index of a member and the vectors of both ends."""
    index = PopulationWeights(known.catalogue, [end.ref for end in ends if end.model is None] or [known.ref]).index(
        "all"
    )
    vectors = []
    for end in ends:
        if end.model is None:
            vector = PopulationWeights(end.catalogue, [end.ref]).vector(0, part="all")
        else:
            vector = index.flatten({name: tensor.detach().cpu() for name, tensor in end.model.state_dict().items()})
        if not np.isfinite(vector).all():
            raise WeightsError(f"{end.name} has NaN or infinite weights", expected="numbers")
        vectors.append(vector)
    return index, vectors


def _module(
    end: _End, index: WeightsIndex, vectors: Sequence[Float[np.ndarray, " params"]], device: Any
) -> "ReusedModel":
    from vitzoo.weights.models import ReusedModel  # torch and transformers

    return ReusedModel(end.catalogue.config_file(end.ref), index, dtype=np.result_type(*vectors), device=device)


def _load_splits(
    members: Sequence[Member], parts: Sequence[str] | None, data: Mapping[str, str | PathLike[str]] | None
) -> dict[str, Any]:
    """Load parts of the members' common data; None is every part with samples."""
    for member in members:
        if member.record.head_role == "embedding":
            raise DatasetError(
                f"{member.id} has an embedding head, which has no classes",
                fix='Take classifiers: zoo.select(head_role="classifier").',
                dataset=member.record.dataset,
            )
    first = members[0]
    if parts is None:
        counts = {"train": first.record.n_train, "val": first.record.n_val, "test": first.record.n_test}
        parts = [part for part in _PARTS if counts[part]]
    return {part: first.load_part(part, data=data) for part in parts}


def _follow(
    member: Member,
    reused: "ReusedModel",
    splits: Mapping[str, Any],
    ends: Sequence[Float[np.ndarray, " params"]],
    points: int,
) -> list[dict[str, Any]]:
    """Evaluate the points of a line on each part, and return a row for each part and point."""
    start, end = (vector.astype(np.float64) for vector in ends)
    dtype, rows = np.result_type(*ends), {part: [] for part in splits}
    for position in np.linspace(0, 1, points):
        model = reused.with_vector(((1 - position) * start + position * end).astype(dtype))
        for part, split in splits.items():
            found = member.evaluate_model(model, split)
            rows[part].append(
                {"part": part, "position": float(position), "loss": found.loss, "error": 1 - found.accuracy}
            )
    return [row for own in rows.values() for row in own]


def _check_points(points: int) -> None:
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise SelectionError(f"points is {points}", expected="2 or more, both ends among them", value=points)


def _contrasts_of(selection: Selection) -> Iterable[tuple[str, str, list[tuple[MemberRef, MemberRef]]]]:
    """Yield the pairs of checkpoints of one member, and then those of each contrast."""
    by_member: dict[Any, list[MemberRef]] = {}
    epochs = selection.epochs_table.column("epoch").to_pylist()
    for ref, _ in sorted(zip(selection, epochs, strict=True), key=lambda item: item[1]):
        by_member.setdefault(ref.member, []).append(ref)
    of_epochs = [(refs[i], refs[j]) for refs in by_member.values() for j in range(len(refs)) for i in range(j)]
    if of_epochs:
        yield "epoch", "within", of_epochs
    latest = selection.with_refs([by_member[member][-1] for member in selection.ids])
    names = [*FACTORS, *(name for name in latest.members_table.column_names if name not in MEMBERS)]
    rows = latest.catalogue.table("members").to_pylist()
    parents = {row["id"]: row for row in rows if row["parent"] is None}
    for contrast in find_contrasts(latest.members_table.to_pylist(), parents, columns=names).contrasts:
        yield contrast.name, contrast.scope, [(latest[i], latest[j]) for i, j in contrast.pairs.tolist()]


def _have_equal_tensors(selection: Selection, pair: tuple[MemberRef, MemberRef]) -> bool:
    one, two = (Member(selection.catalogue, ref.member).record for ref in pair)
    return (one.head_type, one.head_width, one.head_role) == (two.head_type, two.head_width, two.head_role)
