"""Write checkpoints of one model as weights files of a zoo, and resume after a kill.

Files are written to ``.training/import/<id>/member/``. A finished one is noted in ``done.jsonl`` beside that folder and
is not converted again unless its checkpoint changed. Nothing is copied in memory: queries, keys and values are rows of
one memory-mapped tensor.

See `member` for the choice of epochs and the rest of a member.
"""

import contextlib
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from vitzoo.architectures import is_head
from vitzoo.errors import WeightsError
from vitzoo.interop.authors.checkpoints import check_sums, load_checkpoint
from vitzoo.interop.authors.job import Import, work_folder
from vitzoo.interop.authors.plan import PlannedImport
from vitzoo.records.files import file_sha256, partial_path
from vitzoo.tensors.header import combine_digests


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
        self._total, self._done, self._progress, self._lock = total, 0, progress, threading.Lock()

    def add(self, size: int, *, read: bool) -> None:
        """Add a checkpoint that is done, and whether this import read it."""
        with self._lock:
            self._done, self.read = self._done + size, self.read + size * read
            self._progress("importing", min(self._done, self._total), self._total)


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """A weights file that was written: a line of ``done.jsonl``.

    Args:
        epoch: Finished epochs.
        file: Its name.
        size: Its bytes.
        sha256: Its digest.
        weights_id: Digest of all weights.
        backbone_id: Digest of all weights but the head's.
        weight_norm: L2 norm of all weights; NaN or infinite where a weight is.
        distance_from_start: L2 distance from the weights before the first step; None without those.
        source_size: Bytes of the checkpoint.
        source_mtime_ns: Time of the checkpoint's last change.
        source_sha256: Digest of the checkpoint.
        start_mtime_ns: Time of the last change of the checkpoint that the distance was measured from.
    """

    epoch: int
    file: str
    size: int
    sha256: str
    weights_id: str
    backbone_id: str
    weight_norm: float
    distance_from_start: float | None
    source_size: int
    source_mtime_ns: int
    source_sha256: str
    start_mtime_ns: int | None

    @property
    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return math.isfinite(self.weight_norm)


class Conversion:
    """Converts the checkpoints of one model.

    Args:
        planned: The model.
        job: The import.
        count: Bytes of all models.
    """

    def __init__(self, planned: PlannedImport, job: Import, count: ByteCount):
        self.planned, self.job, self._count = planned, job, count
        self.work = work_folder(job.root, planned.id)
        self.folder = self.work / "member"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.done: dict[int, Converted] = {}
        self._resume()
        self._start = self._load_start()

    def convert(self, epoch: int, name: str) -> Converted | None:
        """Write an epoch's weights; None, with a note in the report, where its checkpoint is damaged.

        Raises:
            StoppedError: The import is to end.
        """
        if epoch in self.done:
            return self.done[epoch]
        if self._count.stop.is_set():
            raise StoppedError
        path = self.planned.checkpoints[epoch]
        source = path.stat()
        try:
            check_sums(path)
            digest = file_sha256(path)
            weights = self._load(path)
        except (WeightsError, ValueError) as error:
            self.note(f"epoch {epoch} is not taken: {str(error).rstrip('.')}")
            self._count.add(source.st_size, read=True)
            return None
        converted = Converted(
            epoch=epoch,
            file=name,
            **write_weights(self.folder / name, weights, start=self._start),
            source_size=source.st_size,
            source_mtime_ns=source.st_mtime_ns,
            source_sha256=digest,
            start_mtime_ns=self._start_mtime_ns(),
        )
        self.done[epoch] = converted
        with open(self.work / "done.jsonl", "ab") as file:
            file.write(msgspec.json.encode(converted) + b"\n")
        self._count.add(source.st_size, read=True)
        return converted

    def forget(self, epoch: int) -> None:
        """Delete an epoch's weights."""
        (self.folder / self.done.pop(epoch).file).unlink(missing_ok=True)

    def note(self, text: str) -> None:
        """Add a note on the model to the report."""
        self.job.report.note(self.planned.folder, text)

    def _load(self, path: Path) -> dict[str, Tensor]:
        settings = self.planned.model.settings
        return load_checkpoint(path, self.job.model_types[settings.model_type], outputs=settings.outputs)

    def _load_start(self) -> dict[str, Tensor] | None:
        """Load the weights before the first step; None where they are missing, NaN or infinite."""
        path = self.planned.checkpoints.get(0)
        if path is not None:
            with contextlib.suppress(WeightsError):
                weights = self._load(path)
                if all(bool(tensor.isfinite().all()) for tensor in weights.values()):
                    return weights
        return None

    def _start_mtime_ns(self) -> int | None:
        path = self.planned.checkpoints.get(0)
        return None if path is None else path.stat().st_mtime_ns

    def _resume(self) -> None:
        """Take whole files of unchanged checkpoints from an import that ended, and delete the others."""
        with contextlib.suppress(FileNotFoundError):
            for line in (self.work / "done.jsonl").read_bytes().splitlines():
                try:
                    done = msgspec.json.decode(line, type=Converted)
                    source = self.planned.checkpoints[done.epoch].stat()
                    same = (source.st_size, source.st_mtime_ns) == (done.source_size, done.source_mtime_ns)
                    same = same and done.start_mtime_ns == self._start_mtime_ns()
                    if same and file_sha256(self.folder / done.file) == done.sha256:  # it was not synced
                        self.done[done.epoch] = done
                        self._count.add(done.source_size, read=False)
                except (msgspec.MsgspecError, ValueError, KeyError, OSError):  # a line that was cut, a missing file
                    continue
        names = {done.file for done in self.done.values()}
        for path in self.folder.iterdir():
            if path.name not in names:
                path.unlink()


def write_weights(path: Path, weights: Mapping[str, Tensor], *, start: Mapping[str, Tensor] | None) -> dict:
    """Write a safetensors file, byte for byte that of `safetensors.torch.save`, and hash it. It is not synced.

    Args:
        path: The file.
        weights: On-disk names to contiguous float32 tensors on the CPU.
        start: The weights before the first step; None where there are none.

    Returns:
        Fields of `Converted`: size, digests, norm and distance.
    """
    names = sorted(weights)  # the order of safetensors among tensors of one type
    head = _header({name: weights[name] for name in names})
    digest, digests = hashlib.sha256(head), {}
    squares, distances = 0.0, 0.0
    partial = partial_path(path)
    try:
        with open(partial, "xb", buffering=0) as file:
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
    return {
        "size": size,
        "sha256": digest.hexdigest(),
        "weights_id": weights_id,
        "backbone_id": backbone_id,
        "weight_norm": squares**0.5,
        "distance_from_start": None if start is None else distances**0.5,
    }


def _header(weights: Mapping[str, Tensor]) -> bytes:
    """Return the first bytes of a safetensors file: https://github.com/huggingface/safetensors#format."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in weights.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
