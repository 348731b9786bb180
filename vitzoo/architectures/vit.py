"""Declare a ViT: tensor names on disk and in memory, shapes, the rules of config.json, and the graph.

On disk, tensors have the names that transformers has always written for a ViT (``vit.encoder.layer.3...query.weight``).
In memory, transformers 5 spells them differently (``vit.layers.3.attention.q_proj.weight``). Files keep the old names:
a test freezes this table. No torch, no transformers.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from vitzoo.architectures.architecture import Architecture, FirstValue, HeadWidth, Shapes, hidden_widths
from vitzoo.architectures.config_json import (
    ACTIVATION,
    BOOLEAN,
    COMMON_FIELDS,
    NULLABLE_SIZE,
    PROBABILITY,
    SIZE,
    check_labels,
    one_of,
)
from vitzoo.architectures.symmetry import STREAM, Axes, Block, Symmetry
from vitzoo.errors import ConfigError
from vitzoo.records.fields import FieldError, PositiveInt

if TYPE_CHECKING:
    from vitzoo.architectures.graph import GraphPlan, Nodes

# In memory -> on disk, after "vit.layers.<N>." and "vit.encoder.layer.<N>.".
_LAYER_NAMES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "layernorm_before": "layernorm_before",
    "layernorm_after": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_TO_MEMORY = {disk: memory for memory, disk in _LAYER_NAMES.items()}
_IN_MEMORY = re.compile(r"vit\.layers\.(\d+)\.(.+)\.(weight|bias)")
_ON_DISK = re.compile(r"vit\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
_FIRST = (
    "vit.embeddings.cls_token",
    "vit.embeddings.position_embeddings",
    "vit.embeddings.patch_embeddings.projection",
)
_LAST = ("vit.layernorm", "classifier", "classifier.fc1", "classifier.fc2")
_UNKNOWN = 3  # place of an unknown name, after embeddings, blocks, final norm and head
_IN_BLOCK = {disk: place for place, disk in enumerate(_LAYER_NAMES.values())}
# Groups of a linear layer's rows and columns; a LayerNorm has rows alone.
_GROUPS: dict[str, tuple[str, str | None]] = {
    **dict.fromkeys(("attention.attention.query", "attention.attention.key"), ("query_key.{}", STREAM)),
    "attention.attention.value": ("values.{}", STREAM),
    "attention.output.dense": (STREAM, "values.{}"),
    **dict.fromkeys(("layernorm_before", "layernorm_after"), (STREAM, None)),
    "intermediate.dense": ("units.{}", STREAM),
    "output.dense": (STREAM, "units.{}"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ViTSizes:
    """The sizes of a ViT's backbone.

    Args:
        image_size: Side of the square input, pixels.
        patch_size: Side of a square patch, pixels.
        hidden_size: Width of a token.
        num_hidden_layers: Blocks.
        num_attention_heads: Heads of a block.
        intermediate_size: Width of a block's MLP.
    """

    image_size: PositiveInt
    patch_size: PositiveInt
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt

    @property
    def num_patches(self) -> int:
        """The number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    def shape(self, *, outputs: int, head_width: HeadWidth, role: str = "classifier") -> "ViTShape":
        """Return the values that decide the shapes of the tensors. See `vitzoo.architectures.Sizes` for arguments.

        Raises:
            FieldError: The head has several hidden layers.
        """
        del role  # classifiers and embeddings have the same tensors
        widths = hidden_widths(head_width)
        if len(widths) > 1:
            raise FieldError("head_width", head_width, "one hidden layer at most, in the head of a ViT")
        return ViTShape(
            image_size=self.image_size,
            patch_size=self.patch_size,
            num_channels=3,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            intermediate_size=self.intermediate_size,
            qkv_bias=True,
            num_labels=outputs,
            head_width=widths[0] if widths else None,
        )

    def flops(self, *, tokens: int | None = None) -> float:
        """Return the floating-point operations of the backbone's forward pass over an image.

        Source: a multiplication and an addition for each weight and token (Kaplan et al. 2020, section 2.1), and the
            two products of attention.
        """
        patches, hidden = self.num_patches, self.hidden_size
        tokens = patches + 1 if tokens is None else tokens
        block = tokens * (4 * hidden**2 + 2 * hidden * self.intermediate_size) + 2 * tokens**2 * hidden
        return 2 * (self.num_hidden_layers * block + patches * 3 * self.patch_size**2 * hidden)


@dataclass(frozen=True, kw_only=True, slots=True)
class ViTShape:
    """The sizes that decide the shapes of a ViT's tensors.

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
        """The number of patches, plus one for the CLS token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def num_tensors(self) -> int:
        """The number of tensors, counted without listing them."""
        return 6 + self.num_hidden_layers * (16 if self.qkv_bias else 13) + (2 if self.head_width is None else 4)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the on-disk name and shape of every tensor: embeddings, blocks in order, final norm, head."""
        hidden, wide, patch = self.hidden_size, self.intermediate_size, self.patch_size
        shapes: dict[str, tuple[int, ...]] = {
            "vit.embeddings.cls_token": (1, 1, hidden),
            "vit.embeddings.position_embeddings": (1, self.num_tokens, hidden),
            "vit.embeddings.patch_embeddings.projection.weight": (hidden, self.num_channels, patch, patch),
            "vit.embeddings.patch_embeddings.projection.bias": (hidden,),
        }
        linear = {"mlp.fc1": (wide, hidden), "mlp.fc2": (hidden, wide)}
        for layer in range(self.num_hidden_layers):
            for memory, disk in _LAYER_NAMES.items():
                name = f"vit.encoder.layer.{layer}.{disk}"
                if memory.startswith("layernorm"):
                    shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
                    continue
                rows, columns = linear.get(memory, (hidden, hidden))
                shapes[f"{name}.weight"] = (rows, columns)
                if self.qkv_bias or memory not in ("attention.q_proj", "attention.k_proj", "attention.v_proj"):
                    shapes[f"{name}.bias"] = (rows,)
        shapes |= {"vit.layernorm.weight": (hidden,), "vit.layernorm.bias": (hidden,)}
        widths = [hidden, self.num_labels] if self.head_width is None else [hidden, self.head_width, self.num_labels]
        names = ["classifier"] if self.head_width is None else ["classifier.fc1", "classifier.fc2"]
        for name, columns, rows in zip(names, widths, widths[1:], strict=False):
            shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
        return shapes


_SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("image_size", "patch_size", "num_channels"),
)
_CLASSES = Annotated[list[Literal["ViTForImageClassification", "VitZooModel"]], Meta(max_length=1)]
_CONFIG_FIELDS = COMMON_FIELDS | {
    **dict.fromkeys(_SIZES, SIZE),
    "model_type": one_of("vit", "vitzoo"),
    "architectures": Annotated[_CLASSES | None, Meta(description='["ViTForImageClassification"] or ["VitZooModel"]')],
    "hidden_act": ACTIVATION,
    "hidden_dropout_prob": PROBABILITY,
    "attention_probs_dropout_prob": PROBABILITY,
    "qkv_bias": BOOLEAN,
    "encoder_stride": SIZE,
    "pooler_output_size": NULLABLE_SIZE,
    "pooler_act": ACTIVATION,
}


_BIAS = 0.01  # first value of the biases of the encoder and of a linear head
_TOKENS = {_FIRST[0]: 1e-6, _FIRST[1]: 0.02}  # standard deviations of first values


class _ViT(Architecture):
    backbone = "vit"
    modality = "images"
    sizes = ViTSizes
    classes = {"config": "VitZooConfig", "classifier": "VitZooModel", "embedding": "VitZooModel"}  # noqa: RUF012
    model_types = ("vit", "vitzoo")
    config_fields = _CONFIG_FIELDS
    required_fields = ("model_type", *_SIZES, "layer_norm_eps")
    recipe_keys = (
        *("image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
        "intermediate_size",
    )
    training_keys = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "problem_type")
    shared_keys = ("hidden_act", "layer_norm_eps", *training_keys)

    def disk_name(self, name: str) -> str:
        match = _IN_MEMORY.fullmatch(name)
        if match is None or match[2] not in _LAYER_NAMES:
            return name
        return f"vit.encoder.layer.{match[1]}.{_LAYER_NAMES[match[2]]}.{match[3]}"

    def memory_name(self, name: str) -> str:
        match = _ON_DISK.fullmatch(name)
        if match is None or match[2] not in _TO_MEMORY:
            return name
        return f"vit.layers.{match[1]}.{_TO_MEMORY[match[2]]}.{match[3]}"

    def is_head(self, name: str) -> bool:
        return name.startswith("classifier.")

    def layer_name(self, name: str) -> str:
        match = _ON_DISK.fullmatch(self.disk_name(name))
        return f"layer.{match[1]}" if match else name.removeprefix("vit.").partition(".")[0]

    def network_order(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=self._place)

    def _place(self, name: str) -> tuple[int, int, int, bool, str]:
        module, is_bias, match = self.module_name(name), name.endswith(".bias"), _ON_DISK.fullmatch(name)
        if match is not None and match[2] in _IN_BLOCK:
            return (1, int(match[1]), _IN_BLOCK[match[2]], is_bias, name)
        if module in _FIRST:
            return (0, _FIRST.index(module), 0, is_bias, name)
        if module in _LAST:
            return (2, _LAST.index(module), 0, is_bias, name)
        return (_UNKNOWN, 0, 0, is_bias, name)

    def first_value(self, name: str, shapes: Shapes, config: Mapping[str, Any]) -> FirstValue:
        """Return the rule of a tensor's first value.

        encoder and linear head   kaiming_normal (fan in, gain sqrt 2), biases .01; LayerNorm: 1 and 0
        cls_token, positions      normal, std 1e-6 and .02
        MLP head                  PyTorch's default for Linear: uniform within 1 / sqrt(fan in), weights and biases

        timm truncates its normal at +-2, which is 100 standard deviations here, so nothing is truncated.

        Source:
            He et al. 2015 (kaiming_normal) as in the zoo's `NNmodule`; timm's `VisionTransformer` for tokens and
            positions.
        """
        if name in _TOKENS:
            return FirstValue("normal", _TOKENS[name])
        module, is_bias = self.module_name(name), name.endswith(".bias")
        if self._place(name)[0] == _UNKNOWN:
            raise ValueError(f"no rule initialises {name}. Add its rule to vitzoo/architectures/vit.py.")
        if module.rpartition(".")[2].startswith("layernorm"):
            return FirstValue("constant", 0.0 if is_bias else 1.0)
        fan_in = math.prod(shapes[f"{module}.weight"][1:])
        if module.startswith("classifier."):
            return FirstValue("uniform", 1 / math.sqrt(fan_in))
        return FirstValue("constant", _BIAS) if is_bias else FirstValue("normal", math.sqrt(2 / fan_in))

    def check_config(self, path: Path, config: dict[str, Any]) -> None:
        if config["model_type"] == "vit" and config.keys() & {"head_type", "head_width"}:
            raise ConfigError(
                f'{path} says model_type "vit" and a head type',
                expected='"vitzoo" for a model with a head type',
                path=path,
                key="model_type",
            )
        check_labels(path, config)

    def symmetry(self, names: Iterable[str]) -> Symmetry:
        axes: dict[str, Axes] = {}
        for name in names:
            module, is_bias, match = self.module_name(name), name.endswith(".bias"), _ON_DISK.fullmatch(name)
            if match is not None:
                rows, columns = _GROUPS[match[2]]
                both = tuple(group and group.format(match[1]) for group in (rows, columns))
                axes[name] = both[:1] if is_bias or columns is None else both
            elif module in _FIRST[:2]:
                axes[name] = (None, None, STREAM)
            elif module in (_FIRST[2], "vit.layernorm"):
                axes[name] = (STREAM, None, None, None) if module == _FIRST[2] and not is_bias else (STREAM,)
            else:
                is_reader = module in ("classifier", "classifier.fc1") and not is_bias
                axes[name] = (None, STREAM) if is_reader else (None,) if is_bias else (None, None)
        numbers = sorted({int(match[1]) for match in map(_ON_DISK.fullmatch, axes) if match is not None})
        readers: dict[str, tuple[str, ...]] = {}
        blocks = []
        for number in numbers:
            parts = {memory: f"vit.encoder.layer.{number}.{disk}" for memory, disk in _LAYER_NAMES.items()}
            query, key, value, output, before, after, first, _ = parts.values()
            readers |= {before: (query, key, value), after: (first,)}
            groups = {"query_key": f"query_key.{number}", "values": f"values.{number}", "units": f"units.{number}"}
            blocks.append(Block(query=query, key=key, value=value, output=output, **groups))
        heads = tuple(name.removesuffix(".weight") for name in axes if axes[name] == (None, STREAM))
        return Symmetry(axes=axes, blocks=tuple(blocks), readers=readers | {"vit.layernorm": heads})

    def plan_graph(self, plan: "GraphPlan") -> None:
        """Add the nodes and edges of a whole ViT, or of its backbone or head alone.

        pixel -linear-> patch -residual-> embedding -scale-> norm_before -linear-> query, key, value
        cls_token, position -embedding-> embedding
        query -attention-> key -attention-> attention_head -attention-> value -linear-> attention_output
        embedding -residual-> attention_output -scale-> norm_after -linear-> mlp_hidden -linear-> mlp_output
        attention_output -residual-> mlp_output -scale-> the next block's norm_before, or final_norm
        final_norm -linear-> output, or final_norm -linear-> classifier_hidden -linear-> output
        """
        layers = list(dict.fromkeys(map(self.layer_name, plan.shapes)))
        stream = _plan_embeddings(plan) if "embeddings" in layers else plan.add_nodes("embedding", 0, plan.width)
        blocks = [name for name in layers if name.startswith("layer.")]
        for layer, name in enumerate(blocks, 1):
            stream = _plan_block(plan, stream, f"vit.encoder.{name}", layer)
        if "layernorm" in layers:
            stream = plan.norm("final_norm", len(blocks) + 1, stream, "vit.layernorm")
        if "classifier.weight" in plan.shapes:
            plan.linear("output", len(blocks) + 2, stream, "classifier")
        elif "classifier" in layers:
            hidden = plan.linear("classifier_hidden", len(blocks) + 2, stream, "classifier.fc1")
            plan.linear("output", len(blocks) + 2, hidden, "classifier.fc2")


def _plan_embeddings(plan: "GraphPlan") -> "Nodes":
    projection = "vit.embeddings.patch_embeddings.projection"
    width, *pixels = plan.shape_of(f"{projection}.weight")
    patches = plan.linear("patch", 0, plan.add_nodes("pixel", 0, math.prod(pixels)), projection)
    stream = plan.add_nodes("embedding", 0, width)
    plan.add_edges("residual", patches, stream)
    for kind, name in (("cls_token", _FIRST[0]), ("position", _FIRST[1])):
        tokens = plan.add_nodes(kind, 0, plan.shape_of(name)[1])
        plan.add_edges("embedding", tokens[:, None], stream[None, :], name)
    return stream


def _plan_block(plan: "GraphPlan", stream: "Nodes", block: str, layer: int) -> "Nodes":
    modules = {memory: f"{block}.{disk}" for memory, disk in _LAYER_NAMES.items()}
    normed = plan.norm("norm_before", layer, stream, modules["layernorm_before"])
    query = plan.linear("query", layer, normed, modules["attention.q_proj"])
    key = plan.linear("key", layer, normed, modules["attention.k_proj"])
    value = plan.linear("value", layer, normed, modules["attention.v_proj"])
    plan.attention(layer, query, key, value)
    attended = plan.linear("attention_output", layer, value, modules["attention.o_proj"])
    plan.add_edges("residual", stream, attended)
    normed = plan.norm("norm_after", layer, attended, modules["layernorm_after"])
    hidden = plan.linear("mlp_hidden", layer, normed, modules["mlp.fc1"])
    output = plan.linear("mlp_output", layer, hidden, modules["mlp.fc2"])
    plan.add_edges("residual", attended, output)
    return output


VIT = _ViT()
