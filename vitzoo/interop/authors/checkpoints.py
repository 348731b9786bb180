"""Load checkpoints of the authors' release without running code in them, and check names, shapes and checksums.

A file is a torch pickle of a state dict under timm's names behind ``vit.``; queries, keys and values are one tensor.
It is memory-mapped: no value is read before a tensor is used, and shapes are checked before that. See `archive` for
the file.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441, ``models/vit_s.py`` and ``experiment_runner/def_nn_experiment.py``.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitzoo.architectures import describe_mismatch, is_head
from vitzoo.architectures.vit import ViTSizes
from vitzoo.errors import VitZooError, WeightsError, printable
from vitzoo.interop.authors.archive import DAMAGE, load_tensors, open_archive
from vitzoo.interop.authors.facts import INITIAL_BIAS
from vitzoo.interop.timm_names import from_timm_state

_PREFIX = "vit."
_LONGEST_NAME = 100
_MAX_OTHER = 2**20  # bytes of a file beside those of its tensors


def load_raw(path: Path) -> dict[str, Tensor]:
    """Load a checkpoint's state dict under timm's names, as memory-mapped tensors.

    Raises:
        WeightsError: The file is damaged, asks for more than tensors, or holds something else.
    """
    state = _load(path)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise _refused(path, f"holds a {type(state).__name__}", expected="a state dict")
    raw = {}
    for name, tensor in state.items():
        shown_name = f'"{printable(name[:_LONGEST_NAME])}"'
        if not name.startswith(_PREFIX) or len(name) > _LONGEST_NAME:
            raise _refused(path, f"holds {shown_name}", expected=f'names such as "{_PREFIX}cls_token"')
        if not isinstance(tensor, Tensor):
            raise _refused(path, f"holds {shown_name} as {type(tensor).__name__}", expected="float32")
        if tensor.dtype != torch.float32:
            raise _refused(path, f"holds {shown_name} as {tensor.dtype}", expected="float32")
        raw[name.removeprefix(_PREFIX)] = tensor
    size, needed = path.stat().st_size, 4 * sum(tensor.numel() for tensor in raw.values())
    if not needed <= size <= needed + _MAX_OTHER:
        raise _refused(path, f"has {size} bytes", expected=f"about the {needed} bytes of its tensors")
    return raw


def _load(path: Path) -> Any:
    try:
        return load_tensors(path)
    except pickle.UnpicklingError as error:
        what = f"is not a pickle of tensors alone, and nothing in it was run: it holds {_brief(error)}"
        raise _refused(path, what, expected="float32 tensors") from None
    except zipfile.BadZipFile as error:
        what = f"is not a file of torch.save, or is damaged, and was not opened: {_brief(error)}"
        raise _refused(path, what, expected="an archive, as torch writes since 1.6") from None
    except DAMAGE as error:
        raise _refused(path, f"cannot be read: {_brief(error)}") from None


def load_checkpoint(path: Path, sizes: ViTSizes, *, outputs: int | None) -> dict[str, Tensor]:
    """Load a checkpoint's weights under their on-disk names, memory-mapped, and check their shapes.

    Args:
        path: The file.
        sizes: Expected sizes.
        outputs: Expected width of the head's output; None for any.

    Raises:
        WeightsError: As `load_raw`, or names or shapes are others.
    """
    raw = load_raw(path)
    try:
        weights = from_timm_state(raw)
    except VitZooError as error:
        raise _refused(path, f"is not a checkpoint of the zoo: {error}") from None
    found_outputs, head_width = head_shape(weights)
    misfit = describe_mismatch(
        sizes.shape(outputs=outputs or found_outputs, head_width=head_width).tensor_shapes(),
        {name: tuple(tensor.shape) for name, tensor in weights.items()},
        says="its config's model::type and model::o_dim say",
    )
    if misfit is not None:
        raise _refused(path, f"holds other tensors than expected: {misfit}")
    return {name: tensor if tensor.is_contiguous() else tensor.contiguous() for name, tensor in weights.items()}


def head_shape(weights: Mapping[str, Tensor]) -> tuple[int, int | None]:
    """Return the width of a head's output, and the hidden width of an MLP head or None for a linear one."""
    if "classifier.fc1.weight" in weights:
        return len(weights["classifier.fc2.weight"]), len(weights["classifier.fc1.weight"])
    return len(weights["classifier.weight"]), None


def is_untrained(weights: Mapping[str, Tensor]) -> bool:
    """Return whether all biases of a linear head, or of a parent, are .01, as before the first step."""
    biases = [
        tensor
        for name, tensor in weights.items()
        if name.endswith(".bias") and "layernorm" not in name and not name.startswith("classifier.fc")
    ]
    return all(bool((bias == INITIAL_BIAS).all()) for bias in biases)


def check_sums(path: Path) -> None:
    """Raise a WeightsError where bytes differ from torch's checksums."""
    try:
        with open_archive(path) as archive:
            damaged = archive.testzip()
    except DAMAGE as error:
        raise _refused(path, f"is a damaged archive: {_brief(error)}") from None
    if damaged is not None:
        raise _refused(path, f"is damaged: {printable(damaged)} has another checksum than was written with it")


def have_equal_backbones(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two models have equal weights except for their heads."""
    names = sorted((name for name in one if not is_head(name)), key=lambda name: one[name].numel())
    return all(name in other and torch.equal(one[name], other[name]) for name in names)  # small ones first


def content_mark(path: Path) -> tuple[tuple[str, int, int], ...] | None:
    """Return name, size and CRC-32 of each tensor in an archive, equal for equal weights; None for another file."""
    try:
        with open_archive(path) as archive:
            parts = archive.infolist()
    except DAMAGE:
        return None
    names = [part.filename.partition("/")[2] for part in parts]
    return tuple(
        (name, part.file_size, part.CRC) for name, part in zip(names, parts, strict=True) if name.startswith("data/")
    )


def _brief(error: Exception) -> str:
    return printable(str(error).partition("\n")[0][:200])


def _refused(path: Path, what: str, *, expected: str | None = None) -> WeightsError:
    return WeightsError(f"{printable(path.parent.name)}/{path.name} {what}", expected=expected, path=path)
