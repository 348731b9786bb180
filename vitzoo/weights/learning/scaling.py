"""Scaling: standardisation whose figures are fitted on the training members alone, and kept with the split.

scaling.json    {"format": 1, "names": ["vit.embeddings.cls_token", ...], "sizes": [384, ...], "mean": [...],
                 "std": [...], "fitted_on": ["pt-0", ...], "scheme": "by_parent", "fold": "0",
                 "parts": {"pt-0": "train", ...}}; the last three are null without a fold

numpy only. `vitzoo.weights.learning.dataset` applies it to what it reads.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vitzoo.errors import LeakError, RepresentationError, WeightsError, did_you_mean, shown
from vitzoo.ids import MemberRef
from vitzoo.records.json_files import load_record, write_json
from vitzoo.splits.folds import PARTS, Fold
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.population import Part, PopulationWeights
from vitzoo.weights.representations.representation import REPRESENTATIONS
from vitzoo.weights.representations.statistics import LayerStatistics

FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """Mean and standard deviation of groups of numbers: of each tensor, or of each feature.

    Args:
        format: Version of the file.
        names: What each group is called.
        sizes: How many numbers that follow each other are in it.
        mean: Of each group.
        std: Of each group, divided by the count; 1 where all its numbers are equal.
        fitted_on: The checkpoints that they were measured on. ``zoo.assert_no_leaks({"train": scaling.fitted_on,
            "test": test})`` shows that no test member had a part in it.
        scheme: The scheme of the split; None where it was fitted without one.
        fold: The name of the fold.
        parts: The members of the fold to their parts.

    Raises:
        WeightsError: They contradict each other.
    """

    format: int = FORMAT
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fitted_on: tuple[str, ...]
    scheme: str | None = None
    fold: str | None = None
    parts: dict[str, str] | None = None

    def __post_init__(self):
        problem = _find_group_problem(self) or _find_split_problem(self)
        if problem is not None:
            raise WeightsError(f"This is no scaling: {problem}", fix="Fit it again.")

    def scale(self, values: Float[np.ndarray, "*batch values"]) -> Float[np.ndarray, "*batch values"]:
        """The values with mean 0 and standard deviation 1 where those that it was fitted on have them.

        Args:
            values: Flat vectors, or features; the result is of their dtype, computed in float64.

        Raises:
            WeightsError: They are of another number than it was fitted for.
        """
        return self._map(values, lambda numbers, mean, std: (numbers - mean) / std)

    def unscale(self, values: Float[np.ndarray, "*batch values"]) -> Float[np.ndarray, "*batch values"]:
        """The inverse of `scale`, to rounding. Raises as `scale`."""
        return self._map(values, lambda numbers, mean, std: numbers * std + mean)

    def check_fits(self, of: WeightsIndex | LayerStatistics) -> None:
        """Refuse what it was not fitted for.

        Args:
            of: What is to be scaled: the tensors of an index one after the other, or features.

        Raises:
            WeightsError: They are others, or of other sizes.
        """
        expected = dict(zip(*_groups(of), strict=True))
        own = dict(zip(self.names, self.sizes, strict=True))
        if list(own.items()) == list(expected.items()):
            return
        name = next((name for name in {**expected, **own} if own.get(name) != expected.get(name)), None)
        how = (
            "in another order"
            if name is None
            else f'of "{name}" it has {own.get(name, "no")} numbers, here are {expected.get(name, "none")}'
        )
        raise WeightsError(
            f"The scaling was fitted for other numbers: {how}", fix="Fit it for this part and representation."
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, the split with it."""
        write_json(Path(path), self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Scaling":
        """Read what `save` wrote; it is equal to what was saved.

        Raises:
            RecordError: It is no such file.
            FormatVersionError: A newer vitzoo wrote it.
        """
        return load_record(cls, Path(path), newest=FORMAT)

    def _map(self, values: np.ndarray, change: Callable[[np.ndarray, float, float], np.ndarray]) -> np.ndarray:
        count = sum(self.sizes)
        if values.shape[-1:] != (count,):
            raise WeightsError(
                f"Values of shape {list(values.shape)} are not the {count:,} that the scaling was fitted for",
                fix="Fit one for this part and representation.",
            )
        out, start = np.empty_like(values), 0
        with np.errstate(over="ignore", invalid="ignore"):  # of a diverged member, as torch has it
            for size, mean, std in zip(self.sizes, self.mean, self.std, strict=True):
                span = (..., slice(start, start + size))
                out[span] = change(values[span].astype(np.float64), mean, std)
                start += size
        return out


def fit_scaling(
    weights: PopulationWeights, representation: str = "flat", *, part: Part = "backbone", fold: Fold | None = None
) -> Scaling:
    """Measure mean and standard deviation on training members, one member at a time.

    Args:
        weights: The training checkpoints; each counts alike.
        representation: What `vitzoo.weights.learning.dataset.WeightsDataset` is to give: of ``statistics`` each
            feature is
            scaled by itself; of the others, which share one scaling, each tensor.
        part: As `PopulationWeights.matrix`.
        fold: The split that they are the training part of, to be kept with the figures.

    Raises:
        LeakError: A checkpoint is not of the fold's training part.
        SelectionError: A checkpoint's member was not there when the zoo was split.
        RepresentationError: There is no such representation.
        WeightsError: Members have different tensors, or one holds NaN or infinities.

    Example:
        >>> fold = zoo.splits("by_parent")[0]  # doctest: +SKIP
        >>> scaling = fit_scaling(zoo.weights(fold.of(zoo.select())["train"]), fold=fold)  # doctest: +SKIP
    """
    if representation not in REPRESENTATIONS:
        raise RepresentationError(
            f'There is no representation "{representation}".{did_you_mean(representation, REPRESENTATIONS)}',
            value=representation,
        )
    if fold is not None:
        _check_train(weights, fold)
    index = weights.index(part)
    statistics = LayerStatistics(index) if representation == "statistics" else None
    names, sizes = _groups(index if statistics is None else statistics)
    numbers = np.array(sizes)
    count, mean, squares = 0, np.zeros(len(names)), np.zeros(len(names))
    for ref, vector in weights.iter_vectors(part=part, dtype="float64"):  # which holds the numbers of every dtype
        its_mean, its_squares = _moments(vector if statistics is None else statistics.encode(vector), sizes)
        _check_finite(ref, names, its_mean, its_squares)
        count += 1
        # Chan et al. 1983: sets are merged by their means, which loses no figures to large offsets.
        shift = its_mean - mean
        mean = mean + shift / count
        squares = squares + its_squares + shift**2 * numbers * ((count - 1) / count)
    std = np.sqrt(squares / (count * numbers))
    return Scaling(
        names=names,
        sizes=sizes,
        mean=tuple(mean.tolist()),
        std=tuple(one if one > 0 else 1.0 for one in std.tolist()),
        fitted_on=tuple(str(replace(ref, zoo=None)) for ref in weights.refs),
        scheme=None if fold is None else fold.scheme,
        fold=None if fold is None else fold.name,
        parts=None if fold is None else dict(fold.parts),
    )


def _check_train(weights: PopulationWeights, fold: Fold) -> None:
    fold.check_knows(str(ref.member) for ref in weights.refs)
    for ref in weights.refs:
        member = str(ref.member)
        found = fold.parts.get(member)
        if found != "train":
            where = "no part" if found is None else f'"{found}"'
            raise LeakError(
                f"{member} is in {where} of fold {fold.name} of {fold.scheme}: scaling is fitted on train alone",
                fix='Give it fold.of(selection)["train"].',
                kind="member",
                members=(member, member),
                parts=("train", found),
                value=member,
            )


def _check_finite(ref: MemberRef, names: tuple[str, ...], *measured: np.ndarray) -> None:
    finite = np.logical_and.reduce([np.isfinite(one) for one in measured])
    if not finite.all():
        raise WeightsError(
            f'"{names[int(np.argmin(finite))]}" of {ref} holds NaN, infinities or numbers whose squares '
            "are: nothing can be fitted to it",
            fix='Leave the member out; select(status="completed") has none that diverged.',
        )


def _groups(of: WeightsIndex | LayerStatistics) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and sizes of what is scaled together."""
    if isinstance(of, LayerStatistics):
        names = tuple(of.names)
        return names, (1,) * len(names)
    return tuple(of), tuple(entry.size for entry in of.values())


def _moments(values: np.ndarray, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each group, and sum of the squared differences from it: exactly 0 where all numbers are equal."""
    if len(sizes) == len(values):
        return values.astype(np.float64), np.zeros(len(values))
    mean, squares, start = np.empty(len(sizes)), np.empty(len(sizes)), 0
    with np.errstate(over="ignore", invalid="ignore"):  # infinities less infinities, which are refused
        for group, size in enumerate(sizes):
            numbers = values[start : start + size].astype(np.float64)
            first = numbers[0]
            numbers -= first
            rest = numbers.mean()
            numbers -= rest
            mean[group], squares[group] = first + rest, numbers @ numbers
            start += size
    return mean, squares


def _find_group_problem(scaling: Scaling) -> str | None:
    lengths = {name: len(getattr(scaling, name)) for name in ("names", "sizes", "mean", "std")}
    if len(set(lengths.values())) > 1:
        return "it has " + ", ".join(f"{count} {name}" for name, count in lengths.items())
    if not scaling.names or len(set(scaling.names)) < len(scaling.names):
        return "it has no groups" if not scaling.names else "two groups have one name"
    for name, size, mean, std in zip(scaling.names, scaling.sizes, scaling.mean, scaling.std, strict=True):
        if size < 1 or not isfinite(mean) or not isfinite(std) or std <= 0:
            return f"{shown(name)} has {size} numbers of mean {mean} and standard deviation {std}"
    return None


def _find_split_problem(scaling: Scaling) -> str | None:
    members = []
    for text in scaling.fitted_on:
        ref = MemberRef.match(text)
        if ref is None:
            return f"fitted_on holds {shown(text)}, which is no member"
        members.append(str(ref.member))
    if not members:
        return "it was fitted on no member"
    said = [name for name in ("scheme", "fold", "parts") if getattr(scaling, name) is not None]
    if scaling.parts is None or len(said) < 3:
        return f"of the split it has {', '.join(said)} alone" if said else None
    for member, part in scaling.parts.items():
        if part not in PARTS:
            return f"{shown(member)} is in {shown(part)}, which is no part of a split"
    outside = next((member for member in members if scaling.parts.get(member) != "train"), None)
    return None if outside is None else f"{outside}, which it was fitted on, is not in train"
