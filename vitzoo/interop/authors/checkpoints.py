"""One checkpoint of the authors' release: opened without running what is in it, and held against what it should be.

A file is a torch pickle of a state dict under timm's names behind ``vit.``: queries, keys and values in one tensor.
It is opened by `torch.load` with ``weights_only=True`` alone, which builds tensors and nothing else, and mapped: its
tensors are pages of the file until they are read.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441, ``models/vit_s.py`` and ``experiment_runner/def_nn_experiment.py``.
"""

import pickle
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitzoo.architectures import describe_mismatch, is_head
from vitzoo.architectures.vit import ViTShape
from vitzoo.errors import VitZooError, WeightsError, printable
from vitzoo.interop.timm_names import from_timm_state

_PREFIX = "vit."
# What a damaged file makes torch raise.
_DAMAGE = (RuntimeError, OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, EOFError)
_BIAS = 0.01  # of every linear layer and convolution before the first step


@dataclass(frozen=True, kw_only=True, slots=True)
class Backbone:
    """The sizes behind a ``model::type``.

    Args:
        image_size: Side of the square input, pixels.
        patch_size: Side of a square patch, pixels.
        hidden_size: Width of a token.
        num_hidden_layers: Blocks.
        num_attention_heads: Heads of a block.
        intermediate_size: Width of a block's MLP.
    """

    image_size: int
    patch_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int

    def shape(self, *, outputs: int, head_width: int | None) -> ViTShape:
        """What decides the shapes of the tensors of a model with this backbone."""
        return ViTShape(
            image_size=self.image_size,
            patch_size=self.patch_size,
            num_channels=3,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            intermediate_size=self.intermediate_size,
            qkv_bias=True,
            num_labels=outputs,
            head_width=head_width,
        )


MODEL_TYPES = {
    "vit_s_16": Backbone(  # timm's vit_small_patch16_224
        image_size=224,
        patch_size=16,
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
    )
}


def load_raw(path: Path) -> dict[str, Tensor]:
    """A checkpoint's state dict as it stands, under timm's names.

    Args:
        path: The file.

    Returns:
        Names to tensors that are pages of the file, but for one in the form of before torch 1.6, which is read.

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
                found += " without numbers"
            raise _refused(path, f'holds "{printable(name[:100])}" as {found}; expected float32')
        raw[name.removeprefix(_PREFIX)] = tensor.detach()
    return raw


def _unpickle(path: Path) -> Any:
    is_archive = zipfile.is_zipfile(path)
    if is_archive:
        _check_stored(path)
    elif not _is_old_form(path):
        raise _refused(path, "is no file of torch.save, or is cut, and was not opened")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0].partition("(1)")[0].strip()
        raise _refused(path, f"is no pickle of tensors alone, and nothing in it was run: {reason[:200]}") from None
    except _DAMAGE as error:
        raise _refused(path, f"cannot be read: {printable(str(error).partition(chr(10))[0][:200])}") from None


def load_checkpoint(path: Path, backbone: Backbone, *, outputs: int) -> dict[str, Tensor]:
    """A checkpoint's weights under the names and shapes of a member's.

    Args:
        path: The file.
        backbone: The sizes that it should have.
        outputs: Width of the head's output.

    Returns:
        On-disk names to tensors that are pages of the file.

    Raises:
        WeightsError: As `load_raw`, or names or shapes are others.
    """
    raw = load_raw(path)
    try:
        weights = from_timm_state(raw)
    except VitZooError as error:
        raise _refused(path, f"is no checkpoint of the zoo: {error}") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    misfit = describe_mismatch(
        backbone.shape(outputs=outputs, head_width=head_width(weights)).tensor_shapes(),
        shapes,
        says="its config's model::type and model::o_dim say",
    )
    if misfit is not None:
        raise _refused(path, f"holds other tensors than expected: {misfit}")
    return {name: tensor if tensor.is_contiguous() else tensor.contiguous() for name, tensor in weights.items()}


def head_width(weights: dict[str, Tensor]) -> int | None:
    """Hidden width of an MLP head; None for a linear head."""
    hidden = weights.get("classifier.fc1.weight")
    return None if hidden is None else int(hidden.shape[0])


def is_untrained(weights: dict[str, Tensor]) -> bool:
    """Whether a linear head, or a parent's whole model, is as their code initialises it: all of its biases are .01."""
    biases = [
        tensor
        for name, tensor in weights.items()
        if name.endswith(".bias") and "layernorm" not in name and not name.startswith("classifier.fc")
    ]
    return all(bool((bias == _BIAS).all()) for bias in biases)


def check_sums(path: Path) -> None:
    """Hold every byte of a checkpoint against the checksums that torch wrote with it; the older form has none.

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
    """Tensors are pages of the file, so nothing in it may be compressed: torch never does that."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _refused(path, f"is a damaged archive: {printable(str(error)[:200])}") from None
    for part in parts:
        if part.compress_type != zipfile.ZIP_STORED:
            raise _refused(path, f"holds {printable(part.filename[:100])} compressed; torch.save compresses nothing")


def _is_old_form(path: Path) -> bool:
    """Whether a file begins as those of before torch 1.6 do: pickles of protocol 2, which cannot be mapped."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x80\x02"


def have_equal_backbones(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two models differ in their heads at most."""
    names = sorted((name for name in one if not is_head(name)), key=lambda name: one[name].numel())
    return all(name in other and torch.equal(one[name], other[name]) for name in names)  # small ones first


def have_equal_weights(path: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same; not, where one cannot be read."""
    try:
        one, two = load_raw(path), load_raw(other)
    except WeightsError:
        return False
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def content_mark(path: Path) -> tuple[tuple[str, int, int], ...] | None:
    """What two files with equal weights have in common, without reading weights; None of an older or damaged file.

    Args:
        path: The file.

    Returns:
        Name, size and CRC-32 of each part of the archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [(part.filename.partition("/")[2], part.file_size, part.CRC) for part in archive.infolist()]
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return None
    return tuple(part for part in parts if part[0].startswith("data/"))


def _refused(path: Path, what: str) -> WeightsError:
    place = f"{path.parent.name}/{path.name}"
    return WeightsError(f"{printable(place)} {what}.", path=path)
