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
# Errors of torch for a damaged file.
_DAMAGE = (RuntimeError, OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, EOFError)


def load_raw(path: Path) -> dict[str, Tensor]:
    """Load a checkpoint's state dict under timm's names.

    Args:
        path: The file.

    Returns:
        Names to memory-mapped tensors; a file of before torch 1.6 is read.

    Raises:
        WeightsError: The file is damaged, asks for more than tensors, or holds something else.
    """
    state = _unpickle(path)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise _refused(path, f"holds a {type(state).__name__}; expected a state dict")
    other = next((name for name in state if not name.startswith(_PREFIX)), None)
    if other is not None:
        raise _refused(path, f'holds "{printable(other[:100])}"; expected names such as "{_PREFIX}cls_token"')
    raw = {}
    for name, tensor in state.items():
        plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.dtype != torch.float32:
            found = type(tensor).__name__ if not isinstance(tensor, Tensor) else str(tensor.dtype)
            if isinstance(tensor, Tensor) and tensor.is_meta:
                found += " without values"
            raise _refused(path, f'holds "{printable(name[:100])}" as {found}; expected float32')
        raw[name.removeprefix(_PREFIX)] = tensor.detach()
    return raw


def _unpickle(path: Path) -> Any:
    is_archive = zipfile.is_zipfile(path)
    if is_archive:
        _check_stored(path)
    elif not _is_old_form(path):
        raise _refused(path, "is not a file of torch.save, or is cut, and was not opened")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0].partition("(1)")[0].strip()
        raise _refused(path, f"is not a pickle of tensors alone, and nothing in it was run: {reason[:200]}") from None
    except _DAMAGE as error:
        raise _refused(path, f"cannot be read: {printable(str(error).partition(chr(10))[0][:200])}") from None


def load_checkpoint(path: Path, sizes: Sizes, *, outputs: int) -> dict[str, Tensor]:
    """Load a checkpoint's weights under a member's names, and check their shapes.

    Args:
        path: The file.
        sizes: Expected sizes.
        outputs: Width of the head's output.

    Returns:
        On-disk names to memory-mapped tensors.

    Raises:
        WeightsError: As `load_raw`, or names or shapes are others.
    """
    raw = load_raw(path)
    try:
        weights = from_timm_state(raw)
    except VitZooError as error:
        raise _refused(path, f"is not a checkpoint of the zoo: {error}") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    misfit = describe_mismatch(
        sizes.shape(outputs=outputs, head_width=head_width(weights)).tensor_shapes(),
        shapes,
        says="its config's model::type and model::o_dim say",
    )
    if misfit is not None:
        raise _refused(path, f"holds other tensors than expected: {misfit}")
    return {name: tensor if tensor.is_contiguous() else tensor.contiguous() for name, tensor in weights.items()}


def head_width(weights: Mapping[str, Tensor]) -> int | None:
    """Return the hidden width of an MLP head; None for a linear head."""
    hidden = weights.get("classifier.fc1.weight")
    return None if hidden is None else int(hidden.shape[0])


def is_untrained(weights: Mapping[str, Tensor]) -> bool:
    """Return whether all biases of a linear head, or of a parent, are .01, as before the first step."""
    biases = [
        tensor
        for name, tensor in weights.items()
        if name.endswith(".bias") and "layernorm" not in name and not name.startswith("classifier.fc")
    ]
    return all(bool((bias == INITIAL_BIAS).all()) for bias in biases)


def check_sums(path: Path) -> None:
    """Compare every byte of a checkpoint with the checksums that torch wrote; files of before torch 1.6 have none.

    Raises:
        WeightsError: One differs.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise _refused(path, f"is a damaged archive: {printable(str(error)[:200])}") from None
    if damaged is not None:
        raise _refused(path, f"is damaged: {printable(damaged)} has another checksum than was written with it")


def _check_stored(path: Path) -> None:
    """Refuse a compressed archive, which cannot be memory-mapped. torch never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _refused(path, f"is a damaged archive: {printable(str(error)[:200])}") from None
    for part in parts:
        if part.compress_type != zipfile.ZIP_STORED:
            raise _refused(path, f"holds {printable(part.filename[:100])} compressed; torch.save compresses nothing")


def _is_old_form(path: Path) -> bool:
    """Return whether a file begins as those of before torch 1.6: with a pickle of protocol 2."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x80\x02"


def have_equal_backbones(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two models have equal weights but for their heads."""
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
        with zipfile.ZipFile(path) as archive:
            parts = [(part.filename.partition("/")[2], part.file_size, part.CRC) for part in archive.infolist()]
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return None
    return tuple(part for part in parts if part[0].startswith("data/"))


def _refused(path: Path, what: str) -> WeightsError:
    place = f"{path.parent.name}/{path.name}"
    return WeightsError(f"{printable(place)} {what}.", path=path)
