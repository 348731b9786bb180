"""Load the tensors of a checkpoint, memory-mapped: safetensors, pickles of torch by ``weights_only=True``, and shards.

A training checkpoint has its state dict under a key, such as ``state_dict`` (Lightning, timm) or ``model`` (MAE, DeiT).
Wrappers put prefixes before all names: ``module.`` (DataParallel), ``_orig_mod.`` (torch.compile), ``model.`` (modules
of Lightning). The prefix is the text before the first tensor of a known network. See `layouts` for the names of a zoo.
"""

import argparse
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitzoo.errors import WeightsError, printable, shown

_INSIDE = ("state_dict", "model_state_dict", "model", "module", "net", "network")
_COUNTS = {"epoch": "epoch", "global_step": "step", "step": "step", "iteration": "step"}
# Tensors that every network of a kind has, with a second one that no other kind has.
_ANCHORS = (
    ("vit.embeddings.cls_token", "vit.embeddings.patch_embeddings.projection.weight"),
    ("bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight"),
    ("cls_token", "patch_embed.proj.weight"),
)
_INNER = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")  # of torch, at any place of a name
_HEADLESS = ("embeddings.cls_token", "embeddings.word_embeddings.weight")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_FEW = 3


@dataclass(kw_only=True, slots=True)
class State:
    """Tensors of a checkpoint under the names of their network, without a wrapper's prefix.

    Args:
        tensors: Tensors by name.
        counts: ``epoch`` and ``step`` that the checkpoint itself says.
        notes: What was taken off or left out.
    """

    tensors: dict[str, Tensor]
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@contextmanager
def allow_arguments() -> Iterator[None]:
    """Let pickles have an ``argparse.Namespace``, which timm's training script saves. It is plain data."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        yield


def load_state(paths: Sequence[Path]) -> State:
    """Load a checkpoint of one file, or of several shards.

    Raises:
        WeightsError: A file is damaged, is of an unknown type or wants to run code, or no known network is in it.
    """
    tensors: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    notes: list[str] = []
    for path in paths:
        found = _load_file(path)
        if path.suffix != ".safetensors":
            found = _unwrap(found, counts, notes, path)
        tensors |= found
    return State(tensors=_without_prefix(tensors, notes, paths[0]), counts=counts, notes=notes)


def _load_file(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise _refused(path, f"is a damaged safetensors file: {_brief(error)}") from None
    try:
        is_archive = zipfile.is_zipfile(path)  # pickles of before torch 1.6 cannot be memory-mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        name = _GLOBAL.search(str(error))
        if name is None:
            raise _refused(path, f"is not a pickle of tensors: {_brief(error)}") from None
        raise _refused(
            path,
            f"is a pickle that wants {printable(name[1])}, and nothing in it was run",
            expected="tensors, numbers and texts, as torch.load(..., weights_only=True) reads",
            fix="Save its state dict alone: torch.save(model.state_dict(), ...).",
        ) from None
    except (RuntimeError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise _refused(path, f"cannot be read by torch: {_brief(error)}") from None


def _unwrap(content: Any, counts: dict[str, int], notes: list[str], path: Path) -> dict[str, Tensor]:
    """Return the state dict of a pickle, which may be under a key."""
    if not isinstance(content, Mapping):
        raise _refused(path, f"holds a {type(content).__name__}", expected="a state dict, or a dictionary with one")
    if not _is_state(content):
        for key, name in _COUNTS.items():
            value = content.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                counts.setdefault(name, value)
        key = next((key for key in _INSIDE if _is_state(content.get(key))), None)
        if key is None:
            raise _refused(
                path, f"has {', '.join(map(shown, list(content)[:_FEW]))}", expected=f"one of {', '.join(_INSIDE)}"
            )
        others = [str(other) for other, value in content.items() if other != key and _is_state(value)]
        notes.append(f"its weights are under {key}" + (f"; {', '.join(others)} not taken" if others else ""))
        content = content[key]
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _is_state(value: Any) -> bool:
    """Tell whether a value is a state dict: names of tensors."""
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(name, str) for name in value) and any(
        isinstance(tensor, Tensor) and tensor.dim() > 1 for tensor in value.values()
    )


def _without_prefix(tensors: dict[str, Tensor], notes: list[str], path: Path) -> dict[str, Tensor]:
    """Take a wrapper's prefix off all names, and leave out the tensors beside the network."""
    for wrapper in _INNER:
        if any(wrapper in name for name in tensors):
            notes.append(f'its names contain "{wrapper}": taken off')
            tensors = {name.replace(wrapper, ""): tensor for name, tensor in tensors.items()}
    for anchor, second in _ANCHORS:
        for name in tensors:
            prefix = name.removesuffix(anchor)
            if not name.endswith(anchor) or prefix + second not in tensors or (prefix and not prefix.endswith(".")):
                continue
            if prefix == "":
                return tensors
            notes.append(f'its names begin with "{printable(prefix)}": taken off')
            beside = [name for name in tensors if not name.startswith(prefix)]
            if beside:
                few = ", ".join(map(printable, beside[:_FEW])) + (", ..." if len(beside) > _FEW else "")
                notes.append(f"{len(beside)} tensors beside its network are not taken: {few}")
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if any(name.endswith(_HEADLESS) for name in tensors):
        raise _refused(
            path, "holds a backbone without a head", expected="a model with a head", fix="Save the whole model."
        )
    names = ", ".join(printable(name) for name in list(tensors)[:_FEW]) or "no tensor"
    raise _refused(path, f"holds {names}", expected="a ViT or a BERT in transformers' names, or a plain ViT in timm's")


def _brief(error: Exception) -> str:
    return printable(str(error).partition("\n")[0][:200])


def _refused(path: Path, what: str, *, expected: str | None = None, fix: str | None = None) -> WeightsError:
    return WeightsError(f"{printable(path.name)} {what}", expected=expected, fix=fix, path=path)
