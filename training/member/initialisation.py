"""Draw the first weights of a member, each tensor as a function of (seed, stream, its name).

    encoder and linear head   Linear, Conv2d: kaiming_normal (fan in, gain sqrt 2), biases .01; LayerNorm: 1 and 0;
                              cls_token: normal, std 1e-6; position_embeddings: normal, std .02
    MLP head                  PyTorch's default for Linear: uniform within 1 / sqrt(fan in), weights and biases

The order of modules, the device and torch's global generator change nothing. timm truncates its normal at +-2, which is
100 standard deviations here, so nothing is truncated. The numbers come from `training.random`, keyed by the names on
disk, which never change. See `start.py` for a child's start on its parent's backbone.
"""

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.random import Stream, normals, tensor_id, tensor_uniforms
from vitzoo.architectures import disk_name, is_head

_BIAS = 0.01
_TOKENS = {"cls_token": 1e-6, "position_embeddings": 0.02}  # standard deviations


def initialise(model: nn.Module, *, init_seed: int, head_seed: int) -> None:
    """Set every parameter of a vision transformer to its first value, in place.

    Args:
        model: Model with a backbone and a head (a Linear, or an MLP), named as in `vitzoo.architectures`.
        init_seed: Seed of the backbone, in [0, 2^32).
        head_seed: Seed of the head, in [0, 2^32).

    Raises:
        ValueError: No rule covers a parameter, two names have one crc32, or the model has no head.

    Source:
        He et al. 2015 (kaiming_normal) as in the zoo's `NNmodule`; timm's `VisionTransformer` for tokens and positions.
    """
    initialise_head(model, head_seed)
    for module_name, module, parameters in _modules(model):
        if not is_head(f"{module_name}."):
            _initialise_module(module_name, module, parameters, seed=init_seed, stream=Stream.INITIALISATION)


def initialise_head(model: nn.Module, head_seed: int) -> None:
    """Set only the head to its first values, in place, for a child's start on its parent's backbone.

    Args:
        model: Model as for `initialise`.
        head_seed: Seed of the head, in [0, 2^32).
    """
    head = [module for module in _modules(model) if is_head(f"{module[0]}.")]
    if not head:
        raise ValueError(f"{type(model).__name__} has no head with weights; expected a Linear or MLP head")
    for module_name, module, parameters in head:
        if len(head) > 1 and isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            for name, parameter in parameters.items():
                _set(parameter, (2 * _draw(tensor_uniforms, head_seed, Stream.HEAD, name, parameter) - 1) * bound)
        else:
            _initialise_module(module_name, module, parameters, seed=head_seed, stream=Stream.HEAD)


def _initialise_module(
    module_name: str, module: nn.Module, parameters: dict[str, nn.Parameter], *, seed: int, stream: Stream
) -> None:
    """Apply the paper's rules to a module's own parameters."""
    for name, parameter in parameters.items():
        local = name.removeprefix(f"{module_name}.")
        if isinstance(module, nn.LayerNorm):
            _set(parameter, torch.full_like(parameter, 1.0 if local == "weight" else 0.0))
        elif isinstance(module, nn.Linear | nn.Conv2d) and local == "bias":
            _set(parameter, torch.full_like(parameter, _BIAS))
        elif isinstance(module, nn.Linear | nn.Conv2d):
            std = math.sqrt(2 / parameter[0].numel())  # elements a row: the fan in, of Linear and Conv2d alike
            _set(parameter, _draw(normals, seed, stream, name, parameter) * std)
        elif local in _TOKENS:
            _set(parameter, _draw(normals, seed, stream, name, parameter) * _TOKENS[local])
        else:
            raise ValueError(
                f"no rule initialises {name} of {type(module).__name__}; expected Linear, Conv2d, LayerNorm, "
                f"{' or '.join(_TOKENS)}. Add its rule to training/member/initialisation.py."
            )


def _draw(numbers: Callable[..., Tensor], seed: int, stream: Stream, name: str, parameter: nn.Parameter) -> Tensor:
    return numbers(seed, stream, tensor=tensor_id(disk_name(name)), count=parameter.numel())


def _modules(model: nn.Module) -> list[tuple[str, nn.Module, dict[str, nn.Parameter]]]:
    """Return the modules with own parameters, and these parameters by full name."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, _ in model.named_parameters():
        names[tensor_id(disk_name(name))].append(name)
    for same in names.values():
        if len(same) > 1:
            raise ValueError(f"{' and '.join(same)} have the same crc32 and would get the same numbers. Rename one.")
    modules = []
    for module_name, module in model.named_modules():
        prefix = f"{module_name}." if module_name else ""
        parameters = {prefix + name: parameter for name, parameter in module.named_parameters(recurse=False)}
        if parameters:
            modules.append((module_name, module, parameters))
    return modules


def _set(parameter: nn.Parameter, values: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(values.view_as(parameter))
