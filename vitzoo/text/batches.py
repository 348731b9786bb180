"""Make batches of rows: padded tensors, and the batches of an evaluation.

Padding changes the last bits of a model's output. So the batches of an evaluation are a function of the split and the
batch size alone. See `training.text` for the batches of a training.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vitzoo.errors import DatasetError
from vitzoo.text.splits import TextSplit


def padded(
    split: TextSplit, places: Int64[np.ndarray, " batch"] | Sequence[int], *, pad: int, to: int | None = None
) -> dict[str, Int64[Tensor, "batch length"]]:
    """Return rows of a split as the inputs of a model, padded on the right.

    Args:
        split: The rows.
        places: Places of the batch's rows in the split.
        pad: Id of the padding token.
        to: Length of the padded rows in tokens; None for the longest of these rows.

    Returns:
        ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where rows have two texts.

    Raises:
        DatasetError: A row is longer than ``to``.
    """
    places = np.asarray(places, dtype=np.int64)
    starts, lengths = split.offsets[:-1][places], split.lengths[places]
    longest = int(lengths.max(initial=0))
    width = longest if to is None else to
    if longest > width:
        raise DatasetError(
            f"A row has {longest} tokens", expected=f"at most {width}", fix="Set a smaller max_length in the TextSpec."
        )
    columns = np.arange(width)
    real = columns < lengths[:, None]
    token_ids = np.full(real.shape, pad, dtype=np.int64)
    token_ids[real] = split.token_ids[(starts[:, None] + columns)[real]]
    inputs = {"input_ids": token_ids, "attention_mask": real.astype(np.int64)}
    if split.second is not None:
        inputs["token_type_ids"] = (real & (columns >= split.second[places][:, None])).astype(np.int64)
    return {name: torch.from_numpy(array) for name, array in inputs.items()}


def evaluation_batches(split: TextSplit, batch_size: int) -> list[Int64[np.ndarray, " batch"]]:
    """Return the places of the rows of each batch: rows sorted by length, then by place."""
    order = np.argsort(split.lengths, kind="stable").astype(np.int64)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
