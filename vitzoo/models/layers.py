"""Read the outputs of a model's layers while it is evaluated, pooled over tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from vitzoo.models.loading import MemberModel

Pool = Literal["cls", "mean"]
POOLS: tuple[Pool, ...] = ("cls", "mean")


@dataclass(frozen=True, slots=True, eq=False)
class PooledLayers:
    """Outputs of the layers for all samples of an evaluation, in the order in which the model saw them.

    Args:
        batches: By layer and pool, the pooled outputs of each batch.
    """

    batches: dict[tuple[str, Pool], list[Float[Tensor, "batch hidden"]]] = field(default_factory=dict)

    def outputs(self) -> dict[tuple[str, Pool], Float32[Tensor, "samples hidden"]]:
        """Return the outputs by layer and pool, on the CPU."""
        return {key: torch.cat(batches).float().cpu() for key, batches in self.batches.items()}


@contextmanager
def pooled_layers(model: MemberModel) -> Iterator[PooledLayers]:
    """Collect the outputs of each layer: the CLS token, and the mean of the other tokens that are not padding.

    Example:
        >>> from vitzoo import Zoo
        >>> member = Zoo("zoo")["pt-0/ft-0"]
        >>> model = member.load()
        >>> with pooled_layers(model) as pooled:
        ...     evaluation = member.evaluate_model(model, member.load_part("test"))
        >>> len(pooled.outputs()["layer.0", "cls"]) == len(evaluation.labels)
        True
    """
    pooled, real = PooledLayers(), list[Tensor | None]([None])

    def remember_mask(_module: nn.Module, _args: Any, inputs: dict[str, Any]) -> None:
        real[0] = inputs.get("attention_mask")

    def collect(layer: str, output: Any) -> None:
        tokens = output[0] if isinstance(output, tuple) else output
        others = tokens[:, 1:]
        if real[0] is None:
            mean = others.mean(dim=1)
        else:
            weights = real[0][:, 1:, None].to(others.dtype)
            mean = (others * weights).sum(dim=1) / weights.sum(dim=1)
        for pool, value in zip(POOLS, (tokens[:, 0], mean), strict=True):
            pooled.batches.setdefault((layer, pool), []).append(value)

    backbone = model.get_submodule(model.architecture.backbone)
    hooks = [backbone.register_forward_pre_hook(remember_mask, with_kwargs=True)]
    for layer, module in model.layers.items():
        hooks.append(module.register_forward_hook(lambda _module, _args, output, layer=layer: collect(layer, output)))
    try:
        yield pooled
    finally:
        for hook in hooks:
            hook.remove()
