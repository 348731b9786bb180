"""Targets: what is known of checkpoints as tensors, to be predicted from their weights.

Which columns there are, `vitzoo.tables.columns` says. The weights are `vitzoo.weights.learning.dataset`'s business.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.ids import MemberId, MemberRef
from vitzoo.tables.catalogue import Catalogue

NO_CLASS = -100  # what torch's losses ignore


def read_target(catalogue: Catalogue, refs: Sequence[MemberRef], name: str) -> tuple[Tensor, list[str] | None]:
    """A column's values at each checkpoint of a selection.

    Columns are looked up as `Zoo.select` does: first in ``members``, ``objective`` being that of the pre-training, then
    in ``epochs`` at the checkpoint's epoch. ``gap`` is the checkpoint's own: train accuracy - test accuracy.

    Args:
        catalogue: The zoo's records.
        refs: The checkpoints.
        name: The column.

    Returns:
        Fractional numbers as float32, nan where there is none, and None; whole numbers exactly, as int64, or as float64
        with nan where the selection has a checkpoint without; or texts as int64 places in a list of all values in the
        zoo, so that they mean the same in every selection, `NO_CLASS` where there is none, and that list.

    Raises:
        SelectionError: There is no such column, or it holds lists.
    """
    if name == "gap":
        train, test = (_floats(catalogue.epoch_rows(refs)[column]) for column in ("train_accuracy", "test_accuracy"))
        return torch.from_numpy(train - test).float(), None
    column = "pretraining_objective" if name == "objective" else name
    members, epochs = catalogue.table("members"), catalogue.table("epochs")
    of_members = column in members.column_names
    if not of_members and column not in epochs.column_names:
        known = dict.fromkeys([*members.column_names, *epochs.column_names])
        raise SelectionError(f'The target "{name}" is not a column.{did_you_mean(name, known)}', value=name)
    table = catalogue.member_rows([ref.member for ref in refs]) if of_members else catalogue.epoch_rows(refs)
    if pa.types.is_list(table.schema.field(column).type):
        raise SelectionError(f'The target "{name}" holds lists; choose a column of numbers or texts.', value=name)
    values = table[column]
    if not pa.types.is_string(values.type):
        return _numbers(values), None
    classes = _classes((members if of_members else epochs)[column])
    places = {value: place for place, value in enumerate(classes)}
    return torch.tensor([places.get(value, NO_CLASS) for value in values.to_pylist()], dtype=torch.int64), classes


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values.to_pylist()], np.float64)


def _numbers(values: pa.ChunkedArray) -> Tensor:
    """Whole numbers are not rounded: float32 has no seed above 2 ** 24 but the even ones."""
    if not pa.types.is_integer(values.type):
        return torch.from_numpy(_floats(values)).float()
    if values.null_count:
        return torch.from_numpy(_floats(values))
    return torch.tensor(values.to_pylist(), dtype=torch.int64)


def _classes(values: pa.ChunkedArray) -> list[str]:
    return sorted({value for value in values.to_pylist() if value is not None}, key=_order)


def _order(text: str) -> tuple[bool, Any]:
    """Ids by their numbers, before other texts."""
    member = MemberId.match(text)
    return (member is None, text if member is None else member)
