"""Scaling: standardise weights with the mean and deviation of the training members alone, saved with their split.

scaling.json    {"format": 1, "names": ["vit.embeddings.cls_token", ...], "sizes": [384, ...], "mean": [...],
                 "std": [...], "fitted_on": ["pt-0", ...], "scheme": "by_parent", "fold": "0",
                 "parts": {"pt-0": "train", ...}}; the last three are null without a fold

See `vitzoo.weights.learning.dataset` for items that are scaled. numpy only.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float
from msgspec import Meta

from vitzoo.errors import LeakError, WeightsError, shown
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown
from vitzoo.records.json_files import load_record, write_json
from vitzoo.splits.folds import Fold
from vitzoo.splits.folds import Part as FoldPart
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.population import Part, PopulationWeights
from vitzoo.weights.representations.representation import find_representation
from vitzoo.weights.representations.statistics import LayerStatistics

FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Scaling(Shown):
    """Mean and standard deviation of groups of numbers: of each tensor, or of each feature.

    Args:
        format: Version of the file.
        names: Name of each group.
        sizes: Number of successive values in each group.
        mean: Mean of each group.
        std: Standard deviation of each group (divided by the count), or 1 if all its values are equal.
        fitted_on: The checkpoints used. ``zoo.assert_no_leaks({"train": scaling.fitted_on, "test": test})`` shows that
            no test member is one of them.
        scheme: Scheme of the split; None if fitted without one.
        fold: Name of the fold.
        parts: Members of the fold to their parts.

    Raises:
        WeightsError: The fields contradict each other.
    """

    format: int = FORMAT
    names: tuple[str, ...]
    sizes: tuple[Annotated[int, Meta(ge=1)], ...]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Meta(gt=0)], ...]
    fitted_on: tuple[str, ...]
    scheme: str | None = None
    fold: str | None = None
    parts: dict[str, FoldPart] | None = None

    def __post_init__(self):
        lengths = {len(values) for values in (self.names, set(self.names), self.sizes, self.mean, self.std)}
        refs = {text: MemberRef.match(text) for text in self.fitted_on}
        given, parts = [value is not None for value in (self.scheme, self.fold, self.parts)], self.parts or {}
        problem = None
        if len(lengths) > 1 or lengths == {0}:
            problem = "it has no groups, two of one name, or not one size, mean and deviation for each"
        elif not refs or None in refs.values():
            problem = f"fitted_on has {shown(next((text for text, ref in refs.items() if ref is None), 'no member'))}"
        elif any(given) and not all(given):
            problem = "it has only some of scheme, fold and parts"
        elif any(given) and {parts.get(str(ref.member)) for ref in refs.values() if ref} != {"train"}:
            problem = "it was fitted on members that are not in train"
        if problem is not None:
            raise WeightsError(f"The scaling is not valid: {problem}", fix="Fit it again.")

    def scale(self, values: Float[np.ndarray, "*batch values"]) -> Float[np.ndarray, "*batch values"]:
        """Standardise flat vectors or features, in float64; the result has their dtype.

        Raises:
            WeightsError: The scaling was fitted for another number of values.
        """
        return self._map(values, lambda numbers, mean, std: (numbers - mean) / std)

    def unscale(self, values: Float[np.ndarray, "*batch values"]) -> Float[np.ndarray, "*batch values"]:
        """Invert `scale`, to rounding. Raises as `scale`."""
        return self._map(values, lambda numbers, mean, std: numbers * std + mean)

    def check_fits(self, of: WeightsIndex | LayerStatistics) -> None:
        """Raise WeightsError if an index, or features, have groups of other names, sizes or order."""
        expected = dict(zip(*_groups(of), strict=True))
        own = dict(zip(self.names, self.sizes, strict=True))
        name = next((name for name in {**expected, **own} if own.get(name) != expected.get(name)), None)
        if name is not None:
            how = f'"{name}" has {own.get(name, "no")} numbers, here {expected.get(name, "none")}'
        elif list(own) != list(expected):
            how = "they are in another order"
        else:
            return
        raise WeightsError(
            f"The scaling was fitted for other numbers: {how}", fix="Fit it for this part and representation."
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the scaling and its split as JSON."""
        write_json(Path(path), self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Scaling":
        """Read a file that `save` wrote; raise RecordError if it is missing, newer or not valid."""
        return load_record(cls, Path(path), newest=FORMAT)

    def _map(self, values: np.ndarray, change: Callable[[np.ndarray, float, float], np.ndarray]) -> np.ndarray:
        count = sum(self.sizes)
        if values.shape[-1:] != (count,):
            raise WeightsError(
                f"The values have shape {list(values.shape)}",
                expected=f"{count:,}, the numbers that the scaling was fitted for",
                fix="Fit it for this part and representation.",
            )
        out, start = np.empty_like(values), 0
        with np.errstate(over="ignore", invalid="ignore"):  # of a diverged member, as in torch
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
        weights: The training checkpoints, of equal weight.
        representation: Of the data set to be scaled: ``statistics`` are scaled by feature, all others by tensor.
        part: As `PopulationWeights.matrix`.
        fold: The split whose training part the checkpoints are; it is saved with the scaling.

    Raises:
        LeakError: A checkpoint is not of the fold's training part.
        SelectionError: A checkpoint's member did not exist when the zoo was split.
        RepresentationError: There is no such representation.
        WeightsError: Members have different tensors, or one has NaN or infinite values.
    """
    find_representation(representation)
    if fold is not None:
        _check_train(weights, fold)
    index = weights.index(part)
    statistics = LayerStatistics(index) if representation == "statistics" else None
    names, sizes = _groups(index if statistics is None else statistics)
    numbers = np.array(sizes)
    count, mean, squares = 0, np.zeros(len(names)), np.zeros(len(names))
    for ref, vector in weights.iter_vectors(part=part, dtype="float64"):  # exact for every dtype
        own_mean, own_squares = _moments(vector if statistics is None else statistics.encode(vector), sizes)
        _check_finite(ref, names, own_mean, own_squares)
        count += 1
        # Chan et al. 1983: sets are merged by their means, so that a large offset loses no digits.
        shift = own_mean - mean
        mean = mean + shift / count
        squares = squares + own_squares + shift**2 * numbers * ((count - 1) / count)
    std = np.sqrt(squares / (count * numbers))
    return Scaling(
        names=names,
        sizes=sizes,
        mean=tuple(mean.tolist()),
        std=tuple(value if value > 0 else 1.0 for value in std.tolist()),
        fitted_on=tuple(str(replace(ref, zoo=None)) for ref in weights.refs),
        scheme=None if fold is None else fold.scheme,
        fold=None if fold is None else fold.name,
        parts=None if fold is None else dict(fold.parts),
    )


def _check_train(weights: PopulationWeights, fold: Fold) -> None:
    members = [str(ref.member) for ref in weights.refs]
    fold.check_knows(members)
    for member in members:
        part = fold.parts.get(member)
        if part != "train":
            raise LeakError(
                f"{member} is in {'no part' if part is None else part} of fold {fold.name} of {fold.scheme}",
                expected="only members of train",
                fix='Give fit_scaling the weights of fold.of(selection)["train"].',
                kind="member",
                members=(member, member),
                parts=("train", part),
                value=member,
            )


def _check_finite(ref: MemberRef, names: tuple[str, ...], mean: np.ndarray, squares: np.ndarray) -> None:
    finite = np.isfinite(mean) & np.isfinite(squares)
    if not finite.all():
        raise WeightsError(
            f'"{names[int(np.argmin(finite))]}" of {ref} has NaN or infinite values, or their squares overflow',
            fix='Leave the member out; select(status="completed") has none that diverged.',
        )


def _groups(of: WeightsIndex | LayerStatistics) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names and sizes of the groups that are scaled together."""
    if isinstance(of, LayerStatistics):
        names = tuple(of.names)
        return names, (1,) * len(names)
    return tuple(of), tuple(entry.size for entry in of.values())


def _moments(values: np.ndarray, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean of each group, and the sum of squared differences from it: exactly 0 for equal numbers."""
    if len(sizes) == len(values):
        return values.astype(np.float64), np.zeros(len(values))
    mean, squares, start = np.empty(len(sizes)), np.empty(len(sizes)), 0
    with np.errstate(over="ignore", invalid="ignore"):  # infinity - infinity is refused later
        for group, size in enumerate(sizes):
            numbers = values[start : start + size].astype(np.float64)
            first = numbers[0]
            numbers -= first
            rest = numbers.mean()
            numbers -= rest
            mean[group], squares[group] = first + rest, numbers @ numbers
            start += size
    return mean, squares
