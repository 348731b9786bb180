"""Load the first weights of a parent that starts from a published model, such as ``google-bert/bert-base-cased``.

See `vitzoo.sources.published` for the download, and `start.py` for how a model is built of the weights.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from training.recipes.plan import PlannedMember
from training.recipes.recipe import Start
from vitzoo.architectures import Architecture, describe_mismatch, load_config_json, owner_of
from vitzoo.architectures.bert import OLD_NAMES
from vitzoo.errors import NotCachedError, RecordError, TrainingError, shown
from vitzoo.models.registry import model_class
from vitzoo.records.files import file_sha256
from vitzoo.records.layout import TOKENIZER_JSON, weights_name
from vitzoo.sources.published import fetch_published
from vitzoo.text.tokenizer import Tokenizer, check_tokenizer

_CONFIG = "config.json"
_LATER = ("initializer_range",)  # sizes that decide only first weights, which are not drawn here


def load_start(planned: PlannedMember, tokenizer: Tokenizer | None = None) -> dict[str, Tensor] | None:
    """Load the weights that a parent starts from, by their names in memory; None for random weights.

    The backbone is taken, and for masked training the head as well. Other heads of the published model are left out.

    Args:
        planned: Parent to train.
        tokenizer: Its tokenizer, which must be the published model's if that has a tokenizer.json.

    Raises:
        ConfigError: The published model has another tokenizer.
        TrainingError: The recipe does not say the model's commit and sha256, the file has another sha256, or the model
            has other sizes than the recipe.
        VitZooError: As `vitzoo.sources.published.fetch_published`.
    """
    start = planned.start
    if start is None:
        return None
    if start.commit is None or start.sha256 is None:
        raise TrainingError(
            f"{planned.id} starts from {start.repo}, but the recipe does not say its commit and sha256",
            expected="Start(repo=..., commit=..., sha256=...) with the digest of model.safetensors",
            fix=f"Copy both from https://huggingface.co/{start.repo}/tree/main (docs/guides/recipes.md).",
        )
    folder = fetch_published(start.repo, start.commit, files=(_CONFIG, weights_name()))
    path = folder / weights_name()
    if (sha256 := file_sha256(path)) != start.sha256:
        raise TrainingError(
            f"{planned.id}: {weights_name()} of {start.repo} at {start.commit[:12]} has sha256 {sha256}",
            expected=f"{start.sha256}, as the recipe says",
            fix="Correct the recipe, if you trust this file.",
        )
    architecture = owner_of(planned.architecture)
    _check_config(planned, start, load_config_json(folder / _CONFIG))
    if tokenizer is not None:
        _check_tokenizer(planned, start, tokenizer)
    tensors = _rename(load_file(path), architecture)
    names = planned.shape.tensor_shapes()
    taken = {
        name: shape for name, shape in names.items() if planned.head.role == "masked" or not architecture.is_head(name)
    }
    found = {name: tensor for name, tensor in tensors.items() if name in taken}
    misfit = describe_mismatch(
        taken, {name: tuple(tensor.shape) for name, tensor in found.items()}, says="the recipe says"
    )
    types = sorted({str(tensor.dtype) for tensor in found.values()} - {"torch.float32"})
    if misfit is not None or types:
        raise TrainingError(
            f"{planned.id} cannot start from {start.repo}: {misfit or f'weights are {types[0]}'}",
            expected="the tensors of the recipe's architecture, in float32",
            fix="Change the architecture of the recipe, or name another model.",
        )
    for name, other in architecture.tied.items():
        if name in tensors and other in found and not torch.equal(tensors[name], found[other]):
            raise TrainingError(
                f"{planned.id} cannot start from {start.repo}: {name} differs from {other}",
                expected="tied weights, which are equal",
                fix="Name another model.",
            )
    return {architecture.memory_name(name): tensor for name, tensor in found.items()}


def _check_config(planned: PlannedMember, start: Start, published: Mapping[str, Any]) -> None:
    """Compare the sizes of a published model with the recipe's."""
    architecture = owner_of(planned.architecture)
    cls = model_class(architecture, planned.head.role)
    head = planned.head
    config = cls.config_for(
        planned.architecture, outputs=head.outputs, head_width=head.width, role=head.role, classes=()
    ).to_dict()
    for key in (*architecture.recipe_keys, "hidden_act", "layer_norm_eps"):
        if key not in _LATER and key in published and published[key] != config[key]:
            raise TrainingError(
                f"{planned.id} cannot start from {start.repo}, whose {key} is {shown(published[key])}",
                expected=f"{shown(config[key])}, as in the recipe's architecture",
                fix="Change the architecture of the recipe, or name another model.",
            )


def _check_tokenizer(planned: PlannedMember, start: Start, tokenizer: Tokenizer) -> None:
    """Compare the tokenizer of a published model, if it has a tokenizer.json within reach, with the recipe's."""
    with contextlib.suppress(RecordError, NotCachedError):
        path = fetch_published(start.repo, str(start.commit), files=(TOKENIZER_JSON,)) / TOKENIZER_JSON
        check_tokenizer(
            tokenizer,
            vocab_size=planned.architecture.vocab_size,
            sha256=file_sha256(path),
            by=start.repo,
            fix="Name the published model's tokenizer in the recipe: TokenizerSpec(repo=..., commit=..., sha256=...).",
        )


def _rename(tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Return tensors under the names on disk of today: older files say gamma and beta."""
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in OLD_NAMES.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        renamed[name if name in architecture.tied else architecture.disk_name(name)] = tensor
    return renamed
