"""Read columns of the zoo's tables as tensors, to be predicted from the weights of checkpoints.

See `vitzoo.tables.columns` for the columns, and `vitzoo.weights.learning.dataset` for the weights.
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

NO_CLASS = -100  # torch's losses ignore it


def read_target(catalogue: Catalogue, refs: Sequence[MemberRef], name: str) -> tuple[Tensor, list[str] | None]:
    """Read a column's value for each checkpoint of a selection.

    Columns are found as in `Zoo.select`: first in ``members``, where ``objective`` is that of the pre-training, then in
    ``epochs`` at the checkpoint's epoch. ``gap`` is the checkpoint's train accuracy - test accuracy.

    Args:
        catalogue: The zoo's records.
        refs: The checkpoints.
        name: The column.

    Returns:
        Values and classes. Fractional numbers are float32 with NaN for none. Whole numbers are int64, or float64 with
        NaN if a value is missing. Texts are int64 places in the classes, a list of all values in the zoo, with
        `NO_CLASS` for none. Numbers have no classes.

    Raises:
        SelectionError: There is no such column, or it has lists.
    """
    if name == "gap":
        train, test = (_floats(catalogue.epoch_rows(refs)[column]) for column in ("train_accuracy", "test_accuracy"))
        return torch.from_numpy(train - test).float(), None
    column = "pretraining_objective" if name == "objective" else name
    members, epochs = catalogue.table("members"), catalogue.table("epochs")
    of_members = column in members.column_names
    if not of_members and column not in epochs.column_names:
        known = dict.fromkeys([*members.column_names, *epochs.column_names])
        raise SelectionError(f'The target "{name}" is not a column', fix=did_you_mean(name, known), value=name)
    table = catalogue.member_rows([ref.member for ref in refs]) if of_members else catalogue.epoch_rows(refs)
    if pa.types.is_list(table.schema.field(column).type):
        raise SelectionError(f'The target "{name}" is a column of lists', expected="numbers or texts", value=name)
    values = table[column]
    if not pa.types.is_string(values.type):
        return _numbers(values), None
    texts = {text for text in (members if of_members else epochs)[column].to_pylist() if text is not None}
    classes = sorted(texts, key=_order)
    places = {value: place for place, value in enumerate(classes)}
    return torch.tensor([places.get(value, NO_CLASS) for value in values.to_pylist()], dtype=torch.int64), classes


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values.to_pylist()], np.float64)


def _numbers(values: pa.ChunkedArray) -> Tensor:
    """Keep whole numbers exact: float32 cannot represent odd seeds above 2 ** 24."""
    if not pa.types.is_integer(values.type):
        return torch.from_numpy(_floats(values)).float()
    if values.null_count:
        return torch.from_numpy(_floats(values))
    return torch.tensor(values.to_pylist(), dtype=torch.int64)


def _order(text: str) -> tuple[bool, Any]:
    """Return a key that sorts ids by their numbers, before other texts."""
    member = MemberId.match(text)
    return (member is None, text if member is None else member)
