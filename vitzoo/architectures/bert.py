"""Declare a BERT: tensor names, shapes, the rules of config.json, first values, and the graph.

Names on disk and in memory are equal, and are the ones that transformers has written since its version 4. The output
weights and biases of a masked head are the token embeddings and ``cls.predictions.bias`` under other names. Files have
them once. The pooler belongs to the head, because a masked model has none, unless it also has a head for next sentences
(``BertForPreTraining``). No torch, no transformers.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from vitzoo.architectures.architecture import Architecture, FirstValue, HeadWidth, Shapes, hidden_widths
from vitzoo.architectures.config_json import (
    ACTIVATION,
    BOOLEAN,
    COMMON_FIELDS,
    MAX_SIZE,
    PROBABILITY,
    SIZE,
    check_labels,
    one_of,
    unfit,
)
from vitzoo.architectures.symmetry import STREAM, Axes, Block, Symmetry
from vitzoo.errors import ConfigError
from vitzoo.records.fields import FieldError, Positive, PositiveInt

if TYPE_CHECKING:
    from vitzoo.architectures.graph import GraphPlan, Nodes

ROLES = ("masked", "classifier")
MAX_DEPTH = 16  # hidden layers of an MLP head

_EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_FIRST = tuple(f"bert.embeddings.{name}" for name in (*_EMBEDDINGS, "LayerNorm"))
_IN_BLOCK = (
    *("attention.self.query", "attention.self.key", "attention.self.value"),
    *("attention.output.dense", "attention.output.LayerNorm"),
    *("intermediate.dense", "output.dense", "output.LayerNorm"),
)
# Groups of a linear layer's rows and columns; a LayerNorm has those of the stream.
_GROUPS: dict[str, tuple[str, str | None]] = {
    **dict.fromkeys(("attention.self.query", "attention.self.key"), ("query_key.{}", STREAM)),
    "attention.self.value": ("values.{}", STREAM),
    "attention.output.dense": (STREAM, "values.{}"),
    "intermediate.dense": ("units.{}", STREAM),
    "output.dense": (STREAM, "units.{}"),
}
_POOLER, _TRANSFORM, _NORM, _PREDICTIONS, _NEXT = (
    *("bert.pooler.dense", "cls.predictions.transform.dense"),
    *("cls.predictions.transform.LayerNorm", "cls.predictions", "cls.seq_relationship"),
)
_LAST = (_POOLER, _TRANSFORM, _NORM, _PREDICTIONS, _NEXT, "classifier")
_PLACES = {name: place for place, name in enumerate(_IN_BLOCK)}
_UNKNOWN = 3  # place of an unknown name, after embeddings, blocks and head
_BLOCK = re.compile(r"bert\.encoder\.layer\.(\d+)\.(.+)\.(?:weight|bias)")
_HIDDEN = re.compile(r"classifier\.fc([1-9][0-9]{0,2})")
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


@dataclass(frozen=True, kw_only=True, slots=True)
class BertSizes:
    """The sizes of a BERT's backbone.

    Args:
        vocab_size: Tokens of the vocabulary.
        max_position_embeddings: Positions: the most tokens of a text, special ones included.
        hidden_size: Width of a token.
        num_hidden_layers: Blocks.
        num_attention_heads: Heads of a block.
        intermediate_size: Width of a block's MLP.
        type_vocab_size: Kinds of sentences; 2 for pairs.
        initializer_range: Standard deviation of the first weights.
    """

    vocab_size: PositiveInt
    max_position_embeddings: PositiveInt
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    type_vocab_size: PositiveInt = 2
    initializer_range: Positive = 0.02

    def shape(self, *, outputs: int, head_width: HeadWidth, role: str) -> "BertShape":
        """Return the values that decide the shapes of the tensors. See `vitzoo.architectures.Sizes` for arguments.

        Raises:
            FieldError: A masked head has hidden layers, or the head has another role or too many layers.
        """
        widths = hidden_widths(head_width)
        if role not in ROLES:
            raise FieldError("role", role, f"one of {', '.join(ROLES)} for a BERT")
        if role == "masked" and widths:
            raise FieldError("head_width", head_width, "None for a masked head, which has no hidden layers")
        if len(widths) > MAX_DEPTH:
            raise FieldError("head_width", head_width, f"{MAX_DEPTH} hidden layers at most")
        return BertShape(
            vocab_size=self.vocab_size,
            max_position_embeddings=self.max_position_embeddings,
            type_vocab_size=self.type_vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            intermediate_size=self.intermediate_size,
            num_labels=outputs,
            head_widths=widths,
            head_role=role,
        )

    def flops(self, *, tokens: int | None = None) -> float:
        """Return the floating-point operations of the backbone's forward pass over a row of tokens.

        Source: a multiplication and an addition for each weight and token (Kaplan et al. 2020, section 2.1), and the
            two products of attention.
        """
        tokens, hidden = self.max_position_embeddings if tokens is None else tokens, self.hidden_size
        block = tokens * (4 * hidden**2 + 2 * hidden * self.intermediate_size) + 2 * tokens**2 * hidden
        return 2 * self.num_hidden_layers * block


@dataclass(frozen=True, kw_only=True, slots=True)
class BertShape:
    """The sizes that decide the shapes of a BERT's tensors.

    Args:
        vocab_size: Tokens of the vocabulary.
        max_position_embeddings: Positions.
        type_vocab_size: Kinds of sentences.
        hidden_size: Width of a token.
        num_hidden_layers: Blocks.
        intermediate_size: Width of a block's MLP.
        num_labels: Width of a classifier's output.
        head_widths: Widths of the hidden layers of a classifier's MLP head; none for a linear head.
        head_role: ``masked`` or ``classifier``.
        next_sentence: Whether a masked model also has a head that says whether one text follows another.
    """

    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_labels: int
    head_widths: tuple[int, ...]
    head_role: str
    next_sentence: bool = False

    @property
    def num_tensors(self) -> int:
        """The number of tensors, counted without listing them."""
        masked = 9 if self.next_sentence else 5
        head = masked if self.head_role == "masked" else 4 + 2 * len(self.head_widths)
        return 5 + 16 * self.num_hidden_layers + head

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the on-disk name and shape of every tensor: embeddings, blocks in order, head."""
        hidden, wide = self.hidden_size, self.intermediate_size
        counts = (self.vocab_size, self.max_position_embeddings, self.type_vocab_size)
        shapes: dict[str, tuple[int, ...]] = {
            f"{name}.weight": (count, hidden) for name, count in zip(_FIRST, counts, strict=False)
        }

        def add(name: str, columns: int | None, rows: int) -> None:
            shapes[f"{name}.weight"] = (rows,) if columns is None else (rows, columns)
            shapes[f"{name}.bias"] = (rows,)

        add(_FIRST[-1], None, hidden)
        linear = {"intermediate.dense": (hidden, wide), "output.dense": (wide, hidden)}
        for layer in range(self.num_hidden_layers):
            for name in _IN_BLOCK:
                columns, rows = linear.get(name, (hidden, hidden))
                add(f"bert.encoder.layer.{layer}.{name}", None if name.endswith("LayerNorm") else columns, rows)
        if self.head_role == "classifier" or self.next_sentence:
            add(_POOLER, hidden, hidden)
        if self.head_role == "masked":
            add(_TRANSFORM, hidden, hidden)
            add(_NORM, None, hidden)
            shapes[f"{_PREDICTIONS}.bias"] = (self.vocab_size,)
            if self.next_sentence:
                add(_NEXT, hidden, 2)
            return shapes
        widths = (hidden, *self.head_widths, self.num_labels)
        for number, (columns, rows) in enumerate(pairwise(widths), 1):
            add(f"classifier.fc{number}" if self.head_widths else "classifier", columns, rows)
        return shapes


_SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("vocab_size", "max_position_embeddings", "type_vocab_size"),
)
PRETRAINING = "BertForPreTraining"
_ROLES = {
    "BertForMaskedLM": "masked",
    PRETRAINING: "masked",
    "BertZooForMaskedLM": "masked",
    "BertForSequenceClassification": "classifier",
    "BertZooForSequenceClassification": "classifier",
}
_CLASSES = Annotated[
    list[one_of(*_ROLES)],
    Meta(
        min_length=1,
        max_length=1,
        description='["BertForMaskedLM"], ["BertForPreTraining"] or ["BertForSequenceClassification"]',
    ),
]
_TOKEN = Annotated[
    Annotated[int, Meta(ge=0, lt=MAX_SIZE)] | None, Meta(description="the number of a token of the vocabulary, or null")
]
_FALSE = Annotated[bool, Meta(description="false: a zoo's BERT is an encoder")]
_CONFIG_FIELDS = {key: field for key, field in COMMON_FIELDS.items() if key not in ("head_width", "head_role")} | {
    **dict.fromkeys(_SIZES, SIZE),
    "model_type": one_of("bert", "bertzoo"),
    "architectures": _CLASSES,
    "hidden_act": ACTIVATION,
    "hidden_dropout_prob": PROBABILITY,
    "attention_probs_dropout_prob": PROBABILITY,
    "classifier_dropout": Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None, Meta(description="a number from 0 to 1, or null")
    ],
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), _TOKEN),
    **dict.fromkeys(("use_cache", "gradient_checkpointing"), BOOLEAN),
    **dict.fromkeys(("is_decoder", "add_cross_attention"), _FALSE),
    "tie_word_embeddings": Annotated[bool, Meta(description="true: a masked head's weights are the embeddings")],
    "position_embedding_type": one_of("absolute"),
    "head_widths": Annotated[
        list[Annotated[int, Meta(ge=1, le=MAX_SIZE)]],
        Meta(
            min_length=1,
            max_length=MAX_DEPTH,
            description=f"the widths of an MLP head's hidden layers, {MAX_DEPTH} at most",
        ),
    ],
}
_FIXED = {"is_decoder": False, "add_cross_attention": False, "tie_word_embeddings": True}


class _Bert(Architecture):
    backbone = "bert"
    modality = "text"
    sizes = BertSizes
    tied = {  # noqa: RUF012
        f"{_PREDICTIONS}.decoder.weight": f"{_FIRST[0]}.weight",
        f"{_PREDICTIONS}.decoder.bias": f"{_PREDICTIONS}.bias",
    }
    classes = {  # noqa: RUF012
        "config": "BertZooConfig",
        "masked": "BertZooForMaskedLM",
        "classifier": "BertZooForSequenceClassification",
    }
    model_types = ("bert", "bertzoo")
    config_fields = _CONFIG_FIELDS
    required_fields = ("model_type", "architectures", *_SIZES, "layer_norm_eps")
    recipe_keys = (
        *("vocab_size", "max_position_embeddings", "type_vocab_size", "hidden_size", "num_hidden_layers"),
        *("num_attention_heads", "intermediate_size", "initializer_range"),
    )
    training_keys = ("problem_type",)
    shared_keys = ("hidden_act", "layer_norm_eps", "pad_token_id", *training_keys)

    def is_head(self, name: str) -> bool:
        return self.disk_name(name).startswith(("bert.pooler.", "cls.", "classifier."))

    def layer_name(self, name: str) -> str:
        match = _BLOCK.fullmatch(name)
        return f"layer.{match[1]}" if match else self.disk_name(name).removeprefix("bert.").partition(".")[0]

    def network_order(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=self._place)

    def _place(self, name: str) -> tuple[int, int, int, bool, str]:
        module, is_bias, match = self.module_name(name), name.endswith(".bias"), _BLOCK.fullmatch(name)
        if match is not None and match[2] in _PLACES:
            return (1, int(match[1]), _PLACES[match[2]], is_bias, name)
        if module in _FIRST:
            return (0, _FIRST.index(module), 0, is_bias, name)
        if module in _LAST:
            return (2, _LAST.index(module), 0, is_bias, name)
        if (hidden := _HIDDEN.fullmatch(module)) is not None:
            return (2, len(_LAST), int(hidden[1]), is_bias, name)
        return (_UNKNOWN, 0, 0, is_bias, name)

    def first_value(self, name: str, shapes: Shapes, config: Mapping[str, Any]) -> FirstValue:
        """Return the rule of a tensor's first value.

        weights and embeddings   normal, std ``initializer_range``; biases 0; LayerNorm: 1 and 0
        MLP head                 kaiming_normal (fan in, gain sqrt 2), biases 0

        Source: Devlin et al. 2019, as in transformers, but the padding token is drawn like the others;
            ModelZoos/TransformerModelZooDataset, ``models/bert_sst.py`` for the MLP head.
        """
        if self._place(name)[0] == _UNKNOWN:
            raise ValueError(f"no rule initialises {name}. Add its rule to vitzoo/architectures/bert.py.")
        if name.endswith(".bias"):
            return FirstValue("constant", 0.0)
        if name.endswith("LayerNorm.weight"):
            return FirstValue("constant", 1.0)
        if name.startswith("classifier.fc"):
            return FirstValue("normal", math.sqrt(2 / shapes[name][1]))
        return FirstValue("normal", config["initializer_range"])

    def head_role(self, config: Mapping[str, Any]) -> str:
        return _ROLES.get((config.get("architectures") or [""])[0], "unknown")

    def check_config(self, path: Path, config: dict[str, Any]) -> None:
        for key, value in _FIXED.items():
            if config.get(key, value) is not value:
                raise unfit(path, key, config[key], self.config_fields[key].__metadata__[-1].description)
        for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
            if (config.get(key) or 0) >= config["vocab_size"]:
                raise unfit(path, key, config[key], f"below the vocab_size, {config['vocab_size']}")
        if config["model_type"] == "bert" and config.keys() & {"head_type", "head_widths"}:
            raise ConfigError(
                f'{path} says model_type "bert" and a head type',
                expected='"bertzoo" for a model with a head type',
                path=path,
                key="model_type",
            )
        if config.get("head_type") == "mlp" and self.head_role(config) == "masked":
            raise unfit(path, "head_type", "mlp", '"linear" for a masked model')
        check_labels(path, config)

    def describe_stranger(self, name: str) -> str | None:
        """Say why a tensor is not a member's; None for an unknown name."""
        if name in self.tied:
            return f"{name} repeats {self.tied[name]}, which a file has once"
        for old, new in OLD_NAMES.items():
            if name.endswith(old):
                return f"{name} is an old name of {name.removesuffix(old)}{new}"
        if name.startswith("bert.embeddings.") and name.endswith("_ids"):
            return f"{name} is not a weight"
        return None

    def symmetry(self, names: Iterable[str]) -> Symmetry:
        axes: dict[str, Axes] = {}
        for name in names:
            module, is_bias, match = self.module_name(name), name.endswith(".bias"), _BLOCK.fullmatch(name)
            if match is not None:
                rows, columns = _GROUPS.get(match[2], (STREAM, None))
                both = tuple(group and group.format(match[1]) for group in (rows, columns))
                axes[name] = both[:1] if is_bias or columns is None else both
            elif module in _FIRST or module == _NORM:
                axes[name] = (STREAM,) if module in (_FIRST[-1], _NORM) else (None, STREAM)
            elif module == _TRANSFORM:  # its outputs meet the embeddings, which are the output weights
                axes[name] = (STREAM,) if is_bias else (STREAM, STREAM)
            else:
                axes[name] = (None,) if is_bias else (None, STREAM if module == _POOLER else None)
        blocks = []
        for number in sorted({int(match[1]) for match in map(_BLOCK.fullmatch, axes) if match is not None}):
            parts = [f"bert.encoder.layer.{number}.{part}" for part in _IN_BLOCK[:4]]
            groups = {"query_key": f"query_key.{number}", "values": f"values.{number}", "units": f"units.{number}"}
            blocks.append(Block(query=parts[0], key=parts[1], value=parts[2], output=parts[3], **groups))
        return Symmetry(axes=axes, blocks=tuple(blocks))

    def plan_graph(self, plan: "GraphPlan") -> None:
        """Add the nodes and edges of a whole BERT, or of its backbone or head alone.

        token, position, token_type -embedding-> embedding -scale-> embedding_norm, the first stream
        stream -linear-> query, key, value
        query -attention-> key -attention-> attention_head -attention-> value -linear-> attention_output
        stream -residual-> attention_output -scale-> norm_after -linear-> mlp_hidden -linear-> mlp_output
        norm_after -residual-> mlp_output -scale-> output_norm, the next stream
        stream -linear-> masked_hidden -scale-> masked_norm -tied-> output, of a masked head
        stream -linear-> pooled [-linear-> classifier_hidden ...] -linear-> output, of a classifier
        pooled -linear-> next_sentence, of a masked model with a head for next sentences

        The weights of tied edges are the tokens' embeddings, so a masked head alone has none.
        """
        layers = list(dict.fromkeys(map(self.layer_name, plan.shapes)))
        blocks = [name for name in layers if name.startswith("layer.")]
        stream = _plan_embeddings(plan) if "embeddings" in layers else plan.add_nodes("embedding", 0, plan.width)
        for layer, name in enumerate(blocks, 1):
            stream = _plan_block(plan, stream, f"bert.encoder.{name}", layer)
        top = len(blocks) + 1
        pooled = plan.linear("pooled", top, stream, _POOLER) if "pooler" in layers else stream
        if "cls" in layers:
            hidden = plan.linear("masked_hidden", top, stream, _TRANSFORM)
            normed = plan.norm("masked_norm", top, hidden, _NORM)
            bias = f"{_PREDICTIONS}.bias"
            outputs = plan.add_nodes("output", top, plan.shape_of(bias)[0], bias)
            if "embeddings" in layers:
                plan.add_edges("tied", normed[None, :], outputs[:, None], f"{_FIRST[0]}.weight")
            if f"{_NEXT}.weight" in plan.shapes:
                plan.linear("next_sentence", top, pooled, _NEXT)
        if "classifier" in layers:
            count = len({module for module in map(self.module_name, plan.shapes) if _HIDDEN.fullmatch(module)})
            for number in range(1, count):
                pooled = plan.linear("classifier_hidden", top + number, pooled, f"classifier.fc{number}")
            plan.linear("output", top + count, pooled, f"classifier.fc{count}" if count else "classifier")


def _plan_embeddings(plan: "GraphPlan") -> "Nodes":
    stream = plan.add_nodes("embedding", 0, plan.width)
    for kind, name in zip(("token", "position", "token_type"), _FIRST, strict=False):
        nodes = plan.add_nodes(kind, 0, plan.shape_of(f"{name}.weight")[0])
        plan.add_edges("embedding", nodes[:, None], stream[None, :], f"{name}.weight")
    return plan.norm("embedding_norm", 0, stream, _FIRST[-1])


def _plan_block(plan: "GraphPlan", stream: "Nodes", block: str, layer: int) -> "Nodes":
    attention = f"{block}.attention"
    query = plan.linear("query", layer, stream, f"{attention}.self.query")
    key = plan.linear("key", layer, stream, f"{attention}.self.key")
    value = plan.linear("value", layer, stream, f"{attention}.self.value")
    plan.attention(layer, query, key, value)
    attended = plan.linear("attention_output", layer, value, f"{attention}.output.dense")
    plan.add_edges("residual", stream, attended)
    normed = plan.norm("norm_after", layer, attended, f"{attention}.output.LayerNorm")
    hidden = plan.linear("mlp_hidden", layer, normed, f"{block}.intermediate.dense")
    output = plan.linear("mlp_output", layer, hidden, f"{block}.output.dense")
    plan.add_edges("residual", normed, output)
    return plan.norm("output_norm", layer, output, f"{block}.output.LayerNorm")


BERT = _Bert()
