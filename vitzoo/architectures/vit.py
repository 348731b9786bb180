"""The tensors of a member: their names on disk and in memory, their shapes, and which belong to the head.

On disk, names are those that transformers has always written for a ViT (``vit.encoder.layer.3...query.weight``);
in memory, transformers 5 spells them anew (``vit.layers.3.attention.q_proj.weight``). Files keep the old ones for
good: this table is frozen by a test. Pure: no torch, no transformers.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HEAD_PREFIX = "classifier."

# In memory -> on disk, for what stands behind "vit.layers.<N>." and "vit.encoder.layer.<N>.".
LAYER_NAMES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "layernorm_before": "layernorm_before",
    "layernorm_after": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_TO_MEMORY = {disk: memory for memory, disk in LAYER_NAMES.items()}
_IN_MEMORY = re.compile(r"vit\.layers\.(\d+)\.(.+)\.(weight|bias)")
_ON_DISK = re.compile(r"vit\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")


def disk_name(name: str) -> str:
    """A tensor's name on disk, from either spelling."""
    match = _IN_MEMORY.fullmatch(name)
    if match is None or match[2] not in LAYER_NAMES:
        return name
    return f"vit.encoder.layer.{match[1]}.{LAYER_NAMES[match[2]]}.{match[3]}"


def memory_name(name: str) -> str:
    """A tensor's name in a module's state dict, from either spelling."""
    match = _ON_DISK.fullmatch(name)
    if match is None or match[2] not in _TO_MEMORY:
        return name
    return f"vit.layers.{match[1]}.{_TO_MEMORY[match[2]]}.{match[3]}"


def is_head(name: str) -> bool:
    """Whether a tensor belongs to the head rather than to the backbone; the same in both spellings."""
    return name.startswith(HEAD_PREFIX)


def layer_name(name: str) -> str:
    """The layer that a tensor belongs to: ``embeddings``, ``layer.<N>``, ``layernorm`` or ``classifier``."""
    match = _ON_DISK.fullmatch(disk_name(name))
    return f"layer.{match[1]}" if match else name.removeprefix("vit.").partition(".")[0]


def module_name(name: str) -> str:
    """What a tensor is the weight or the bias of, as on disk; its own name where it is neither."""
    return re.sub(r"\.(?:weight|bias)$", "", disk_name(name))


def network_order(names: Iterable[str]) -> list[str]:
    """On-disk names in the order of the network, that of `tensor_shapes`; names that no member has come last."""
    return sorted(names, key=_place)


_FIRST = (
    "vit.embeddings.cls_token",
    "vit.embeddings.position_embeddings",
    "vit.embeddings.patch_embeddings.projection",
)
_LAST = ("vit.layernorm", "classifier", "classifier.fc1", "classifier.fc2")
_IN_BLOCK = {disk: place for place, disk in enumerate(LAYER_NAMES.values())}


def _place(name: str) -> tuple[int, int, int, bool, str]:
    module, is_bias, match = module_name(name), name.endswith(".bias"), _ON_DISK.fullmatch(name)
    if match is not None and match[2] in _IN_BLOCK:
        return (1, int(match[1]), _IN_BLOCK[match[2]], is_bias, name)
    if module in _FIRST:
        return (0, _FIRST.index(module), 0, is_bias, name)
    if module in _LAST:
        return (2, _LAST.index(module), 0, is_bias, name)
    return (3, 0, 0, is_bias, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class ViTShape:
    """What decides the shapes of a member's tensors.

    Args:
        image_size: Side of the square input, pixels.
        patch_size: Side of a square patch, pixels.
        num_channels: Channels of the input.
        hidden_size: Width of a token.
        num_hidden_layers: Blocks.
        intermediate_size: Width of a block's MLP.
        qkv_bias: Whether query, key and value have biases.
        num_labels: Width of the head's output.
        head_width: Width of an MLP head's hidden layer; None for a linear head.
    """

    image_size: int
    patch_size: int
    num_channels: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    qkv_bias: bool
    num_labels: int
    head_width: int | None

    @property
    def num_tokens(self) -> int:
        """Patches and the CLS token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def num_tensors(self) -> int:
        """How many tensors `tensor_shapes` has, without making them."""
        return 6 + self.num_hidden_layers * (16 if self.qkv_bias else 13) + (2 if self.head_width is None else 4)


def tensor_shapes(shape: ViTShape) -> dict[str, tuple[int, ...]]:
    """The on-disk name and shape of every tensor of a member.

    Returns:
        Names to shapes, embeddings first, then the blocks in order, the final norm and the head.
    """
    hidden, wide = shape.hidden_size, shape.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "vit.embeddings.cls_token": (1, 1, hidden),
        "vit.embeddings.position_embeddings": (1, shape.num_tokens, hidden),
        "vit.embeddings.patch_embeddings.projection.weight": (
            hidden,
            shape.num_channels,
            shape.patch_size,
            shape.patch_size,
        ),
        "vit.embeddings.patch_embeddings.projection.bias": (hidden,),
    }
    linear = {"mlp.fc1": (wide, hidden), "mlp.fc2": (hidden, wide)}
    for layer in range(shape.num_hidden_layers):
        for memory, disk in LAYER_NAMES.items():
            name = f"vit.encoder.layer.{layer}.{disk}"
            if memory.startswith("layernorm"):
                shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
                continue
            rows, columns = linear.get(memory, (hidden, hidden))
            shapes[f"{name}.weight"] = (rows, columns)
            if shape.qkv_bias or memory not in ("attention.q_proj", "attention.k_proj", "attention.v_proj"):
                shapes[f"{name}.bias"] = (rows,)
    shapes |= {"vit.layernorm.weight": (hidden,), "vit.layernorm.bias": (hidden,)}
    return shapes | head_shapes(shape)


def head_shapes(shape: ViTShape) -> dict[str, tuple[int, ...]]:
    """The on-disk name and shape of the head's tensors: ``classifier`` or ``classifier.fc1`` and ``classifier.fc2``."""
    if shape.head_width is None:
        return {"classifier.weight": (shape.num_labels, shape.hidden_size), "classifier.bias": (shape.num_labels,)}
    return {
        "classifier.fc1.weight": (shape.head_width, shape.hidden_size),
        "classifier.fc1.bias": (shape.head_width,),
        "classifier.fc2.weight": (shape.num_labels, shape.head_width),
        "classifier.fc2.bias": (shape.num_labels,),
    }


def describe_mismatch(
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    *,
    of: str = "model",
    says: str = "the config says",
) -> str | None:
    """What is wrong between the tensors that are expected and those found; None where nothing is.

    Args:
        expected: Names to shapes, by the config of a model, or by whatever else says so.
        found: Names to shapes, in the file.
        of: What the expected tensors are in.
        says: Who says what their shapes are.

    Returns:
        The first few differences in one line, for an error message.
    """
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not in the {of}" for name in found if name not in expected]
    problems += [
        f"{name} is {list(found[name])}, {says} {list(expected[name])}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    if not problems:
        return None
    more = len(problems) - 3
    return "; ".join(problems[:3]) + (f"; and {more} more" if more > 0 else "")


def describe_misfit(shape: ViTShape, found: Mapping[str, tuple[int, ...]]) -> str | None:
    """What is wrong between a config's shape and the tensors of a file; None where nothing is.

    Nothing is made of a hostile number of layers: as many tensors are counted first.

    Args:
        shape: The config's.
        found: Names to shapes, in the file.

    Returns:
        As `describe_mismatch`.
    """
    if shape.num_tensors > len(found) + 10_000:
        return f"the config's {shape.num_hidden_layers} layers have {shape.num_tensors} tensors, the file {len(found)}"
    return describe_mismatch(tensor_shapes(shape), found)
