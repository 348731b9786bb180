"""Encode a member's weights as files, save the state that its training resumes from, and write both in a thread.

The resume state is one safetensors file, replaced after each epoch. It has the optimizer's tensors, those of a pretext
(`training.pretext`), the float32 weights if saved epochs are bfloat16, the JSON of the
finished epochs under the metadata key ``state``, and the digest of both under ``sha256``. Small files are written
without waiting for the disk. After a power cut their digest may differ, and the member restarts. Large files, whose
epochs take long, are synced.

An epoch's files are written while the next one trains. Jobs run one after another and at most one waits, so no more
than two checkpoints are in memory.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from vitzoo.architectures import disk_name, is_head, memory_name
from vitzoo.errors import RecordError
from vitzoo.records import EpochRecord, TimingRecord, WeightsRecord
from vitzoo.records.files import file_sha256, partial_path
from vitzoo.records.json_files import json_line, parse_record
from vitzoo.records.layout import weights_name
from vitzoo.tensors.header import content_ids

_log = logging.getLogger(__name__)
_LARGE = 4 * 2**20  # bytes
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeState:
    """The finished epochs of a member's training.

    Args:
        identity: Every input that decides the member's bits. Another identity never resumes from this state.
        metrics: Record of each finished epoch.
        timings: Line of timing.jsonl of each finished epoch.
        weights: Record of each saved weights file.
    """

    identity: dict[str, Any]
    metrics: list[EpochRecord] = field(default_factory=list)
    timings: list[TimingRecord] = field(default_factory=list)
    weights: list[WeightsRecord] = field(default_factory=list)


class EncodedWeights(NamedTuple):
    """Bytes of a safetensors file, the digests of all its weights and of its backbone's, and their type."""

    content: bytes
    weights_id: str
    backbone_id: str
    dtype: torch.dtype


def encode_weights(state: Mapping[str, Tensor]) -> EncodedWeights:
    """Encode a model's state dict under its on-disk names as a safetensors file, with its content ids.

    The tensors are of one dtype, float32 or bfloat16.
    """
    tensors = {disk_name(name): tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    dtype = next(iter(tensors.values())).dtype
    weights_id, backbone_id = content_ids(
        {
            name: (_DTYPES[dtype], tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().data)
            for name, tensor in tensors.items()
        },
        is_head=is_head,
    )
    return EncodedWeights(save(tensors, metadata={"format": "pt"}), weights_id, backbone_id, dtype)


def write_weights(folder: Path, encoded: EncodedWeights, *, epoch: int) -> WeightsRecord:
    """Write an epoch's weights file, whole or not at all.

    Large files are synced one by one during the training. Syncing all files of a member at its end takes seconds.
    """
    _replace(folder / weights_name(epoch), encoded.content, sync=len(encoded.content) > _LARGE)
    return WeightsRecord(
        epoch=epoch,
        size=len(encoded.content),
        sha256=hashlib.sha256(encoded.content).hexdigest(),
        dtype=str(encoded.dtype).removeprefix("torch."),  # pyright: ignore[reportArgumentType] (one of the two)
    )


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the weights of a file that `write_weights` wrote into a model."""
    model.load_state_dict({memory_name(name): tensor for name, tensor in load_file(path).items()})


def save_resume_state(path: Path, state: ResumeState, tensors: Mapping[str, Tensor]) -> None:
    """Replace a member's resume state by these finished epochs, and the optimizer's tensors on the CPU."""
    tensors = dict(tensors)
    text = json_line(state)
    content = save(tensors, metadata={"state": text, "sha256": _resume_sha256(text, tensors)})
    _replace(path, content, sync=len(content) > _LARGE)


def load_resume_state(
    path: Path, folder: Path, *, identity: dict[str, Any]
) -> tuple[ResumeState, dict[str, Tensor]] | None:
    """Load the state that a member's training resumes from.

    Args:
        path: File of the resume state.
        folder: Folder of its weights files.
        identity: Identity that the state must have.

    Returns:
        The state and the optimizer's tensors. None without a whole state of this identity, so that training restarts.
        A warning names the damage or the difference.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a safetensors file is not a dict)
        text = metadata.get("state", "")
        if metadata.get("sha256") != _resume_sha256(text, tensors):
            _log.warning("%s is damaged: its member restarts.", path)
            return None
        state = parse_record(ResumeState, json.loads(text), str(path), path)
    except FileNotFoundError:
        return None
    except (SafetensorError, RecordError) as error:  # RecordError: another version of this code wrote it
        _log.warning("%s is damaged: its member restarts: %s", path, error)
        return None
    files = [(folder / weights_name(record.epoch), record.sha256) for record in state.weights]
    if not all(file.is_file() and file_sha256(file) == sha256 for file, sha256 in files):
        _log.warning("%s names weights that are missing or damaged: its member restarts.", path)
        return None
    if state.identity != identity:
        differing = [
            f"{key} was {state.identity.get(key)}, now {identity.get(key)}"
            for key in sorted({*state.identity, *identity})
            if state.identity.get(key) != identity.get(key)
        ]
        _log.warning(
            "%s: %d finished epochs restart, since they would not have the same bits: %s.",
            path.parent.name.partition("@")[0],  # the work of the member
            len(state.metrics) - 1,
            "; ".join(differing),
        )
        return None
    return state, tensors


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the state that `save_resume_state` wrote into an optimizer of the same parameters."""
    by_parameter: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        by_parameter.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": by_parameter})


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's tensors on their device, by a parameter's number and a key, for `restore_optimizer`."""
    return {
        f"{index}.{key}": value.detach()
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def _resume_sha256(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _replace(path: Path, content: bytes, *, sync: bool) -> None:
    partial = partial_path(path)
    try:
        with open(partial, "xb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class CheckpointThread:
    """A thread that runs one job at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job after the last one has ended, whose error it raises."""
        self.wait()
        self._last = self._pool.submit(job)

    def check(self) -> None:
        """Raise the error of the last job, if it has ended."""
        if self._last is not None and self._last.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the last job, and raise its error."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Stop the thread after its job, also after an error."""
        self._pool.shutdown()


class HostCopy:
    """A copy of tensors in the host's memory.

    On a GPU the copy goes into pinned memory behind the queued work, without waiting.

    Args:
        tensors: Tensors to copy.
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        self._arrived: torch.cuda.Event | None = None
        if not any(tensor.device.type == "cuda" for tensor in tensors.values()):
            self._tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
            return
        self._tensors = {}
        for name, tensor in tensors.items():
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensors[name] = host.copy_(tensor.detach(), non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record()

    @property
    def arrived(self) -> bool:
        """Return whether `wait` would return at once."""
        return self._arrived is None or self._arrived.query()

    def wait(self) -> dict[str, Tensor]:
        """Return the tensors, contiguous and on the CPU, after they arrive. Any thread may call it."""
        if self._arrived is not None and not self._arrived.query():
            self._arrived.synchronize()
        return self._tensors
