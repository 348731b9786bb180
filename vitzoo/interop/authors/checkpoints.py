"""Load checkpoints of the authors' release without running code in them, and check names, shapes and checksums.

A file is a torch pickle of a state dict under timm's names behind ``vit.``; queries, keys and values are one tensor.
It is opened by `torch.load` with ``weights_only=True`` alone, which builds tensors and nothing else. It is
memory-mapped: nothing is read before a tensor is used.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441, ``models/vit_s.py`` and ``experiment_runner/def_nn_experiment.py``.
"""

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitzoo.architectures import describe_mismatch, is_head
from vitzoo.errors import VitZooError, WeightsError, printable
from vitzoo.interop.authors.facts import INITIAL_BIAS, Sizes
from vitzoo.interop.timm_names import from_timm_state

_PREFIX = "vit."
# Errors of torch and zipfile for a damaged file.
_DAMAGE = (RuntimeError, OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, EOFError)
_BAD_ARCHIVE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, ValueError, EOFError)


def load_raw(path: Path) -> dict[str, Tensor]:
    """Load a checkpoint's state dict under timm's names, as memory-mapped tensors.

    Raises:
        WeightsError: The file is damaged, asks for more than tensors, or holds something else.
    """
    state = _unpickle(path)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise _refused(path, f"holds a {type(state).__name__}", expected="a state dict")
    raw = {}
    for name, tensor in state.items():
        shown_name = f'"{printable(name[:100])}"'
        if not name.startswith(_PREFIX):
            raise _refused(path, f"holds {shown_name}", expected=f'names such as "{_PREFIX}cls_token"')
        if not isinstance(tensor, Tensor):
            raise _refused(path, f"holds {shown_name} as {type(tensor).__name__}", expected="float32")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device.type}"
            raise _refused(path, f"holds {shown_name} as {kind}", expected="float32")
        raw[name.removeprefix(_PREFIX)] = tensor.detach()
    return raw


def _unpickle(path: Path) -> Any:
    is_archive = zipfile.is_zipfile(path)
    if is_archive:
        try:
            parts = _archive_parts(path)
        except _BAD_ARCHIVE as error:
            raise _refused(path, f"is a damaged archive: {_brief(error)}") from None
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):  # it cannot be memory-mapped
            raise _refused(path, "is compressed", expected="a file of torch.save, which compresses nothing")
    else:
        with open(path, "rb") as file:
            if file.read(2) != b"\x80\x02":  # the first bytes before torch 1.6
                raise _refused(path, "is not a file of torch.save, or is cut, and was not opened")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        reason = _brief(error).partition("(1)")[0].strip()
        raise _refused(path, f"is not a pickle of tensors alone, and nothing in it was run: {reason}") from None
    except _DAMAGE as error:
        raise _refused(path, f"cannot be read: {_brief(error)}") from None


def load_checkpoint(path: Path, sizes: Sizes, *, outputs: int | None) -> dict[str, Tensor]:
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
    """Raise a WeightsError where bytes differ from torch's checksums; files from before torch 1.6 have none."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except _BAD_ARCHIVE as error:
        raise _refused(path, f"is a damaged archive: {_brief(error)}") from None
    if damaged is not None:
        raise _refused(path, f"is damaged: {printable(damaged)} has another checksum than was written with it")


def have_equal_backbones(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two models have equal weights except for their heads."""
    names = sorted((name for name in one if not is_head(name)), key=lambda name: one[name].numel())
    return all(name in other and torch.equal(one[name], other[name]) for name in names)  # small ones first


def have_equal_weights(path: Path, other: Path) -> bool:
    """Return whether two checkpoints hold equal weights; False where one cannot be read."""
    try:
        one, two = load_raw(path), load_raw(other)
    except WeightsError:
        return False
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def content_mark(path: Path) -> tuple[tuple[str, int, int], ...] | None:
    """Return name, size and CRC-32 of each tensor in an archive, equal for equal weights; None for another file."""
    try:
        parts = _archive_parts(path)
    except _BAD_ARCHIVE:
        return None
    names = [part.filename.partition("/")[2] for part in parts]
    return tuple(
        (name, part.file_size, part.CRC) for name, part in zip(names, parts, strict=True) if name.startswith("data/")
    )


def _archive_parts(path: Path) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def _brief(error: Exception) -> str:
    return printable(str(error).partition("\n")[0][:200])


def _refused(path: Path, what: str, *, expected: str | None = None) -> WeightsError:
    return WeightsError(f"{printable(path.parent.name)}/{path.name} {what}", expected=expected, path=path)
