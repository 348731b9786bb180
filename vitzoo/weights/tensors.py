"""A tensor's bytes as a torch tensor. Where the bytes lie in a file is `vitzoo.weights.header`'s business."""

import torch
from torch import Tensor

from vitzoo.weights.header import TensorEntry

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def to_tensor(content: bytes, entry: TensorEntry) -> Tensor:
    """A tensor of its own memory, from its little-endian bytes.

    Args:
        content: The bytes.
        entry: Its dtype and shape.
    """
    return torch.frombuffer(bytearray(content), dtype=_DTYPES[entry.dtype]).reshape(entry.shape)
