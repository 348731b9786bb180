"""One checkpoint of the authors', written as a weights file of a zoo: read once, hashed and written tensor by tensor.

Nothing is copied in memory: queries, keys and values are rows of one tensor, which is pages of the source file.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vitzoo.architectures import is_head
from vitzoo.records.json_files import partial_path
from vitzoo.tensors.header import combine_digests


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """A weights file that was written, or would be.

    Args:
        size: Bytes; None where it was not written.
        sha256: Of the file, likewise.
        weights_id: Digest of all weights.
        backbone_id: Digest of all but the head's.
        weight_norm: L2 norm of all weights; not finite where a weight is not.
        distance_from_start: L2 distance from the weights before the first step; None without those.
    """

    size: int
    sha256: str
    weights_id: str
    backbone_id: str
    weight_norm: float
    distance_from_start: float | None

    @property
    def is_finite(self) -> bool:
        """Whether every weight is a number."""
        return math.isfinite(self.weight_norm)


def write_weights(path: Path, weights: Mapping[str, Tensor], *, start: Mapping[str, Tensor] | None) -> Converted:
    """Write a safetensors file with the bytes that `safetensors.torch.save` makes; the disk is not waited for.

    Args:
        path: The file.
        weights: On-disk names to contiguous float32 tensors on the CPU.
        start: The weights before the first step; None where there are none.
    """
    names = sorted(weights)  # the order of safetensors', among tensors of one type
    head = _header({name: weights[name] for name in names})
    digest, digests = hashlib.sha256(head), {}
    squares, distances = 0.0, 0.0
    partial = partial_path(path)
    try:
        with open(partial, "wb", buffering=0) as file:
            file.write(head)
            for name in names:
                tensor = weights[name]
                data = tensor.numpy().data.cast("B")
                digest.update(data)
                digests[name] = ("F32", tuple(tensor.shape), hashlib.sha256(data).hexdigest())
                file.write(data)
                squares += float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2
                if start is not None:
                    distances += float(torch.linalg.vector_norm(tensor - start[name], dtype=torch.float64)) ** 2
            size = file.tell()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    weights_id, backbone_id = combine_digests(digests, is_head=is_head)
    return Converted(
        size=size,
        sha256=digest.hexdigest(),
        weights_id=weights_id,
        backbone_id=backbone_id,
        weight_norm=squares**0.5,
        distance_from_start=None if start is None else distances**0.5,
    )


def _header(weights: Mapping[str, Tensor]) -> bytes:
    """The first bytes of a safetensors file: https://github.com/huggingface/safetensors#format."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in weights.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
