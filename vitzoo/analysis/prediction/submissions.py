"""Read predictions of checkpoints, and refuse those that leak or do not fit the folds.

A submission is a table with a row for each checkpoint that a fold tests. Its columns are exactly:

    checkpoint    the checkpoint, such as pt-12/ft-3@7; without an epoch, the final weights
    fold          name of the fold that tests it, such as pt-12, on whose train the method was fitted
    prediction    a number, or a class as text

It is a CSV file with a header, or a data frame. See `vitzoo.analysis.prediction.prediction` for the task that it
answers.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from vitzoo.errors import LeakError, SelectionError, did_you_mean, shown
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown, brief
from vitzoo.splits.folds import Fold
from vitzoo.tables.catalogue import Catalogue

COLUMNS = ("checkpoint", "fold", "prediction")
Submission = pd.DataFrame | str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Entry(Shown):
    """Predictions of one method, with their cost.

    Args:
        table: The predictions, with the columns of a submission.
        seconds: Time to read features and to fit all folds; NaN if unknown.
        parameters: Number of fitted parameters in one fold; 0 if unknown.
        settings: Setting that inner folds chose, by fold.
    """

    table: pd.DataFrame
    seconds: float = np.nan
    parameters: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)

    def _facts(self) -> dict[str, Any]:
        return {"predictions": len(self.table), "seconds": self.seconds, "parameters": self.parameters}

    def _table_rows(self) -> list[dict[str, Any]]:
        return self.table.to_dict("records")


def checkpoint_name(catalogue: Catalogue, ref: MemberRef) -> str:
    """Return a checkpoint without its zoo and with a number as its epoch, such as ``pt-12/ft-3@8``."""
    last = max(catalogue.epoch_places[ref.member])
    return str(replace(ref, zoo=None, epoch=last if ref.epoch is None else ref.epoch))


def read_submission(
    submission: Submission,
    catalogue: Catalogue,
    *,
    tested: Mapping[str, str],
    folds: Sequence[Fold],
    classes: Sequence[str] = (),
) -> Shaped[np.ndarray, " tested"]:
    """Read predictions, in the order of the tested checkpoints.

    Args:
        submission: A data frame or a CSV file, with the columns of this module.
        catalogue: The zoo's records.
        tested: Name of the fold that tests each checkpoint.
        folds: The folds.
        classes: Classes that may be predicted; empty for numbers.

    Raises:
        SelectionError: A file is not CSV; columns are missing or unknown; a checkpoint or fold is unknown, missing or
            duplicate; a number is not finite, or a class unknown.
        LeakError: A prediction comes from a fold that does not test the member, such as one that trains on it.
        MemberIdError: A text is not a checkpoint.
    """
    by_name, values = {fold.name: fold for fold in folds}, {}
    for text, fold, value in _rows(submission):
        ref = MemberRef.parse(text)
        name = checkpoint_name(catalogue, ref) if ref.member in catalogue.epoch_places else text
        if name not in tested:
            raise SelectionError(
                f"{shown(text)} is not one of the {len(tested)} tested checkpoints",
                fix=did_you_mean(name, tested),
                value=text,
            )
        if fold not in by_name:
            raise SelectionError(
                f'There is no fold "{fold}", which {name} names', fix=did_you_mean(fold, by_name), value=fold
            )
        member = str(ref.member)
        part = by_name[fold].parts.get(member, "no part")
        if part != "test":
            raise LeakError(
                f"The prediction of {name} comes from fold {fold}, where {member} is in {part}",
                expected=f"fold {tested[name]}, which tests it",
                fix="Predict each checkpoint with the method that was fitted on its own fold.",
                kind="member",
                members=(member, member),
                parts=(part, "test"),
                value=member,
            )
        if name in values:
            raise SelectionError(f"{name} is predicted twice", fix="Predict it once.", value=name)
        values[name] = _parse_class(name, value, classes) if classes else _parse_number(name, value)
    missing = [name for name in tested if name not in values]
    if missing:
        raise SelectionError(
            f"{len(missing)} of {len(tested)} tested checkpoints are not predicted, such as {missing[0]}",
            fix="Predict every checkpoint that a fold tests.",
            value=missing,
        )
    return np.array([values[name] for name in tested])


def _rows(submission: Submission) -> list[tuple[str, str, Any]]:
    """Return checkpoint, fold and prediction of each row."""
    if isinstance(submission, pd.DataFrame):
        table = submission
    else:
        try:
            table = pd.read_csv(submission, dtype=str, keep_default_na=False)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise SelectionError(
                f"{submission} is not a CSV file: {error}",
                expected=f"a header with {', '.join(COLUMNS)}",
                value=submission,
            ) from error
    if sorted(map(str, table.columns)) != sorted(COLUMNS):
        raise SelectionError(
            f"The submission has the columns {', '.join(map(str, table.columns)) or 'none'}",
            expected=", ".join(COLUMNS),
            value=list(table.columns),
        )
    columns = (table[name].tolist() for name in COLUMNS)
    return [(str(checkpoint), str(fold), value) for checkpoint, fold, value in zip(*columns, strict=True)]


def _parse_class(name: str, value: Any, classes: Sequence[str]) -> str:
    if str(value) not in classes:
        raise SelectionError(
            f"The prediction of {name} is {brief(value)}",
            expected=", ".join(classes),
            fix=did_you_mean(str(value), classes),
            value=value,
        )
    return str(value)


def _parse_number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise SelectionError(f"The prediction of {name} is {brief(value)}", expected="a finite number", value=value)
    return number
