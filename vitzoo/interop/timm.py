"""Models to and from timm: `from_timm`, `to_timm`, and `to_timm_module` where timm is installed.

    model = from_timm(timm.create_model("vit_small_patch16_224", pretrained=True))
    state = to_timm(model)                  # timm's state dict, without timm
    module = to_timm_module(model)          # a timm VisionTransformer

No number changes on the way; outputs agree to rounding, at every layer. How tensors are called on either side is
`vitzoo.interop.timm_names`' business; a folder that timm loads by its name is written by `vitzoo.interop.timm_folder`.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitzoo.architectures import memory_name
from vitzoo.errors import ConfigError, ConflictingArgumentsError, MissingPackageError, WeightsError, shown
from vitzoo.interop.timm_names import from_timm_state, infer_shape, to_timm_state
from vitzoo.models.vit import VitZooConfig, VitZooModel

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer  # pyright: ignore[reportMissingImports]

TIMM_EPS = 1e-6  # of the LayerNorms of timm's ViTs, unless they are given others
_HEAD_DIM = 64  # of an attention head, in each of timm's plain ViTs
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def from_timm(model: nn.Module | Mapping[str, Tensor], *, num_heads: int | None = None) -> VitZooModel:
    """A model of a zoo from a plain ViT of timm's.

    Plain is a `timm.models.VisionTransformer` with a CLS token that is pooled, learned positions, pre-norm blocks, an
    exact GELU and a linear head: ``vit_{tiny,small,base,large}_patch*_*`` and what is trained from them. Dropout and
    stochastic depth, which change training alone, are not carried over. Class names are not either: set
    ``config.id2label``.

    Args:
        model: timm's module, or its state dict, for which timm need not be installed. A state dict does not say how
            many attention heads there are, nor of activation, pooling and LayerNorm's epsilon: those of timm's plain
            ViTs are taken, so give the module where it may be another one.
        num_heads: Attention heads. None: what the module says; of a state dict, the hidden size by 64.

    Returns:
        The model, in evaluation mode, in the dtype and on the device of timm's; it shares no memory with timm's.

    Raises:
        WeightsError: A tensor says that it is no plain ViT, or some are missing: the message names the tensor and what
            it belongs to.
        ConfigError: The module has what no plain ViT has, or the number of heads does not fit.
        ConflictingArgumentsError: ``num_heads`` is not what the module says.

    Example:
        >>> model = from_timm(torch.load("vit_small.pth", weights_only=True))  # doctest: +SKIP
        >>> model.config.num_attention_heads  # doctest: +SKIP
        6
    """
    if isinstance(model, nn.Module):
        if _of_timm(model) != "VisionTransformer" and not hasattr(model, "patch_embed"):
            raise _unfit("", type(model).__name__, "a VisionTransformer of timm's")
        state = model.state_dict()
    else:
        state = model
    converted, shape = from_timm_state(state), infer_shape(state)
    eps = TIMM_EPS
    if isinstance(model, nn.Module):
        eps, its_heads = _check_module(model)
        if num_heads not in (None, its_heads):
            raise ConflictingArgumentsError(
                f"num_heads={num_heads} was given for a module of {its_heads} attention heads", fix="Leave it out."
            )
        num_heads = its_heads
    written: dict[str, Any] = {
        "image_size": shape.image_size,
        "patch_size": shape.patch_size,
        "num_channels": shape.num_channels,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": _heads(num_heads, shape.hidden_size),
        "intermediate_size": shape.intermediate_size,
        "qkv_bias": shape.qkv_bias,
        "layer_norm_eps": eps,
        "num_labels": shape.num_labels,
        "head_type": "linear" if shape.head_width is None else "mlp",
        "head_width": shape.head_width,
        "dtype": _dtype(state),
    }
    with torch.device("meta"):
        made = VitZooModel(VitZooConfig(**written))
    made.load_state_dict(
        {memory_name(name): tensor.detach().clone() for name, tensor in converted.items()}, assign=True
    )
    return made.eval()


def to_timm(model: VitZooModel) -> dict[str, Tensor]:
    """A model's state dict in timm's names, for ``load_state_dict`` of the ViT of timm's that has its sizes.

    Args:
        model: With a linear head, a classifier or an embedding (whose ``num_classes`` is its width); an MLP head
            becomes ``head.0`` and ``head.2``, as of a ``torch.nn.Sequential`` of linear, ReLU, linear that is put in
            the place of timm's ``head``.

    Returns:
        timm's names to tensors, in timm's order. Queries, keys and values are fused copies; the others share the
        model's memory.

    Raises:
        ConfigError: Its activation is none of timm's plain ViTs'.
    """
    _check_activation(model.config)
    return to_timm_state(model.state_dict())


def to_timm_module(model: VitZooModel) -> "VisionTransformer":
    """A model as timm's module: its sizes, its weights.

    Args:
        model: As `to_timm` takes it; of an MLP head, ``module.head`` is a ``torch.nn.Sequential``.

    Returns:
        A `timm.models.VisionTransformer` in evaluation mode, in the model's dtype and on its device.

    Raises:
        MissingPackageError: timm is not installed.
        ConfigError: As `to_timm`.
    """
    try:
        from timm.models.vision_transformer import VisionTransformer  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingPackageError(
            f"timm cannot be imported ({error}): pip install timm. Without it, to_timm() gives timm's state dict.",
            package="timm",
        ) from None
    config, arguments = model.config, timm_arguments(model.config)
    if config.layer_norm_eps != TIMM_EPS:
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=config.layer_norm_eps)
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced
        module = VisionTransformer(**arguments)
        if config.head_width is not None:
            module.head = nn.Sequential(
                nn.Linear(config.hidden_size, config.head_width),
                nn.ReLU(),
                nn.Linear(config.head_width, arguments["num_classes"]),
            )
    module = module.to(device=model.device, dtype=model.dtype)
    module.load_state_dict(to_timm(model))
    return module.eval()


def timm_arguments(config: VitZooConfig) -> dict[str, Any]:
    """The arguments of timm's VisionTransformer that give a model its sizes, as plain JSON.

    Args:
        config: Of the model.

    Raises:
        ConfigError: Its activation is none of timm's plain ViTs', or its sizes are not square.
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


def _ratio(wide: int, hidden: int) -> float:
    """What timm multiplies the hidden size by, and rounds down."""
    ratio = wide / hidden
    return ratio if int(hidden * ratio) == wide else math.nextafter(ratio, math.inf)


def _check_activation(config: VitZooConfig) -> None:
    if config.hidden_act != "gelu":
        raise ConfigError(
            f"The model's hidden_act is {shown(config.hidden_act)}; timm's plain ViTs have gelu: timm would compute "
            "something else.",
            key="hidden_act",
        )


def _heads(given: int | None, hidden: int) -> int:
    if given is None and hidden % _HEAD_DIM:
        raise ConfigError(
            f"A state dict does not say how many attention heads there are, and {hidden} is no multiple "
            f"of {_HEAD_DIM} as in timm's own ViTs",
            fix="Say it: from_timm(..., num_heads=<heads>).",
            key="num_heads",
        )
    heads = hidden // _HEAD_DIM if given is None else given
    if heads < 1 or hidden % heads:
        raise ConfigError(f"num_heads is {heads}", expected=f"a divisor of the hidden size, {hidden}", key="num_heads")
    return heads


def _dtype(state: Mapping[str, Tensor]) -> str:
    found = {tensor.dtype: name for name, tensor in state.items()}
    for dtype, name in found.items():
        if dtype not in _DTYPES or len(found) > 1:
            raise WeightsError(
                f"{name} is of {dtype}, among {', '.join(sorted(map(str, found)))}",
                expected=f"one dtype of all tensors, one of {', '.join(map(str, _DTYPES))}",
            )
    return str(next(iter(found))).removeprefix("torch.")


# What follows is what a module says and its state dict does not.


def _check_module(model: Any) -> tuple[float, int]:
    """LayerNorm's epsilon and the number of attention heads, of a module whose state dict is a plain ViT's."""
    if _of_timm(model) != "VisionTransformer":
        raise _unfit(
            "", type(model).__name__, "timm's VisionTransformer; of one that computes the same, its state_dict()"
        )
    if model.global_pool != "token":
        raise _unfit("global_pool", shown(model.global_pool), '"token"')
    if _of_timm(model.patch_embed) != "PatchEmbed":
        raise _unfit("patch_embed", type(model.patch_embed).__name__, "timm's PatchEmbed")
    for number, block in enumerate(model.blocks):
        for place, part, name in (("", block, "Block"), (".attn", block.attn, "Attention"), (".mlp", block.mlp, "Mlp")):
            if _of_timm(part) != name:
                raise _unfit(f"blocks.{number}{place}", type(part).__name__, f"timm's {name}")
        _check_gelu(f"blocks.{number}.mlp.act", block.mlp.act)
        scale = (block.attn.proj.in_features // block.attn.num_heads) ** -0.5
        if block.attn.num_heads != model.blocks[0].attn.num_heads or not math.isclose(block.attn.scale, scale):
            raise _unfit(f"blocks.{number}.attn.scale", block.attn.scale, f"{scale}, with as many heads in every block")
    norms = {f"blocks.{n}.{name}": getattr(b, name) for n, b in enumerate(model.blocks) for name in ("norm1", "norm2")}
    for place, norm in (norms | {"norm": model.norm}).items():
        if not isinstance(norm, nn.LayerNorm) or norm.eps != model.norm.eps:
            raise _unfit(
                place, " ".join(str(norm).split()), f"LayerNorms of one epsilon, {getattr(model.norm, 'eps', TIMM_EPS)}"
            )
    _check_head(model.head)
    return float(model.norm.eps), int(model.blocks[0].attn.num_heads)


def _check_gelu(place: str, activation: nn.Module) -> None:
    if type(activation).__name__ != "GELU" or getattr(activation, "approximate", "none") != "none":
        raise _unfit(place, str(activation), "an exact GELU")


def _check_head(head: nn.Module) -> None:
    parts = list(head) if isinstance(head, nn.Sequential) else [head]
    if [type(part) for part in parts] not in ([nn.Linear], [nn.Linear, nn.ReLU, nn.Linear]):
        names = ", ".join(type(part).__name__ for part in parts)
        raise _unfit("head", names, "Linear, or a Sequential of Linear, ReLU, Linear")


def _of_timm(module: nn.Module) -> str | None:
    """The name of timm's class that this is exactly; a subclass may compute anything."""
    cls = type(module)
    return cls.__name__ if cls.__module__.partition(".")[0] == "timm" else None


def _unfit(place: str, found: object, expected: str) -> ConfigError:
    where = f"Its {place}" if place else "The module"
    return ConfigError(f"{where} is {found}", expected=f"{expected}: a zoo member is a plain ViT", key=place or None)
