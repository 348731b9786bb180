"""Convert models from timm (`from_timm`) and to timm (`to_timm`, and `to_timm_module` where timm is installed).

    model = from_timm(timm.create_model("vit_small_patch16_224", pretrained=True))
    state = to_timm(model)                  # timm's state dict, without timm
    module = to_timm_module(model)          # a timm VisionTransformer

No weight changes, and the outputs of every layer agree to rounding. See `vitzoo.interop.timm_names` for tensor names
and `vitzoo.interop.timm_folder` for a folder that timm loads by name.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vitzoo.architectures import memory_name, of_tensors
from vitzoo.errors import ConfigError, ConflictingArgumentsError, MissingPackageError, WeightsError, shown
from vitzoo.interop.preflight import check_timm_architecture
from vitzoo.interop.timm_names import from_timm_state, infer_shape, to_timm_state
from vitzoo.models.vit import VitZooConfig, VitZooModel

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer  # pyright: ignore[reportMissingImports]

TIMM_EPS = 1e-6  # of the LayerNorms of timm's ViTs, unless they are given others
_HEAD_DIM = 64  # of an attention head, in each of timm's plain ViTs
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def from_timm(model: nn.Module | Mapping[str, Tensor], *, num_heads: int | None = None) -> VitZooModel:
    """Make a zoo model from a plain ViT of timm.

    A plain ViT is a `timm.models.VisionTransformer` with a pooled CLS token, learned positions, pre-norm blocks, exact
    GELU and a linear head: ``vit_{tiny,small,base,large}_patch*_*`` and models trained from them. Dropout, stochastic
    depth and class names are not copied.

    Args:
        model: timm's module, or its state dict, which needs no timm. A state dict does not say the number of heads, the
            activation, the pooling and the epsilon of LayerNorm; the usual values of timm's plain ViTs are taken.
        num_heads: Attention heads. None: the module's, or the hidden size by 64 for a state dict.

    Returns:
        The model in evaluation mode, with the dtype and device of timm's; it shares no memory with timm's.

    Raises:
        WeightsError: The tensors are not a whole plain ViT's; the message names the tensor.
        ConfigError: The module differs from a plain ViT, or the number of heads does not fit.
        ConflictingArgumentsError: ``num_heads`` differs from the module's.

    Example:
        >>> state = to_timm(VitZooModel.from_pretrained("zoo/pt-0/ft-0"))
        >>> from_timm(state, num_heads=2).config.num_attention_heads
        2
    """
    if isinstance(model, nn.Module):
        model = _unwrap(model)
        if _of_timm(model) != "VisionTransformer" and not hasattr(model, "patch_embed"):
            raise _not_plain("", type(model).__name__, "a VisionTransformer of timm's")
        state = model.state_dict()
    else:
        state = model
    converted, shape = from_timm_state(state), infer_shape(state)
    eps = TIMM_EPS
    if isinstance(model, nn.Module):
        eps, module_heads = _check_module(model)
        if num_heads not in (None, module_heads):
            raise ConflictingArgumentsError(
                f"num_heads={num_heads} was given for a module of {module_heads} attention heads", fix="Leave it out."
            )
        num_heads = module_heads
    config = VitZooConfig(
        **asdict(shape),
        num_attention_heads=_heads(num_heads, shape.hidden_size),
        layer_norm_eps=eps,
        head_type="linear" if shape.head_width is None else "mlp",
        dtype=_dtype(state),
    )
    with torch.device("meta"):
        result = VitZooModel(config)
    result.load_state_dict(
        {memory_name(name): tensor.detach().clone() for name, tensor in converted.items()}, assign=True
    )
    return result.eval()


def to_timm(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state dict under timm's names, for ``load_state_dict`` of timm's ViT of the same sizes.

    Args:
        model: A `VitZooModel` with any head, also inside ``torch.compile`` or DataParallel. An MLP head becomes
            ``head.0`` and ``head.2`` of a ``torch.nn.Sequential`` (linear, ReLU, linear); an embedding's width is
            timm's ``num_classes``.

    Returns:
        timm's names to tensors, in timm's order. Queries, keys and values are fused copies; the others share the
        model's memory.

    Raises:
        ConfigError: The model is not a ViT of transformers, or the activation is not GELU.
    """
    member = _member(model)
    _check_activation(member.config)
    return to_timm_state(member.state_dict())


def to_timm_module(model: nn.Module) -> "VisionTransformer":
    """Return timm's module with a model's sizes, weights, dtype and device, in evaluation mode.

    Raises:
        MissingPackageError: timm is not installed.
        ConfigError: As `to_timm`.
    """
    member = _member(model)
    try:
        from timm.models.vision_transformer import VisionTransformer  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingPackageError(
            f"timm cannot be imported ({error})",
            fix="Run: pip install timm. Without it, to_timm() gives timm's state dict.",
            package="timm",
        ) from None
    config, arguments = member.config, timm_arguments(member.config)
    if config.layer_norm_eps != TIMM_EPS:
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=config.layer_norm_eps)
    with torch.random.fork_rng(devices=[]):  # its initial weights are random, and replaced
        module = VisionTransformer(**arguments)
        if config.head_width is not None:
            module.head = nn.Sequential(
                nn.Linear(config.hidden_size, config.head_width),
                nn.ReLU(),
                nn.Linear(config.head_width, arguments["num_classes"]),
            )
    module = module.to(device=member.device, dtype=member.dtype)
    module.load_state_dict(to_timm(member))
    return module.eval()


def timm_arguments(config: VitZooConfig) -> dict[str, Any]:
    """Return the arguments of timm's VisionTransformer for a config's sizes, as plain JSON.

    Raises:
        ConfigError: The activation is not GELU, or images or patches are not square.
    """
    _check_activation(config)
    shape = config.shape
    return {
        "img_size": shape.image_size,
        "patch_size": shape.patch_size,
        "in_chans": shape.num_channels,
        "num_classes": shape.num_labels,
        "embed_dim": shape.hidden_size,
        "depth": shape.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": _ratio(shape.intermediate_size, shape.hidden_size),
        "qkv_bias": shape.qkv_bias,
    }


def _unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside ``torch.compile``, DataParallel and DistributedDataParallel, however nested."""
    while (inner := model._modules.get("_orig_mod", model._modules.get("module"))) is not None:
        model = inner
    return model


def _member(model: nn.Module) -> Any:
    """Return the ViT inside of a model, or raise ConfigError if it is another model."""
    member: Any = _unwrap(model)
    if not isinstance(member, PreTrainedModel):
        raise ConfigError(
            f"The model is a {type(member).__name__}",
            expected="a ViT of transformers, such as a VitZooModel",
            fix="Of a PEFT model, take the merged one: model.merge_and_unload().",
        )
    check_timm_architecture(of_tensors(name for name, _ in member.named_parameters()).backbone)
    return member


def _ratio(wide: int, hidden: int) -> float:
    """Return the ratio that gives the MLP's width when timm multiplies by it and rounds down."""
    ratio = wide / hidden
    return ratio if int(hidden * ratio) == wide else math.nextafter(ratio, math.inf)


def _check_activation(config: VitZooConfig) -> None:
    if config.hidden_act != "gelu":
        raise ConfigError(
            f"The model's hidden_act is {shown(config.hidden_act)}",
            expected='"gelu", as in timm\'s plain ViTs',
            key="hidden_act",
        )


def _heads(given: int | None, hidden: int) -> int:
    if given is None and hidden % _HEAD_DIM:
        raise ConfigError(
            f"A state dict does not say the number of attention heads, and the hidden size is {hidden}",
            expected=f"a multiple of {_HEAD_DIM}, as in timm's own ViTs",
            fix="Name the heads: from_timm(..., num_heads=<heads>).",
            key="num_heads",
        )
    heads = hidden // _HEAD_DIM if given is None else given
    if heads < 1 or hidden % heads:
        raise ConfigError(f"num_heads is {heads}", expected=f"a divisor of the hidden size, {hidden}", key="num_heads")
    return heads


def _dtype(state: Mapping[str, Tensor]) -> str:
    dtypes = {tensor.dtype: name for name, tensor in state.items()}
    for dtype, name in dtypes.items():
        if dtype not in _DTYPES or len(dtypes) > 1:
            raise WeightsError(
                f"{name} is of {dtype}, among {', '.join(sorted(map(str, dtypes)))}",
                expected=f"one dtype of all tensors, one of {', '.join(map(str, _DTYPES))}",
            )
    return str(next(iter(dtypes))).removeprefix("torch.")


def _check_module(model: Any) -> tuple[float, int]:
    """Check the parts of a module that its state dict does not show, and return LayerNorm's epsilon and the heads."""
    if _of_timm(model) != "VisionTransformer":
        raise _not_plain("", type(model).__name__, "timm's VisionTransformer, or a state dict of an equal model")
    if model.global_pool != "token":
        raise _not_plain("global_pool", shown(model.global_pool), '"token"')
    parts, norms = [("patch_embed", model.patch_embed, "PatchEmbed")], {"norm": model.norm}
    heads = model.blocks[0].attn.num_heads
    for number, block in enumerate(model.blocks):
        place = f"blocks.{number}"
        parts += [
            (place, block, "Block"),
            (f"{place}.attn", block.attn, "Attention"),
            (f"{place}.mlp", block.mlp, "Mlp"),
        ]
        norms |= {f"{place}.norm1": block.norm1, f"{place}.norm2": block.norm2}
    for place, part, name in parts:
        if _of_timm(part) != name:
            raise _not_plain(place, type(part).__name__, f"timm's {name}")
    for number, block in enumerate(model.blocks):
        place, activation = f"blocks.{number}", block.mlp.act
        if type(activation).__name__ != "GELU" or getattr(activation, "approximate", "none") != "none":
            raise _not_plain(f"{place}.mlp.act", str(activation), "an exact GELU")
        scale = (block.attn.proj.in_features // block.attn.num_heads) ** -0.5
        if block.attn.num_heads != heads or not math.isclose(block.attn.scale, scale):
            raise _not_plain(f"{place}.attn.scale", block.attn.scale, f"{scale}, with as many heads in every block")
    for place, norm in norms.items():
        if not isinstance(norm, nn.LayerNorm) or norm.eps != model.norm.eps:
            eps = getattr(model.norm, "eps", TIMM_EPS)
            raise _not_plain(place, " ".join(str(norm).split()), f"LayerNorms of one epsilon, {eps}")
    layers = list(model.head) if isinstance(model.head, nn.Sequential) else [model.head]
    if [type(layer) for layer in layers] not in ([nn.Linear], [nn.Linear, nn.ReLU, nn.Linear]):
        names = ", ".join(type(layer).__name__ for layer in layers)
        raise _not_plain("head", names, "Linear, or a Sequential of Linear, ReLU, Linear")
    return float(model.norm.eps), int(heads)


def _of_timm(module: nn.Module) -> str | None:
    """Return the name of timm's class if the module is exactly of it; a subclass may compute anything."""
    cls = type(module)
    return cls.__name__ if cls.__module__.partition(".")[0] == "timm" else None


def _not_plain(place: str, value: object, expected: str) -> ConfigError:
    where = f"The module's {place}" if place else "The module"
    return ConfigError(f"{where} is {value}", expected=f"{expected}: a zoo member is a plain ViT", key=place or None)
