"""Write checkpoints of one model as weights files in its unfinished folder, ``.training/import/<id>/``.

See `member` for the choice of epochs.
"""

import contextlib
import hashlib
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from vitzoo.architectures import is_head
from vitzoo.errors import WeightsError
from vitzoo.interop.authors.checkpoints import check_sums, load_checkpoint
from vitzoo.interop.authors.job import WORK, Import
from vitzoo.interop.authors.plan import PlannedImport
from vitzoo.records.files import file_sha256
from vitzoo.tensors.header import content_ids


class StoppedError(Exception):
    """The import ends before the next checkpoint."""


class ByteCount:
    """Counts bytes of checkpoints over all threads, and tells threads to stop.

    Args:
        total: Bytes of all checkpoints.
        progress: Called with ``importing``, the bytes that are done, and ``total``.
    """

    def __init__(self, total: int, progress: Callable[[str, int, int], None]):
        self.read = 0
        self.stop = threading.Event()
        self._total, self._progress, self._lock = total, progress, threading.Lock()

    def add(self, size: int) -> None:
        """Add a checkpoint that was read."""
        with self._lock:
            self.read += size
            self._progress("importing", min(self.read, self._total), self._total)


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """A weights file that was written.

    Args:
        file: Its name.
        size: Its bytes.
        sha256: Its digest.
        weights_id: Digest of all weights.
        backbone_id: Digest of all weights but the head's.
        weight_norm: L2 norm of all weights; NaN or infinite where a weight is.
        distance_from_start: L2 distance from the weights before the first step; None without those.
        source_sha256: Digest of the checkpoint.
    """

    file: str
    size: int
    sha256: str
    weights_id: str
    backbone_id: str
    weight_norm: float
    distance_from_start: float | None
    source_sha256: str

    @property
    def is_finite(self) -> bool:
        """True if no weight is NaN or infinite."""
        return math.isfinite(self.weight_norm)


class Conversion:
    """Converts the checkpoints of one model and counts their bytes."""

    def __init__(self, planned: PlannedImport, job: Import, count: ByteCount):
        self.planned, self.job, self._count = planned, job, count
        self.folder = job.root / WORK / str(planned.id).replace("/", ".")
        self.folder.mkdir()
        self.done: dict[int, Converted] = {}
        self._start = self._load_start()

    def convert(self, epoch: int, name: str) -> Converted | None:
        """Write an epoch's weights, or note that its checkpoint is damaged and return None.

        Raises:
            StoppedError: The import is to end.
        """
        if epoch in self.done:
            return self.done[epoch]
        if self._count.stop.is_set():
            raise StoppedError
        path = self.planned.checkpoints[epoch]
        try:
            check_sums(path)
            digest = file_sha256(path)
            self.done[epoch] = _write_weights(self.folder / name, self._load(path), start=self._start, source=digest)
        except (WeightsError, ValueError) as error:
            self.note(f"epoch {epoch} is not taken: {str(error).rstrip('.')}")
        self._count.add(path.stat().st_size)
        return self.done.get(epoch)

    def forget(self, epoch: int) -> None:
        """Delete an epoch's weights."""
        (self.folder / self.done.pop(epoch).file).unlink()

    def note(self, text: str) -> None:
        """Add a note on the model to the report."""
        self.job.report.note(self.planned.folder, text)

    def _load(self, path: Path) -> dict[str, Tensor]:
        model = self.planned.model
        return load_checkpoint(path, self.job.model_types[model.settings.model_type], outputs=model.outputs)

    def _load_start(self) -> dict[str, Tensor] | None:
        """Load the weights before the first step; None where they are missing, NaN or infinite."""
        if 0 in self.planned.checkpoints:
            with contextlib.suppress(WeightsError):
                weights = self._load(self.planned.checkpoints[0])
                if all(bool(tensor.isfinite().all()) for tensor in weights.values()):
                    return weights
        return None


def _write_weights(
    path: Path, weights: Mapping[str, Tensor], *, start: Mapping[str, Tensor] | None, source: str
) -> Converted:
    """Write a safetensors file without syncing it.

    Args:
        path: The file.
        weights: On-disk names to contiguous float32 tensors on the CPU.
        start: The weights before the first step, or None.
        source: Digest of the checkpoint.
    """
    content = save(dict(weights), {"format": "pt"})
    path.write_bytes(content)
    names = sorted(weights)
    weights_id, backbone_id = content_ids(
        {name: ("F32", tuple(tensor.shape), tensor.numpy().data.cast("B")) for name, tensor in weights.items()},
        is_head=is_head,
    )
    return Converted(
        file=path.name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        weights_id=weights_id,
        backbone_id=backbone_id,
        weight_norm=_norm(weights[name] for name in names),
        distance_from_start=None if start is None else _norm(weights[name] - start[name] for name in names),
        source_sha256=source,
    )


def _norm(tensors: Iterable[Tensor]) -> float:
    return sum(float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2 for tensor in tensors) ** 0.5
