"""Bytes and arrays of weights as torch tensors. Where the bytes lie in a file is `vitzoo.tensors.header`'s business."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitzoo.architectures import memory_name
from vitzoo.tensors.header import DTYPE_BYTES, TensorEntry
from vitzoo.weights.index import WeightsIndex

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def to_tensor(content: bytes, entry: TensorEntry) -> Tensor:
    """A tensor of its own memory, from its little-endian bytes.

    Args:
        content: The bytes.
        entry: Its dtype and shape.
    """
    return view_tensor(bytearray(content), entry, offset=0)


def view_tensor(memory: Any, entry: TensorEntry, *, offset: int) -> Tensor:
    """A tensor in memory that is there.

    Args:
        memory: Any writable buffer, a mapped file among them; the tensor keeps it.
        entry: Its dtype and shape.
        offset: Where its little-endian bytes begin.
    """
    count = (entry.end - entry.start) // DTYPE_BYTES[entry.dtype]
    flat = torch.frombuffer(memory, dtype=_DTYPES[entry.dtype], count=count, offset=offset)
    return flat.reshape(entry.shape)


def from_numpy(values: np.ndarray) -> Tensor:
    """An array as a tensor of the same memory; integers are the bits of bfloat16 (`vitzoo.tensors.dtypes`)."""
    tensor = torch.from_numpy(values)
    return tensor.view(torch.bfloat16) if values.dtype == np.uint16 else tensor


def structure_tensors(structure: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """What a representation has once for all members, copied: integers as int64, which torch's layers look up with."""
    tensors = {name: torch.from_numpy(array.copy()) for name, array in structure.items()}
    return {name: tensor if tensor.dtype == torch.bool else tensor.long() for name, tensor in tensors.items()}


def state_dict(index: WeightsIndex, vector: np.ndarray | Tensor) -> dict[str, Tensor]:
    """The tensors of a flat vector under their names in a model (transformers' in memory): views of it.

    Args:
        index: How the vector is laid out.
        vector: Of the index's size.

    Raises:
        WeightsError: It has another size.
    """
    tensor = from_numpy(vector) if isinstance(vector, np.ndarray) else vector
    return {memory_name(name): part for name, part in index.unflatten(tensor).items()}
