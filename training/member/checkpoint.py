"""A member's weights as the bytes of a file, and the state that its training resumes from.

The resume state is one safetensors file, replaced after each epoch: the optimizer's tensors, under the metadata key
``state`` the JSON of what was done, and under ``sha256`` the digest of both. Small files are written without waiting
for the disk: after a power cut that digest, or that of a weights file it names, may not hold; then the member starts
anew. Large ones, whose epochs take long, are synced.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from vitzoo.architectures import disk_name, is_head, memory_name
from vitzoo.errors import RecordError
from vitzoo.records import EpochRecord, WeightsRecord
from vitzoo.records.json_files import json_line, parse_record, partial_path
from vitzoo.records.layout import weights_name
from vitzoo.tensors.header import content_ids, file_sha256

_log = logging.getLogger(__name__)
_LARGE = 4 * 2**20  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeState:
    """What was done of a member's training.

    Args:
        identity: All that decides the member's bits; another one never resumes from this.
        metrics: The record of each finished epoch.
        timings: The line of timing.jsonl of each.
        weights: The record of each weights file written.
    """

    identity: dict[str, Any]
    metrics: tuple[EpochRecord, ...]
    timings: tuple[dict[str, Any], ...]
    weights: tuple[WeightsRecord, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedWeights:
    """Weights as a file would hold them.

    Args:
        content: The safetensors file.
        weights_id: Digest of all weights.
        backbone_id: Digest of all but the head's.
    """

    content: bytes
    weights_id: str
    backbone_id: str


def encode_weights(state: Mapping[str, Tensor]) -> EncodedWeights:
    """A model's state dict under its on-disk names, as the bytes of a safetensors file and its content ids."""
    tensors = {disk_name(name): tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    weights_id, backbone_id = content_ids(
        {name: ("F32", tuple(tensor.shape), tensor.numpy().data.cast("B")) for name, tensor in tensors.items()},
        is_head=is_head,
    )
    return EncodedWeights(
        content=save(tensors, metadata={"format": "pt"}), weights_id=weights_id, backbone_id=backbone_id
    )


def write_weights(folder: Path, encoded: EncodedWeights, *, epoch: int) -> WeightsRecord:
    """Write an epoch's weights file, whole or not at all.

    Large files are synced one by one, beside the training: all of a member's at its end would take seconds.
    """
    _replace(folder / weights_name(epoch), encoded.content, sync=len(encoded.content) > _LARGE)
    return WeightsRecord(epoch=epoch, size=len(encoded.content), sha256=hashlib.sha256(encoded.content).hexdigest())


def load_weights(model: nn.Module, path: Path) -> None:
    """Give a model the weights of a file that `write_weights` wrote."""
    model.load_state_dict({memory_name(name): tensor for name, tensor in load_file(path).items()})


def save_resume_state(path: Path, state: ResumeState, tensors: Mapping[str, Tensor]) -> None:
    """Replace a member's resume state by this epoch's.

    Args:
        path: Where it lies.
        state: What was done.
        tensors: `optimizer_tensors`, on the CPU.
    """
    tensors = dict(tensors)
    text = json_line(state)
    content = save(tensors, metadata={"state": text, "sha256": _resume_sha256(text, tensors)})
    _replace(path, content, sync=len(content) > _LARGE)


def load_resume_state(
    path: Path, folder: Path, *, identity: dict[str, Any]
) -> tuple[ResumeState, dict[str, Tensor]] | None:
    """What a member's training goes on from.

    Args:
        path: Its resume state.
        folder: Where its weights files were written.
        identity: What it must be.

    Returns:
        The state and the optimizer's tensors; None where there is none that is whole, so that training starts anew;
        where it is whole but of another identity, a warning says what differs.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a safetensors file is no dict)
        text = metadata.get("state", "")
        if metadata.get("sha256") != _resume_sha256(text, tensors):
            _log.warning("%s is damaged: its member is begun anew.", path)
            return None
        state = parse_record(ResumeState, json.loads(text), str(path), path)
    except FileNotFoundError:
        return None
    except (SafetensorError, RecordError) as error:  # the last: another version of this code wrote it
        _log.warning("%s is damaged: its member is begun anew: %s", path, error)
        return None
    files = [(folder / weights_name(record.epoch), record.sha256) for record in state.weights]
    if not all(file.is_file() and file_sha256(file) == sha256 for file, sha256 in files):
        _log.warning("%s names weights that are not there or damaged: its member is begun anew.", path)
        return None
    if state.identity != identity:
        differing = [
            f"{key} was {state.identity.get(key)}, now {identity.get(key)}"
            for key in sorted({*state.identity, *identity})
            if state.identity.get(key) != identity.get(key)
        ]
        _log.warning(
            "%s: %d finished epochs are begun anew, for they would not be the same bits: %s.",
            path.parent.name.partition("@")[0],  # the work of the member
            len(state.metrics) - 1,
            "; ".join(differing),
        )
        return None
    return state, tensors


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimizer of the same parameters the state that `save_resume_state` wrote."""
    by_parameter: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        by_parameter.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": by_parameter})


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as `restore_optimizer` takes it, where it lies: by a parameter's number and a key."""
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
        with open(partial, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
