"""Convert the tensor names of a plain ViT between timm and a zoo, without timm or transformers.

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

Each direction is the exact inverse of the other. See `vitzoo.interop.timm` for models.
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

_PLAIN = "a plain ViT (CLS token, learned positions, pre-norm blocks, a linear or MLP head)"
_DIMENSIONS = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}


def from_timm_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert timm's state dict of a plain ViT to on-disk names without copying tensors.

    Args:
        state: State dict of a `timm.models.VisionTransformer` with a linear head, or with ``head.0`` and ``head.2``.

    Returns:
        On-disk names to tensors, in the order of the network. Queries, keys and values are views of the fused rows. A
        model without a position for its CLS token (``no_embed_class``) gets a row of zeros, which computes the same.

    Raises:
        WeightsError: The state dict is not a plain ViT's, or is not whole. The message names the tensor.
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
        raise WeightsError(f"The state dict is not a whole plain ViT of timm: {problem}")
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = _disk_names(name) or []
        converted.update(zip(names, tensor.chunk(len(names)), strict=True))
    return {name: converted[name] for name in VIT.network_order(converted)}


def to_timm_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a member's state dict to timm's names: the inverse of `from_timm_state`.

    Args:
        state: State dict under on-disk names or a module's names.

    Returns:
        timm's names to tensors, in timm's order. Queries, keys and values are copied into one tensor.

    Raises:
        WeightsError: The state dict is not a member's, or is not whole. The message names the tensor.
    """
    disk = {disk_name(name): tensor for name, tensor in state.items()}
    for name in disk:
        if _timm_name(name) is None:
            raise WeightsError(f'No member has a tensor "{printable(name)}"')
    found = {name: tuple(tensor.shape) for name, tensor in disk.items()}
    shape = _infer(_fuse_shapes(found))
    problem = describe_mismatch(shape.tensor_shapes(), found, of="model", says="a ViT of these sizes has")
    if problem is not None:
        raise WeightsError(f"The state dict is not a whole member: {problem}")
    fused: dict[str, list[Tensor]] = {}
    for name in shape.tensor_shapes():
        fused.setdefault(_timm_name(name) or name, []).append(disk[name])
    converted = {name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in fused.items()}
    return {name: converted[name] for name in timm_shapes(shape)}


def timm_shapes(shape: ViTShape) -> dict[str, tuple[int, ...]]:
    """Return timm's name and the shape of every tensor of a plain ViT, in timm's order."""
    shapes = _fuse_shapes(shape.tensor_shapes())
    return {name: shapes[name] for name in sorted(shapes, key=_place)}


def infer_shape(state: Mapping[str, Tensor]) -> ViTShape:
    """Return the sizes of a plain ViT from the shapes of its tensors under timm's names.

    Raises:
        WeightsError: A tensor that determines a size is missing or has another form, or images are not square.
    """
    return _infer({name: tuple(tensor.shape) for name, tensor in state.items()})


def _infer(shapes: Mapping[str, tuple[int, ...]]) -> ViTShape:
    mlp = any(name.startswith(("head.0.", "head.2.")) for name in shapes)
    heads = ("head.0.weight", "head.2.weight") if mlp else ("head.weight",)
    if not any(name.startswith("head.") for name in shapes):
        raise WeightsError(
            "head.weight is missing: the model has no head (num_classes=0)",
            fix="Give it one with timm's reset_classifier(<classes>).",
        )
    for name, dimensions in (_DIMENSIONS | dict.fromkeys(heads, 2)).items():
        if name not in shapes:
            raise WeightsError(f"{name} is missing", expected=f"the whole state dict of {_PLAIN}")
        if len(shapes[name]) != dimensions or 0 in shapes[name]:
            raise WeightsError(f"{name} is {list(shapes[name])}", expected=f"{dimensions} dimensions")
    hidden, channels, height, width = shapes["patch_embed.proj.weight"]
    rows = shapes["pos_embed"][1]
    side = isqrt(rows)
    if height != width or rows - side * side not in (0, 1) or side == 0:
        raise WeightsError(
            f"pos_embed has {rows} rows and patches are {height} x {width}",
            expected="a row for each patch of a square image and one for the CLS token, with square patches",
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
    unknown = next((name for name in names if _disk_names(name) is None), None)
    if unknown is None:
        return
    prefix = f"{unknown.partition('.')[0]}."
    if all(name.startswith(prefix) for name in names) and _disk_names(unknown.removeprefix(prefix)) is not None:
        fix = f'Remove it: {{name.removeprefix("{printable(prefix)}"): tensor for name, tensor in state.items()}}'
        raise WeightsError(f'Every name begins with "{printable(prefix)}"', expected="timm's own names", fix=fix)
    raise WeightsError(
        f'The model has a tensor "{printable(unknown)}"',
        expected=f"{_PLAIN}, which has none",
        fix=did_you_mean(unknown, _TIMM_EXAMPLES).strip(),
    )


def _disk_names(name: str) -> list[str] | None:
    """Return the on-disk names of a tensor of timm, three where it is fused; None for an unknown tensor."""
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
    """Return timm's name of an on-disk tensor, or of the tensor that it is a part of; None for an unknown tensor."""
    match = _DISK_BLOCK.fullmatch(name)
    module, end = (match[2], match[3]) if match else (name, "") if name in _TO_TIMM else name.rpartition(".")[::2]
    timm = "attn.qkv" if match and _DISK_QKV.fullmatch(module) else _TO_TIMM.get(module)
    if timm is None:
        return None
    full = f"blocks.{match[1]}.{timm}.{end}" if match else f"{timm}.{end}".removesuffix(".")
    return full if name in (_disk_names(full) or ()) else None


def _fuse_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return on-disk shapes under timm's names; a fused tensor has three times the rows of its query."""
    fused: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        timm = _timm_name(name) or name
        if ".attn.qkv." in timm:
            shape = (3 * shape[0], *shape[1:]) if shape else shape
        fused.setdefault(timm, shape)
    return fused


_TIMM_BLOCK_ORDER = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def _place(name: str) -> tuple[int, int, int, bool]:
    """Return the sort key of a tensor in timm's state dict."""
    match = _TIMM_BLOCK.fullmatch(name)
    if match is not None:
        return (1, int(match[1]), _TIMM_BLOCK_ORDER.index(match[2]), name.endswith(".bias"))
    module = name if name in _ENDS else name.rpartition(".")[0]
    place = list(_ENDS).index(module)
    return (0 if place < 3 else 2, place, 0, name.endswith(".bias"))


_MODULES = (*list(_ENDS)[2:], *(f"blocks.0.{module}" for module in _TIMM_BLOCK_ORDER))
_TIMM_EXAMPLES = ("cls_token", "pos_embed", *(f"{module}.{end}" for module in _MODULES for end in ("weight", "bias")))
