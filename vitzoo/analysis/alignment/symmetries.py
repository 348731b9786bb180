"""Change the weights of a model without a change of its outputs: exact symmetries of a transformer.

See `vitzoo.architectures.symmetry` for the groups of units, and `vitzoo.analysis.alignment.alignment` for matching two
models. All sums are in float64. Results are cast once, to the model's own dtype.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from vitzoo.architectures.symmetry import STREAM, Symmetry
from vitzoo.errors import ConfigError, WeightsError
from vitzoo.models.loading import MemberModel

State = dict[str, Float64[np.ndarray, "..."]]


def canonical(model: MemberModel) -> MemberModel:
    """Return a model with the same outputs whose LayerNorms, biases and attention heads have a standard form.

    - Gains and biases of LayerNorms are folded into the layers that read them: gains are 1 and biases 0.
    - The residual stream has mean 0 over its channels, which LayerNorm subtracts anyway. So it can be rotated.
    - Biases of keys are 0, because softmax ignores them. Biases of values are moved to the layer after attention.
    - The products of queries and keys, and of outputs and values, are divided equally between both factors of each
      head, by a singular value decomposition. Its order and signs are fixed, so an invertible map of a head's
      channels disappears.

    Units and heads keep their order. Outputs change by rounding alone.

    Args:
        model: A ViT with query, key and value biases, on any device. It is not changed.

    Raises:
        ConfigError: The network normalises its stream itself (post-norm, as a BERT), or lacks those biases.
        WeightsError: A weight is NaN or infinite.
    """
    state, symmetry = load_state(model), symmetry_of(model)
    if symmetry.readers is None:
        raise ConfigError(
            f"A {type(model).__name__} is a post-norm network, whose LayerNorms change the stream itself",
            expected="a pre-norm network, such as a ViT",
            fix='Use align(..., group="permutation").',
            key="model_type",
        )
    for block in symmetry.blocks:
        if f"{block.query}.bias" not in state:
            raise ConfigError("qkv_bias is false", expected="biases, which take those of LayerNorms", key="qkv_bias")
    for norm, readers in symmetry.readers.items():
        gains, shifts = state[f"{norm}.weight"].copy(), state[f"{norm}.bias"].copy()
        for reader in readers:
            state[f"{reader}.bias"] += state[f"{reader}.weight"] @ shifts
            state[f"{reader}.weight"] *= gains
        state[f"{norm}.weight"][:], state[f"{norm}.bias"][:] = 1, 0
    for block in symmetry.blocks:
        state[f"{block.output}.bias"] += state[f"{block.output}.weight"] @ state[f"{block.value}.bias"]
        state[f"{block.value}.bias"][:] = state[f"{block.key}.bias"][:] = 0
    norms = {f"{norm}.{part}" for norm in symmetry.readers for part in ("weight", "bias")}
    for name, axes in symmetry.axes.items():
        if STREAM in axes and name not in norms:
            state[name] -= state[name].mean(axis=axes.index(STREAM), keepdims=True)
    heads = num_heads(model)
    for block in symmetry.blocks:
        query = np.column_stack([state[f"{block.query}.weight"], state[f"{block.query}.bias"]])
        key, value, output = (state[f"{name}.weight"] for name in (block.key, block.value, block.output))
        width = len(query) // heads
        for start in range(0, len(query), width):
            rows = slice(start, start + width)
            query[rows], key[rows] = _balance(query[rows], key[rows])
            columns, value[rows] = _balance(output[:, rows].T, value[rows])
            output[:, rows] = columns.T
        state[f"{block.query}.weight"], state[f"{block.query}.bias"] = query[:, :-1], query[:, -1]
    return with_state(model, state)


def _balance(
    one: Float64[np.ndarray, "channels _"], two: Float64[np.ndarray, "channels _"]
) -> tuple[Float64[np.ndarray, "channels _"], Float64[np.ndarray, "channels _"]]:
    """Return two matrices with the same product ``one.T @ two`` and equal singular values, in falling order."""
    (left, small), (right, other) = np.linalg.qr(one.T), np.linalg.qr(two.T)
    u, values, v = np.linalg.svd(small @ other.T)
    first, second = left @ u, right @ v.T
    signs = np.sign(first[np.abs(first).argmax(axis=0), np.arange(len(values))])
    scale = np.where(signs == 0, 1, signs) * np.sqrt(values)
    return (first * scale).T, (second * scale).T


def load_state(model: MemberModel) -> State:
    """Return the weights by their names on disk, in float64; tied ones once.

    Raises:
        WeightsError: A weight is NaN or infinite.
    """
    architecture = model.architecture
    state = {
        architecture.disk_name(name): tensor.detach().to(torch.float64).cpu().numpy().copy()
        for name, tensor in model.state_dict().items()
        if name not in architecture.tied
    }
    for name, values in state.items():
        if not np.isfinite(values).all():
            raise WeightsError(f"{name} has NaN or infinite values", expected="numbers")
    return state


def with_state(model: MemberModel, state: Mapping[str, np.ndarray]) -> MemberModel:
    """Return a copy of a model with other weights, cast to its dtype."""
    changed = copy.deepcopy(model)
    own: dict[str, torch.Tensor] = changed.state_dict()
    with torch.no_grad():
        for name, values in state.items():
            own[model.architecture.memory_name(name)].copy_(torch.from_numpy(np.ascontiguousarray(values)))
    return changed


def symmetry_of(model: MemberModel) -> Symmetry:
    """Return the groups of a model's units.

    Raises:
        ConfigError: Its architecture declares none.
    """
    architecture = model.architecture
    names = [architecture.disk_name(name) for name in model.state_dict() if name not in architecture.tied]
    try:
        return architecture.symmetry(names)
    except NotImplementedError:
        raise ConfigError(
            f"No symmetry of a {type(model).__name__} is known", expected="a ViT or a BERT", key="model_type"
        ) from None


def num_heads(model: MemberModel) -> int:
    """Return the number of attention heads of a block."""
    config: Any = model.config
    return model.architecture.num_heads(config.to_dict())
