"""Draw the first weights of a member, each tensor as a function of (seed, stream, its name).

The order of modules, the device and torch's global generator change nothing. The numbers come from `training.random`,
keyed by the names on disk, which never change. See ``first_value`` of each module of `vitzoo.architectures` for the
rules, and `start.py` for a child's start on its parent's backbone.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from training.random import Stream, normals, tensor_id, tensor_uniforms
from vitzoo.architectures import FirstValue, of_tensors


def initialise(model: nn.Module, *, init_seed: int, head_seed: int) -> None:
    """Set every parameter of a model to its first value, in place.

    Args:
        model: Model with a backbone and a head, named as in `vitzoo.architectures`, and a config.
        init_seed: Seed of the backbone, in [0, 2^32).
        head_seed: Seed of the head, in [0, 2^32).

    Raises:
        ValueError: No rule covers a parameter, two names have one crc32, or the model has no head.
    """
    initialise_head(model, head_seed)
    _initialise(model, is_head=False, seed=init_seed, stream=Stream.INITIALISATION)


def initialise_head(model: nn.Module, head_seed: int) -> None:
    """Set only the head to its first values, in place, for a child's start on its parent's backbone.

    Args:
        model: Model as for `initialise`.
        head_seed: Seed of the head, in [0, 2^32).
    """
    _initialise(model, is_head=True, seed=head_seed, stream=Stream.HEAD)


def _initialise(model: Any, *, is_head: bool, seed: int, stream: Stream) -> None:
    architecture = of_tensors(name for name, _ in model.named_parameters())
    parameters = {
        architecture.disk_name(name): parameter
        for name, parameter in model.named_parameters()
        if name not in architecture.tied
    }
    _check_names(parameters)
    names = [name for name in parameters if architecture.is_head(name) == is_head]
    if not names:
        raise ValueError(f"{type(model).__name__} has no {'head' if is_head else 'backbone'} with weights")
    shapes, config = {name: tuple(parameter.shape) for name, parameter in parameters.items()}, model.config.to_dict()
    for name in names:
        first = architecture.first_value(name, shapes, config)
        _set(parameters[name], first, seed=seed, stream=stream, name=name)


def _check_names(names: Iterable[str]) -> None:
    """Raise ValueError if two names have one key."""
    by_key: Mapping[int, list[str]] = defaultdict(list)
    for name in names:
        by_key[tensor_id(name)].append(name)
    for same in by_key.values():
        if len(same) > 1:
            raise ValueError(f"{' and '.join(same)} have the same crc32 and would get the same numbers. Rename one.")


def _set(parameter: nn.Parameter, first: FirstValue, *, seed: int, stream: Stream, name: str) -> None:
    key, count = tensor_id(name), parameter.numel()
    if first.rule == "constant":
        values = torch.full_like(parameter, first.value)
    elif first.rule == "normal":
        values = normals(seed, stream, tensor=key, count=count) * first.value
    else:
        values = (2 * tensor_uniforms(seed, stream, tensor=key, count=count) - 1) * first.value
    with torch.no_grad():
        parameter.copy_(values.view_as(parameter))
