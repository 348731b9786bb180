"""Make torch tensors of bytes and arrays of weights. See `vitzoo.tensors.header` for offsets in a file."""

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
    """Copy the little-endian bytes of a tensor into a new tensor."""
    return view_tensor(bytearray(content), entry, offset=0)


def view_tensor(memory: Any, entry: TensorEntry, *, offset: int) -> Tensor:
    """Make a tensor that is a view of a writable buffer, such as a memory-mapped file, and keeps it alive."""
    count = (entry.end - entry.start) // DTYPE_BYTES[entry.dtype]
    flat = torch.frombuffer(memory, dtype=_DTYPES[entry.dtype], count=count, offset=offset)
    return flat.reshape(entry.shape)


def from_numpy(values: np.ndarray) -> Tensor:
    """Make a tensor of an array's memory; integers are the bits of bfloat16 (`vitzoo.tensors.dtypes`)."""
    tensor = torch.from_numpy(values)
    return tensor.view(torch.bfloat16) if values.dtype == np.uint16 else tensor


def structure_tensors(structure: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Copy the structure of a representation into tensors, with int64 for integers, as torch's look-ups need."""
    tensors = {name: torch.from_numpy(array.copy()) for name, array in structure.items()}
    return {name: tensor if tensor.dtype == torch.bool else tensor.long() for name, tensor in tensors.items()}


def state_dict(index: WeightsIndex, vector: Any) -> dict[str, Tensor]:
    """Split a flat vector, as `WeightsIndex.unflatten`, into views by the tensors' names in a model."""
    tensor = from_numpy(vector) if isinstance(vector, np.ndarray) else vector
    return {memory_name(name): part for name, part in index.unflatten(tensor).items()}
