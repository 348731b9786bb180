"""A plain ViT's tensors in timm's names and in a zoo's: both ways, each the exact inverse of the other.

    timm                                        on disk (`vitzoo.architectures.vit`)
    cls_token                                   vit.embeddings.cls_token
    pos_embed                                   vit.embeddings.position_embeddings
    patch_embed.proj.{weight,bias}              vit.embeddings.patch_embeddings.projection.*
    blocks.<N>.norm1.{weight,bias}              vit.encoder.layer.<N>.layernorm_before.*
    blocks.<N>.attn.qkv.{weight,bias}           vit.encoder.layer.<N>.attention.attention.{query,key,value}.*: its rows
    blocks.<N>.attn.proj.{weight,bias}          vit.encoder.layer.<N>.attention.output.dense.*
    blocks.<N>.norm2.{weight,bias}              vit.encoder.layer.<N>.layernorm_after.*
    blocks.<N>.mlp.fc1.{weight,bias}            vit.encoder.layer.<N>.intermediate.dense.*
    blocks.<N>.mlp.fc2.{weight,bias}            vit.encoder.layer.<N>.output.dense.*
    norm.{weight,bias}                          vit.layernorm.*
    head.{weight,bias}                          classifier.*, a linear head
    head.{0,2}.{weight,bias}                    classifier.{fc1,fc2}.*, an MLP head, which timm has no class for

Here are names and tensors; models are `vitzoo.interop.timm`'s. Neither timm nor transformers is needed.
"""

import re
from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor

from vitzoo.architectures import describe_mismatch, disk_name
from vitzoo.architectures.vit import VIT, ViTShape
from vitzoo.errors import WeightsError, did_you_mean, printable

_ENDS = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "norm": "vit.layernorm",
    "head": "classifier",
    "head.0": "classifier.fc1",
    "head.2": "classifier.fc2",
}
_IN_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_QKV = ("query", "key", "value")  # the order of the rows of attn.qkv
_TIMM_BLOCK = re.compile(r"blocks\.(\d{1,9})\.(.+)\.(weight|bias)", re.ASCII)
_DISK_BLOCK = re.compile(r"vit\.encoder\.layer\.(\d{1,9})\.(.+)\.(weight|bias)", re.ASCII)
_DISK_QKV = re.compile(r"attention\.attention\.(query|key|value)")

# What a name gives away that no plain ViT has, in the order in which it is told.
_FEATURES = {
    r"reg_token": "register tokens",
    r"dist_token|head_dist\..*": "a distillation token",
    r"blocks\.\d+\.(ls[12]\.gamma|gamma_[12])": "LayerScale, a learned scale of each residual branch",
    r"blocks\.\d+\.attn\.[qk]_norm\..*": "normalised queries and keys",
    r"blocks\.\d+\.attn\.gate\..*": "gated attention",
    r"blocks\.\d+\.(attn|mlp)\.norm\..*": "norms inside its attention or MLP",
    r"blocks\.\d+\.attn\.[qkv]_(bias|proj\..*)": "queries, keys and values that are not fused as a plain ViT's",
    r"blocks\.\d+\.mlp\.(w\d+|fc1_[gx])\..*": "a gated MLP (SwiGLU, GLU)",
    r".*(rel_pos|relative_position|rope\.).*": "relative or rotary positions",
    r"norm_pre\..*": "a norm before its blocks, as CLIP's",
    r"fc_norm\..*": "a norm behind its pooling, as models that average their tokens",
    r"attn_pool\..*": "attention pooling, as SigLIP's",
    r"patch_embed\.backbone\..*": "a convolutional stem, as hybrid models",
    r"patch_embed\.norm\..*": "a norm in its patch embedding",
}
_DIMENSIONS = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}


def from_timm_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A plain ViT's state dict of timm's as a zoo's: no number changes, and none is copied.

    Args:
        state: Of a `timm.models.VisionTransformer` with a linear head, or with the MLP head ``head.0``, ``head.2``.

    Returns:
        On-disk names to tensors, in the order of the network. Queries, keys and values are views of the fused rows.
        Only of a model without a position for its CLS token (``no_embed_class``) the positions are copied, behind a
        row of zeros, which says the same.

    Raises:
        WeightsError: It is no plain ViT's, or not whole: the message names the tensor.
    """
    _refuse_unknown(state)
    shape = infer_shape(state)
    grid = shape.num_tokens - 1
    state = dict(state)
    if state["pos_embed"].shape[1] == grid:
        position = state["pos_embed"]
        state["pos_embed"] = torch.cat([position.new_zeros(1, 1, position.shape[2]), position], dim=1)
    problem = describe_mismatch(
        timm_shapes(shape),
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        of="plain ViT",
        says="a plain ViT of these sizes has",
    )
    if problem is not None:
        raise WeightsError(f"The state dict is no whole plain ViT of timm's: {problem}.")
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = _disk_names(name) or []
        converted.update(zip(names, tensor.chunk(len(names)), strict=True))
    return {name: converted[name] for name in VIT.network_order(converted)}


def to_timm_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A zoo member's state dict as timm's: the inverse of `from_timm_state`; no number changes.

    Args:
        state: In on-disk names, or in those of a module's state dict.

    Returns:
        timm's names to tensors, in timm's order. Queries, keys and values are copied into one tensor; the others are
        those given.

    Raises:
        WeightsError: It is no member's, or not whole: the message names the tensor.
    """
    disk = {disk_name(name): tensor for name, tensor in state.items()}
    for name in disk:
        if _timm_name(name) is None:
            raise WeightsError(f'No member has a tensor "{printable(name)}".{did_you_mean(name, _EXAMPLES)}')
    found = {name: tuple(tensor.shape) for name, tensor in disk.items()}
    shape = _infer(_fuse_shapes(found))
    problem = describe_mismatch(shape.tensor_shapes(), found, of="model", says="a ViT of these sizes has")
    if problem is not None:
        raise WeightsError(f"The state dict is no whole member's: {problem}.")
    fused: dict[str, list[Tensor]] = {}
    for name in shape.tensor_shapes():
        fused.setdefault(_timm_name(name) or name, []).append(disk[name])
    converted = {name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in fused.items()}
    return {name: converted[name] for name in timm_shapes(shape)}


def timm_shapes(shape: ViTShape) -> dict[str, tuple[int, ...]]:
    """Timm's name and the shape of every tensor of a plain ViT, in timm's order.

    Args:
        shape: Its sizes.
    """
    shapes = _fuse_shapes(shape.tensor_shapes())
    return {name: shapes[name] for name in sorted(shapes, key=_place)}


def infer_shape(state: Mapping[str, Tensor]) -> ViTShape:
    """The sizes of a plain ViT, from the shapes of its tensors.

    Args:
        state: In timm's names.

    Raises:
        WeightsError: A tensor that says a size is missing or has another form, or images would not be square.
    """
    return _infer({name: tuple(tensor.shape) for name, tensor in state.items()})


def _infer(shapes: Mapping[str, tuple[int, ...]]) -> ViTShape:
    mlp = any(name.startswith(("head.0.", "head.2.")) for name in shapes)
    heads = ("head.0.weight", "head.2.weight") if mlp else ("head.weight",)
    if not any(name.startswith("head.") for name in shapes):
        raise WeightsError(
            "head.weight is missing: the model has no head (num_classes=0). A member has one: give it one with timm's "
            'reset_classifier(<classes>), or add "head.weight" and "head.bias" to the state dict.'
        )
    for name, dimensions in (_DIMENSIONS | dict.fromkeys(heads, 2)).items():
        if name not in shapes:
            raise WeightsError(
                f"{name} is missing: expected the whole state dict of a plain ViT, which has a CLS token and learned "
                f"positions.{did_you_mean(name, shapes)}"
            )
        if len(shapes[name]) != dimensions or 0 in shapes[name]:
            raise WeightsError(f"{name} is {list(shapes[name])}", expected=f"{dimensions} dimensions")
    hidden, channels, height, width = shapes["patch_embed.proj.weight"]
    rows = shapes["pos_embed"][1]
    side = isqrt(rows)
    if height != width or rows - side * side not in (0, 1) or side == 0:
        raise WeightsError(
            f"pos_embed has {rows} rows and patches are {height} x {width}",
            expected="a row for each patch of a square image and one for the CLS token: a member's images and "
            "patches are square",
        )
    blocks = {int(match[1]) for name in shapes if (match := _TIMM_BLOCK.fullmatch(name))}
    return ViTShape(
        image_size=side * height,
        patch_size=height,
        num_channels=channels,
        hidden_size=hidden,
        num_hidden_layers=min(max(blocks) + 1, len(blocks) + 100),  # a hostile number asks for no more
        intermediate_size=shapes["blocks.0.mlp.fc1.weight"][0],
        qkv_bias=any(name.endswith(".attn.qkv.bias") for name in shapes),
        num_labels=shapes[heads[-1]][0],
        head_width=shapes["head.0.weight"][0] if mlp else None,
    )


def _refuse_unknown(names: Mapping[str, object]) -> None:
    unknown = [name for name in names if _disk_names(name) is None]
    for pattern, feature in _FEATURES.items():
        for name in unknown:
            if re.fullmatch(pattern, name):
                raise WeightsError(
                    f'"{printable(name)}" says that the model has {feature}; a zoo member is a plain ViT '
                    "(CLS token, learned positions, pre-norm blocks, a linear head), which has none."
                )
    if not unknown:
        return
    prefix = unknown[0].partition(".")[0] + "."
    if all(name.startswith(prefix) for name in names) and _disk_names(unknown[0].removeprefix(prefix)) is not None:
        raise WeightsError(
            f'Every name begins with "{printable(prefix)}", of what the model was wrapped in',
            expected=f'''timm's own names: take it off, {{name.removeprefix("{printable(prefix)}"): ...}}''',
        )
    raise WeightsError(
        f'No plain ViT of timm\'s has a tensor "{printable(unknown[0])}".{did_you_mean(unknown[0], _TIMM_EXAMPLES)}'
    )


def _disk_names(name: str) -> list[str] | None:
    """What a tensor of timm's is on disk, three where it is fused; None for what no plain ViT has."""
    match = _TIMM_BLOCK.fullmatch(name)
    if match is not None:
        number, module, end = match.groups()
        if str(int(number)) != number:
            return None
        if module == "attn.qkv":
            return [f"vit.encoder.layer.{number}.attention.attention.{part}.{end}" for part in _QKV]
        return [f"vit.encoder.layer.{number}.{_IN_BLOCK[module]}.{end}"] if module in _IN_BLOCK else None
    if name in ("cls_token", "pos_embed"):
        return [_ENDS[name]]
    module, _, end = name.rpartition(".")
    return [f"{_ENDS[module]}.{end}"] if module in _ENDS and end in ("weight", "bias") else None


_TO_TIMM = {disk: timm for timm, disk in (_ENDS | _IN_BLOCK).items()}


def _timm_name(name: str) -> str | None:
    """What an on-disk tensor is, or is a part of, in timm's names; None for what no member has."""
    match = _DISK_BLOCK.fullmatch(name)
    module, end = (match[2], match[3]) if match else (name, "") if name in _TO_TIMM else name.rpartition(".")[::2]
    timm = "attn.qkv" if match and _DISK_QKV.fullmatch(module) else _TO_TIMM.get(module)
    if timm is None:
        return None
    found = f"blocks.{match[1]}.{timm}.{end}" if match else f"{timm}.{end}".removesuffix(".")
    return found if name in (_disk_names(found) or ()) else None


def _fuse_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """On-disk shapes under timm's names: three times the query's rows, whatever key and value have."""
    fused: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        timm = _timm_name(name) or name
        if ".attn.qkv." in timm:
            shape = (3 * shape[0], *shape[1:]) if shape else shape
        fused.setdefault(timm, shape)
    return fused


_TIMM_BLOCK_ORDER = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def _place(name: str) -> tuple[int, int, int, bool]:
    """Where a tensor stands in timm's state dict."""
    match = _TIMM_BLOCK.fullmatch(name)
    if match is not None:
        return (1, int(match[1]), _TIMM_BLOCK_ORDER.index(match[2]), name.endswith(".bias"))
    module = name if name in _ENDS else name.rpartition(".")[0]
    place = list(_ENDS).index(module)
    return (0 if place < 3 else 2, place, 0, name.endswith(".bias"))


# Names to be the nearest of: those of one block and both heads.
_SMALLEST = ViTShape(
    image_size=1,
    patch_size=1,
    num_channels=1,
    hidden_size=1,
    num_hidden_layers=1,
    intermediate_size=1,
    qkv_bias=True,
    num_labels=1,
    head_width=None,
)
_TIMM_EXAMPLES = tuple(timm_shapes(_SMALLEST))
_EXAMPLES = tuple(_SMALLEST.tensor_shapes())
