"""Predict a metric or a setting of checkpoints from their weights, beside the recipe and with intervals.

    task = prediction(zoo.select(stage="finetuning", epoch=[2, 4, 6, 8]), "test_accuracy")
    task.score({"mine": "mine.csv"})    # a row for each baseline, entry and metric

See `vitzoo.analysis.prediction.submissions` for the form of predictions, `vitzoo.analysis.prediction.predictors` for
entries that read weights, and `vitzoo.splits.plan` for the folds.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int, Shaped

from vitzoo.analysis.prediction.submissions import Entry, Submission, checkpoint_name, read_submission
from vitzoo.analysis.resampling import draw_counts
from vitzoo.errors import SelectionError
from vitzoo.notebook import Shown, brief
from vitzoo.records import FACTORS, SEEDS
from vitzoo.splits.folds import Fold
from vitzoo.splits.plan import plan_folds
from vitzoo.splits.scores import FEWEST_GROUPS, check_resampling, interval_of
from vitzoo.weights.learning.dataset import read_target
from vitzoo.zoo.selection import Selection, check_selection

PENALTIES = np.array([1.0, 10.0, 100.0, 1e3, 1e4, 1e5])
INNER_FOLDS = 3
_OBJECTIVE = "pretraining_objective"
_ALIASES = {"head": "head_type", "objective": _OBJECTIVE}


@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """Row numbers of the checkpoints of a fold: train, test, and the inner folds of train.

    Args:
        fold: The fold.
        train: Rows of train.
        test: Rows of test.
        inner: Rows of train and of val of each inner fold.
    """

    fold: Fold
    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]
    inner: tuple[tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]], ...]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PredictionTask(Shown):
    """A target that weights predict, fold by fold. Made by `prediction`.

    Args:
        selection: The checkpoints.
        target: Name of the target.
        classes: Classes of the target; empty for numbers.
        truth: Value of each checkpoint: a number, or a class as text.
        folds: The folds that test a selected checkpoint.
        families: Family of each checkpoint, which a bootstrap resamples: an initialisation with all its descendants.
    """

    selection: Selection
    target: str
    classes: tuple[str, ...]
    truth: Shaped[np.ndarray, " checkpoints"]
    folds: tuple[Fold, ...]
    families: tuple[str, ...]

    def _facts(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "classes": self.classes,
            "checkpoints": len(self.truth),
            "folds": len(self.folds),
            "scheme": self.folds[0].scheme,
            "families": len(set(self.families)),
        }

    def _table_rows(self) -> list[dict[str, Any]]:
        return [{"checkpoint": name, "truth": value} for name, value in zip(self.checkpoints, self.truth, strict=True)]

    @cached_property
    def checkpoints(self) -> tuple[str, ...]:
        """The checkpoints with their epochs, such as ``pt-12/ft-3@7``, final weights included."""
        return tuple(checkpoint_name(self.selection.catalogue, ref) for ref in self.selection.refs)

    @cached_property
    def divisions(self) -> tuple[Division, ...]:
        """The rows of each fold.

        Raises:
            SelectionError: A fold has too few families in train for inner folds.
        """
        members = [str(ref.member) for ref in self.selection.refs]

        def rows(fold: Fold, part: str) -> Int[np.ndarray, " rows"]:
            return np.flatnonzero([fold.parts.get(member) == part for member in members])

        divisions = []
        for fold in self.folds:
            inner = [(rows(item, "train"), rows(item, "val")) for item in fold.inner(INNER_FOLDS)]
            used = tuple((train, val) for train, val in inner if len(train) and len(val))
            if not used:
                raise SelectionError(
                    f"Train of fold {fold.name} has selected checkpoints of fewer than two families",
                    fix="Select checkpoints of more families.",
                    value=fold.name,
                )
            divisions.append(Division(fold=fold, train=rows(fold, "train"), test=rows(fold, "test"), inner=used))
        return tuple(divisions)

    @property
    def targets(self) -> Float64[np.ndarray, "checkpoints outputs"]:
        """The truth as numbers: one column, or one column for each class that is 1 where it is right."""
        if self.classes:
            return (self.truth[:, None] == np.array(self.classes)).astype(np.float64)
        return self.truth[:, None]

    def entry(
        self,
        outputs: Float[np.ndarray, "checkpoints outputs"],
        *,
        seconds: float = np.nan,
        parameters: int = 0,
        settings: Mapping[str, str] | None = None,
    ) -> Entry:
        """Make an entry of the outputs of a method, with the form of `targets`.

        Args:
            outputs: For each checkpoint, the output of the fold that tests it. Of classes, the largest is predicted.
                Checkpoints that no fold tests are ignored.
            seconds: As `Entry`.
            parameters: As `Entry`.
            settings: As `Entry`.
        """
        values = np.array(self.classes)[outputs.argmax(axis=1)] if self.classes else outputs[:, 0]
        rows = np.concatenate([division.test for division in self.divisions])
        folds = [division.fold.name for division in self.divisions for _ in division.test]
        table = pd.DataFrame(
            {"checkpoint": np.array(self.checkpoints)[rows], "fold": folds, "prediction": values[rows]}
        )
        return Entry(table=table, seconds=seconds, parameters=parameters, settings=settings or {})

    def fit_ridge(self, features: Float[np.ndarray, "checkpoints features"]) -> Entry:
        """Fit ridge regression to standardised features, and to an indicator of each class.

        Inner folds that keep families choose one of `PENALTIES` by least squared error. Mean and deviation come from
        the training rows alone.

        Args:
            features: Features of each checkpoint.

        Raises:
            SelectionError: The number of rows differs, or a feature is NaN or infinite.
        """
        start = time.perf_counter()
        if len(features) != len(self.truth):
            raise SelectionError(
                f"There are features of {len(features)} checkpoints", expected=str(len(self.truth)), value=len(features)
            )
        if not np.isfinite(features).all():
            place = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise SelectionError(
                f"The features of {self.checkpoints[place]} are NaN or infinite",
                expected="finite numbers",
                fix="Leave it out, as a default selection leaves diverged members out.",
                value=self.checkpoints[place],
            )
        targets, outputs, settings = self.targets, np.empty_like(self.targets), {}
        for division in self.divisions:
            errors = np.zeros(len(PENALTIES))
            for train, val in division.inner:
                predicted = _ridge(features[train], targets[train], features[val])
                errors += np.square(predicted - targets[val]).sum(axis=(1, 2))
            best = int(errors.argmin())
            outputs[division.test] = _ridge(features[division.train], targets[division.train], features[division.test])[
                best
            ]
            settings[division.fold.name] = f"penalty {PENALTIES[best]:g}"
        return self.entry(
            outputs,
            seconds=time.perf_counter() - start,
            parameters=(features.shape[1] + 1) * targets.shape[1],
            settings=settings,
        )

    @cached_property
    def baselines(self) -> dict[str, Entry]:
        """Predictions without weights, by name. The last one is compared with all entries.

        - ``mean``: mean of train; of classes, ``majority``: the most frequent class of train.
        - ``objective and epoch``: mean of the training checkpoints with that objective of pre-training and that epoch.
          If train has none, their mean.
        - ``recipe``: ridge regression on `recipe_features`.

        Settings tell each other, so of classes only ``majority`` exists.
        """
        ones = np.zeros(len(self.truth), int)
        if self.classes:
            return {"majority": self._cell_means(ones)}
        texts = self._settings
        return {
            "mean": self._cell_means(ones),
            "objective and epoch": self._cell_means(_codes(texts[_OBJECTIVE], texts["epoch"])),
            "recipe": self.fit_ridge(self.recipe_features),
        }

    @cached_property
    def recipe_features(self) -> Float64[np.ndarray, "checkpoints features"]:
        """Indicators of the recipe: settings that vary and are not seeds, the epoch, each pair of objective and epoch.

        For numbers only: settings tell each other.
        """
        texts = self._settings
        columns = [*map(_codes, texts.values()), _codes(texts[_OBJECTIVE], texts["epoch"])]
        return np.concatenate([(codes[:, None] == np.unique(codes)).astype(np.float64) for codes in columns], axis=1)

    @property
    def _settings(self) -> dict[str, list[str]]:
        """The settings that vary and are not seeds, and epoch and objective, as texts of each checkpoint."""
        table = self.selection.catalogue.member_rows([ref.member for ref in self.selection.refs])
        names = dict.fromkeys([*(name for name in FACTORS if name not in SEEDS), _OBJECTIVE])
        columns = {name: list(map(str, table[name].to_pylist())) for name in names if name in table.column_names}
        varying = {name: texts for name, texts in columns.items() if len(set(texts)) > 1 or name == _OBJECTIVE}
        return {**varying, "epoch": [str(epoch) for epoch in self.selection.epochs_table["epoch"].to_pylist()]}

    def _cell_means(self, cells: Int[np.ndarray, " checkpoints"]) -> Entry:
        start, targets, outputs = time.perf_counter(), self.targets, np.empty_like(self.targets)
        for division in self.divisions:
            train = division.train
            for row in division.test:
                same = train[cells[train] == cells[row]]
                outputs[row] = targets[same if len(same) else train].mean(axis=0)
        parameters = len(np.unique(cells)) * targets.shape[1]
        return self.entry(outputs, seconds=time.perf_counter() - start, parameters=parameters)

    def read(self, submission: Submission) -> Shaped[np.ndarray, " tested"]:
        """Read the predictions of a submission, in the order of the tested checkpoints.

        Raises:
            SelectionError, LeakError, MemberIdError: As `vitzoo.analysis.prediction.submissions.read_submission`.
        """
        tested = {self.checkpoints[row]: part.fold.name for part in self.divisions for row in part.test.tolist()}
        return read_submission(
            submission, self.selection.catalogue, tested=tested, folds=self.folds, classes=self.classes
        )

    def score(
        self,
        entries: "Mapping[str, Entry | Submission]",
        *,
        resamples: int = 2000,
        level: float = 0.95,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Score entries beside the baselines, with intervals that resample families.

        The same families are drawn for all entries, so the interval of a difference has both on the same families. It
        shows how scores vary with the tested families, not with those of the training.

        Args:
            entries: Submissions by name.
            resamples: Number of draws, from 1.
            level: Share of intervals that contain the truth, above 0 and below 1.
            seed: Seed of the draws.

        Returns:
            A row for each entry and metric: ``entry``, ``metric``, ``estimate``, ``low``, ``high``, then ``difference``
            from the last baseline, with ``difference_low`` and ``difference_high``; ``families`` and ``checkpoints``;
            ``seconds`` and ``parameters`` of an `Entry`. Of numbers the metrics are ``r2`` (up to 1, 0 for the mean of
            the truth; larger is better) and ``mean_absolute_error`` (in the target's unit; smaller is better), of
            classes ``accuracy``. Intervals of fewer than five families are NaN.

        Raises:
            SelectionError: An entry has the name of a baseline, a number is out of range, or as `read`.
            LeakError, MemberIdError: As `read`.
        """
        check_resampling(resamples, level)
        duplicate = next((name for name in entries if name in self.baselines), None)
        if duplicate is not None:
            raise SelectionError(f'An entry is called "{duplicate}"', fix="Choose another name.", value=duplicate)
        tested = np.concatenate([division.test for division in self.divisions])
        names, places = np.unique(np.array(self.families)[tested], return_inverse=True)
        enough = len(names) >= FEWEST_GROUPS
        drawn = draw_counts(len(names), resamples if enough else 0, np.random.default_rng(seed))
        counts = np.vstack([np.ones(len(names), int), drawn])
        found: dict[str, dict[str, Float64[np.ndarray, " draws"]]] = {}
        costs = {}
        for name, entry in {**self.baselines, **entries}.items():
            costs[name] = entry if isinstance(entry, Entry) else Entry(table=pd.DataFrame())
            predicted = self.read(entry.table if isinstance(entry, Entry) else entry)
            found[name] = self._metrics(self.truth[tested], predicted, places, counts)
        reference, rows = found[list(self.baselines)[-1]], []
        for name, metrics in found.items():
            for metric, values in metrics.items():
                apart = values - reference[metric]
                own, gain = (
                    interval_of(float(item[0]), item[1:], groups=len(names), level=level) for item in (values, apart)
                )
                rows.append(
                    {
                        "entry": name,
                        "metric": metric,
                        "estimate": own.estimate,
                        "low": own.low,
                        "high": own.high,
                        "difference": gain.estimate,
                        "difference_low": gain.low,
                        "difference_high": gain.high,
                        "families": len(names),
                        "checkpoints": len(tested),
                        "seconds": costs[name].seconds,
                        "parameters": costs[name].parameters,
                    }
                )
        return pd.DataFrame(rows)

    def _metrics(
        self,
        truth: Shaped[np.ndarray, " tested"],
        predicted: Shaped[np.ndarray, " tested"],
        places: Int[np.ndarray, " tested"],
        counts: Int[np.ndarray, "draws families"],
    ) -> dict[str, Float64[np.ndarray, " draws"]]:
        """Compute each metric of each draw from sums by family; the first draw has every family once."""

        def drawn_mean(values: Shaped[np.ndarray, " tested"]) -> Float64[np.ndarray, " draws"]:
            sums = np.bincount(places, weights=values.astype(np.float64))
            return (counts @ sums) / (counts @ np.bincount(places))

        if self.classes:
            return {"accuracy": drawn_mean(truth == predicted)}
        centred = truth - truth.mean()
        variance = drawn_mean(centred**2) - drawn_mean(centred) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            r2 = 1 - drawn_mean((truth - predicted) ** 2) / variance
        return {"r2": r2, "mean_absolute_error": drawn_mean(np.abs(truth - predicted))}


def prediction(
    selection: Selection,
    target: str,
    *,
    scheme: str = "leave_one_parent_out",
    factor: str | None = None,
    folds: int = 5,
) -> PredictionTask:
    """Make a task: a target that the weights of a selection predict, and the folds of a scheme.

    Args:
        selection: Checkpoints with the target.
        target: A metric, such as ``test_accuracy``, or ``gap`` (train accuracy - test accuracy); or a factor, such as
            ``optimizer``, ``learning_rate``, ``head`` or ``objective`` (of the pre-training), whose values are classes.
        scheme: One of `vitzoo.splits.schemes.SCHEMES`. The scores of a scheme that is not sound are diagnostics.
        factor: As `vitzoo.Zoo.splits`, for leave_one_factor_out.
        folds: As `vitzoo.Zoo.splits`.

    Raises:
        SelectionError: The selection is empty or has a checkpoint twice; the target is unknown, has one value, or is
            missing for a checkpoint; no fold tests a checkpoint; or the scheme or number of folds is refused.

    Example:
        >>> from vitzoo import Zoo
        >>> prediction(Zoo("zoo").select(stage="finetuning"), "test_accuracy")
        PredictionTask(target=test_accuracy, classes=none, checkpoints=..., folds=...)
    """
    check_selection(selection, each="checkpoint")
    refs, catalogue = selection.refs, selection.catalogue
    column = _ALIASES.get(target, target)
    values, texts = read_target(catalogue, refs, column)
    numbers = values.numpy()
    known = numbers >= 0 if texts is not None else np.isfinite(numbers.astype(np.float64))
    if not known.all():
        raise SelectionError(
            f"{(~known).sum()} of {len(refs)} checkpoints have no {target}, such as {refs[int((~known).argmax())]}",
            fix='Select checkpoints that have it, as with stage="finetuning".',
            value=target,
        )
    if texts is not None:
        truth = np.array(texts)[numbers]
    elif column in FACTORS:
        exact = catalogue.member_rows([ref.member for ref in refs])[column].to_pylist()
        truth = np.array([str(value) for value in exact])
    else:
        truth = numbers.astype(np.float64)
    distinct = sorted(set(truth.tolist()))
    if len(distinct) < 2:
        raise SelectionError(
            f"{target} is {brief(distinct[0])} for all {len(refs)} checkpoints", expected="two values", value=target
        )
    members, epochs = catalogue.table("members").to_pylist(), catalogue.table("epochs").to_pylist()
    chosen = {str(ref.member) for ref in refs}
    every = plan_folds(scheme, members, epochs, factor=factor, folds=folds)
    planned = [fold for fold in every if not chosen.isdisjoint(fold.ids("test"))]
    if not planned:
        raise SelectionError(f"No fold of {scheme} tests a selected checkpoint", value=scheme)
    families = catalogue.init_families
    return PredictionTask(
        selection=selection,
        target=target,
        classes=() if truth.dtype.kind == "f" else tuple(distinct),
        truth=truth,
        folds=tuple(planned),
        families=tuple(families[str(ref.member)] for ref in refs),
    )


def _ridge(
    train: Float[np.ndarray, "train features"],
    targets: Float[np.ndarray, "train outputs"],
    test: Float[np.ndarray, "test features"],
) -> Float64[np.ndarray, "penalties test outputs"]:
    """Return the predictions of ridge regression for each of `PENALTIES`."""
    deviation = train.std(axis=0)
    scale, mean, centre = np.where(deviation > 0, deviation, 1), train.mean(axis=0), targets.mean(axis=0)
    train, test = (train - mean) / scale, (test - mean) / scale
    values, axes = np.linalg.eigh(train.T @ train)
    projected = axes.T @ (train.T @ (targets - centre))
    return centre + (test @ axes) @ (projected / (values[:, None] + PENALTIES[:, None, None]))


def _codes(*columns: Sequence[str]) -> Int[np.ndarray, " checkpoints"]:
    """Give each combination of values a number."""
    rows = list(zip(*columns, strict=True))
    numbers = {row: number for number, row in enumerate(dict.fromkeys(rows))}
    return np.array([numbers[row] for row in rows])
