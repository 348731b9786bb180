"""Architectures without torch: tensor names and order, shapes, the rules of config.json, and the graph of a network.

An architecture is one module here and one in `vitzoo.models`. It is found by the ``model_type`` in config.json, or by
its tensors' names. `register` adds one.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vitzoo.architectures.architecture import (
    Architecture,
    FirstValue,
    ModelShape,
    Sizes,
    describe_misfit,
    describe_mismatch,
    hidden_widths,
)
from vitzoo.architectures.bert import BERT
from vitzoo.architectures.config_json import check_fields, load_json, unfit
from vitzoo.architectures.vit import VIT

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "FirstValue",
    "ModelShape",
    "Sizes",
    "describe_misfit",
    "describe_mismatch",
    "disk_name",
    "find_architecture",
    "hidden_widths",
    "is_head",
    "load_architecture",
    "load_config_json",
    "memory_name",
    "of_tensors",
    "owner_of",
    "register",
]

ARCHITECTURES: dict[str, Architecture] = {}
_BY_WORD: dict[str, Architecture] = {}


def register(architecture: Architecture) -> None:
    """Add an architecture, or replace the one of the same backbone.

    Raises:
        ValueError: Another architecture has one of its words for ``model_type``.
    """
    for word in architecture.model_types:
        other = _BY_WORD.get(word)
        if other is not None and other.backbone != architecture.backbone:
            raise ValueError(f'model_type "{word}" belongs to the architecture "{other.backbone}"')
    ARCHITECTURES[architecture.backbone] = architecture
    _BY_WORD.update(dict.fromkeys(architecture.model_types, architecture))


for _architecture in (VIT, BERT):
    register(_architecture)


def find_architecture(model_type: str) -> Architecture:
    """Return the architecture of a config's ``model_type``, or raise KeyError."""
    return _BY_WORD[model_type]


def owner_of(sizes: Sizes) -> Architecture:
    """Return the architecture of a recipe's sizes, or raise KeyError."""
    for architecture in ARCHITECTURES.values():
        if isinstance(sizes, architecture.sizes):
            return architecture
    raise KeyError(type(sizes).__name__)


def load_config_json(path: Path, *, content: bytes | None = None) -> dict[str, Any]:
    """Read a member's config.json, which is not trusted, as plain JSON.

    Args:
        path: The file.
        content: Bytes of the file, if they were read before.

    Raises:
        ConfigError: The file has a key that is not a member's, a value of another type or out of bounds, or values that
            contradict each other.
    """
    config = load_json(path, content=content)
    word = config.get("model_type")
    if word is not None and not (isinstance(word, str) and word in _BY_WORD):
        raise unfit(path, "model_type", word, f"one of {', '.join(_BY_WORD)}")
    architecture = _BY_WORD[word] if word else VIT
    check_fields(path, config, architecture.config_fields, required=architecture.required_fields)
    architecture.check_config(path, config)
    return config


def load_architecture(path: Path) -> Architecture:
    """Return the architecture that a config.json names; errors as `load_config_json`."""
    return find_architecture(load_config_json(path)["model_type"])


def of_tensors(names: Iterable[str]) -> Architecture:
    """Return the architecture of tensors: by the backbone's prefix, else by a head's name; a ViT for strangers."""
    names = list(names)
    prefixes = {name.partition(".")[0] for name in names}
    for backbone, architecture in ARCHITECTURES.items():
        if backbone in prefixes:
            return architecture
    for architecture in ARCHITECTURES.values():
        if any(architecture.is_head(name) or name in architecture.tied for name in names):
            return architecture
    return VIT


def disk_name(name: str) -> str:
    """Return a tensor's name on disk, from either spelling."""
    return of_tensors([name]).disk_name(name)


def memory_name(name: str) -> str:
    """Return a tensor's name in a module's state dict, from either spelling."""
    return of_tensors([name]).memory_name(name)


def is_head(name: str) -> bool:
    """Return whether a tensor, in either spelling, belongs to the head and not to the backbone."""
    return of_tensors([name]).is_head(name)
