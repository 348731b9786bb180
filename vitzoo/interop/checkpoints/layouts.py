"""Give the tensors of a checkpoint the names of a zoo, and make its config, image processor and tokenizer.

    transformers   config.json, preprocessor_config.json or tokenizer.json beside the weights; both spellings of names
    timm           config.json of timm's Hub models, or none; names of timm, also with the authors' MLP head

Of a config.json, only the keys that a member may have are taken. Without one, the sizes are read off the weights, and
attention heads of 64 and the usual epsilon are assumed, which the report says. Source: transformers' `ViTConfig` and
`BertConfig`; timm's ``save_for_hf`` and `vitzoo.interop.timm_folder`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import floor, isqrt
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vitzoo.architectures import Architecture, describe_misfit, find_architecture, of_tensors
from vitzoo.architectures.bert import BERT
from vitzoo.architectures.config_json import check_fields, load_json
from vitzoo.architectures.vit import VIT
from vitzoo.errors import ConfigError, VitZooError, WeightsError, printable, shown
from vitzoo.images.processor import image_processor, of_transformers, processor_arguments
from vitzoo.interop import bert_names
from vitzoo.interop.checkpoints.states import State
from vitzoo.interop.timm import TIMM_EPS
from vitzoo.interop.timm_names import from_timm_state, infer_shape
from vitzoo.models.config import MemberConfig
from vitzoo.models.registry import model_class
from vitzoo.records.dataset_spec import Preprocessing
from vitzoo.records.layout import PREPROCESSOR_JSON, TOKENIZER_JSON
from vitzoo.text.tokenizer import Tokenizer, check_tokenizer, load_tokenizer, parse_tokenizer

CONFIG = "config.json"
VOCABULARY = "vocab.txt"
# Small files that are read beside the weights, where they exist.
BESIDE = (CONFIG, PREPROCESSOR_JSON, TOKENIZER_JSON, "tokenizer_config.json", "special_tokens_map.json", VOCABULARY)
_HEAD_DIM = 64
_IGNORED = ("vit.pooler.", "bert.pooler.")  # heads of other uses, which transformers ignores as well
_DTYPES = {torch.float64: "float64", torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_KNOWN = ("architectures", "torch_dtype", "_name_or_path", "transformers_version", "model_type")  # not worth a note
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}  # PIL's numbers


@dataclass(kw_only=True, slots=True)
class Model:
    """A checkpoint as a member has it.

    Args:
        weights: Weights by their names on disk.
        config: The config of the member.
        notes: What was left out or assumed.
    """

    weights: dict[str, Tensor]
    config: MemberConfig
    notes: list[str] = field(default_factory=list)

    @property
    def architecture(self) -> Architecture:
        """The architecture of the weights."""
        return find_architecture(self.config.model_type)

    @property
    def sizes(self) -> dict[str, Any]:
        """The values that all members of a zoo share, as a recipe has them."""
        keys = [key for key in self.architecture.shared_keys if key not in self.architecture.training_keys]
        sizes = [key for key in self.architecture.recipe_keys if key not in self.architecture.training_keys]
        found = {key: getattr(self.config, key) for key in (*sizes, *keys)}
        return {key: value for key, value in found.items() if key != "initializer_range"}


def as_model(state: State, config: Path | None, *, name: str) -> Model:
    """Convert a checkpoint's tensors.

    Args:
        state: The tensors.
        config: Its config.json, of transformers or timm; None for none.
        name: Name of the checkpoint in errors.

    Raises:
        WeightsError: Tensors are missing, unknown, of two dtypes, or differ from the config.
        ConfigError: The config is of another network, or has a value that no member may have.
    """
    values = {} if config is None else load_json(config)
    notes = list(state.notes)
    try:
        if "cls_token" in state.tensors:
            weights = from_timm_state(state.tensors)
            shape = infer_shape(state.tensors)
            values = _config_of_timm(values, asdict(shape), notes)
            architecture: Architecture = VIT
        else:
            architecture, weights = _disk_names(state.tensors, notes)
            values = _own_values(architecture, values, notes) or _inferred(architecture, weights, notes)
        made = _make_config(architecture, values, weights, config or Path(CONFIG))
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, VitZooError):
            raise
        raise WeightsError(f"{printable(name)} cannot become a member: {printable(str(error))[:300]}") from None
    misfit = describe_misfit(made.shape, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    if misfit is not None:
        raise WeightsError(f"{printable(name)} holds other tensors than its config says: {misfit}")
    return Model(weights=weights, config=made, notes=notes)


def _disk_names(tensors: Mapping[str, Tensor], notes: list[str]) -> tuple[Architecture, dict[str, Tensor]]:
    """Return the architecture, and the weights under their names on disk, without buffers and unused heads."""
    architecture = of_tensors(tensors)
    if architecture.backbone == BERT.backbone:
        own = {name: tensor for name, tensor in tensors.items() if not name.endswith(bert_names.BUFFERS)}
        weights = bert_names.from_bert_state(own)
    else:
        weights = {architecture.disk_name(name): tensor for name, tensor in tensors.items()}
    if "bert.pooler.dense.weight" in weights and (
        "classifier.weight" in weights or "classifier.fc1.weight" in weights or bert_names.has_next_sentence(weights)
    ):
        return architecture, weights
    unused = [name for name in weights if name.startswith(_IGNORED)]
    if unused:
        notes.append(f"{', '.join(unused)} not taken: nothing reads it")
    return architecture, {name: tensor for name, tensor in weights.items() if name not in unused}


def _own_values(architecture: Architecture, values: dict[str, Any], notes: list[str]) -> dict[str, Any] | None:
    """Return the keys of a transformers config that a member may have; None for another file."""
    word = values.get("model_type")
    if word is None:
        return None
    if word not in architecture.model_types:
        raise ConfigError(
            f"config.json has model_type {shown(word)}, the tensors are of a {architecture.backbone}",
            expected=" or ".join(architecture.model_types),
            key="model_type",
        )
    kept = {
        key: value
        for key, value in values.items()
        if key in architecture.config_fields and key not in ("architectures", "dtype", "transformers_version")
        if value is not None
    }
    dropped = sorted(values.keys() - kept.keys() - {*_KNOWN, "dtype", "architectures"})
    dropped = [key for key in dropped if values[key] is not None]
    if dropped:
        few = ", ".join(map(printable, dropped[:8])) + (", ..." if len(dropped) > 8 else "")
        notes.append(f"keys of config.json that are not taken: {few}")
    names = kept.get("id2label")
    if isinstance(names, Mapping):  # a member has no other spelling of its labels
        kept |= {"id2label": {str(number): str(label) for number, label in names.items()}}
        kept.pop("label2id", None)
        kept.pop("num_labels", None)
    check_fields(Path(CONFIG), kept, architecture.config_fields)
    return kept


def _inferred(architecture: Architecture, weights: Mapping[str, Tensor], notes: list[str]) -> dict[str, Any]:
    """Return the config that the shapes of weights say, with heads of 64."""
    layers = 1 + max(
        int(name.split(".")[3]) for name in weights if name.startswith(f"{architecture.backbone}.encoder.layer.")
    )
    block = f"{architecture.backbone}.encoder.layer.0"
    wide, hidden = weights[f"{block}.intermediate.dense.weight"].shape
    values: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": wide,
        "num_attention_heads": _heads(hidden, notes),
    }
    if architecture.backbone == BERT.backbone:
        counts = {"vocab_size": "word", "max_position_embeddings": "position", "type_vocab_size": "token_type"}
        return values | {key: len(weights[f"bert.embeddings.{kind}_embeddings.weight"]) for key, kind in counts.items()}
    kernel = weights["vit.embeddings.patch_embeddings.projection.weight"]
    patches = weights["vit.embeddings.position_embeddings"].shape[1] - 1
    return values | {
        "patch_size": kernel.shape[-1],
        "num_channels": kernel.shape[1],
        "image_size": isqrt(patches) * kernel.shape[-1],
        "qkv_bias": f"{block}.attention.attention.query.bias" in weights,
    }


def _heads(hidden: int, notes: list[str]) -> int:
    if hidden % _HEAD_DIM:
        raise ConfigError(
            f"No config.json says the number of attention heads, and the hidden size is {hidden}",
            expected=f"a config.json, or a multiple of {_HEAD_DIM}",
            fix='Put the path of a config.json into the table\'s column "config".',
            key="num_attention_heads",
        )
    notes.append(f"no config says its attention heads: {hidden // _HEAD_DIM} of {_HEAD_DIM} are assumed")
    return hidden // _HEAD_DIM


def _config_of_timm(values: Mapping[str, Any], shape: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return a ViT's config for timm's config.json, or for none."""
    arguments = values.get("model_args") or {}
    word = str(values.get("architecture", ""))
    for key, value in (
        ("global_pool", values.get("global_pool")),
        ("model_args.act_layer", arguments.get("act_layer")),
    ):
        if value not in (None, "", "token"):
            raise ConfigError(f"timm's config.json says {key} {shown(value)}", expected="a plain ViT", key=key)
    if "quickgelu" in word or "clip" in word:
        raise ConfigError(f"timm's architecture is {shown(word)}", expected="a plain ViT", key="architecture")
    heads = values.get("num_attention_heads") or arguments.get("num_heads")
    width, labels = shape.pop("head_width"), shape.pop("num_labels")
    names = values.get("label_names")
    made = shape | {
        "num_attention_heads": heads or _heads(shape["hidden_size"], notes),
        "layer_norm_eps": TIMM_EPS,
        "head_type": "linear" if width is None else "mlp",
        "head_width": width,
    }
    if isinstance(names, list) and len(names) == labels:
        made["id2label"] = {str(number): str(name) for number, name in enumerate(names)}
    return made


def _make_config(
    architecture: Architecture, values: dict[str, Any], weights: Mapping[str, Tensor], path: Path
) -> MemberConfig:
    """Make the config of a member: the weights say its head and dtype."""
    dtypes = {tensor.dtype: name for name, tensor in weights.items()}
    if len(dtypes) > 1 or not dtypes.keys() <= _DTYPES.keys():
        raise WeightsError(
            f"Its tensors are of {' and '.join(str(dtype).removeprefix('torch.') for dtype in dtypes)}",
            expected=f"one dtype, of {', '.join(_DTYPES.values())}",
        )
    role = bert_names.role_of(weights) if architecture.backbone == BERT.backbone else values.get("head_role")
    cls = model_class(architecture, role or "classifier")
    values = cls.config_class.plain_defaults() | values
    if role == "masked":
        values = {key: value for key, value in values.items() if key not in ("id2label", "num_labels")}
        values["next_sentence"] = bert_names.has_next_sentence(weights)
    elif "id2label" not in values:
        labels = next(len(weights[name]) for name in _outputs(weights))
        values = {"id2label": {str(label): f"LABEL_{label}" for label in range(labels)}} | values
        if role == "embedding":
            values = {key: value for key, value in values.items() if key != "id2label"} | {"num_labels": labels}
    values |= {"architectures": [cls.__name__], "dtype": _DTYPES[next(iter(dtypes))]}
    return cls.config_class.from_member(path, values=values | {"model_type": cls.config_class.model_type})


def _outputs(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the name of the last weights of a classifier."""
    names = sorted(name for name in weights if name.startswith("classifier.") and name.endswith(".weight"))
    if not names:
        raise ValueError("it has no head (classifier.weight)")
    return names[-1:]


def load_processor(folder: Mapping[str, Path], config: MemberConfig, notes: list[str]) -> dict[str, Any] | None:
    """Return the values of a checkpoint's image processor; None, with a note, where it has none that a member may have.

    Args:
        folder: Names to the small files beside the weights.
        config: The member's config.
        notes: Gets the reason.
    """
    try:
        if PREPROCESSOR_JSON in folder:
            from transformers import ViTImageProcessorPil

            processor = ViTImageProcessorPil.from_dict(load_json(folder[PREPROCESSOR_JSON]))
            return of_transformers(processor, model=config.to_dict())
        timm = load_json(folder[CONFIG]).get("pretrained_cfg") if CONFIG in folder else None
        if isinstance(timm, dict):
            made = image_processor(_processor_of_timm(timm, cast(Any, config).image_size))
            return of_transformers(made, model=config.to_dict())
    except (ConfigError, ValueError, TypeError, KeyError) as error:
        notes.append(f"its image processor is not taken: {str(error).rstrip('.')}")
        return None
    notes.append("nothing says how its images are prepared: it has no image processor")
    return None


def _processor_of_timm(timm: Mapping[str, Any], side: int) -> dict[str, Any]:
    word, crop = timm.get("interpolation", "bicubic"), timm.get("crop_pct") or 1.0
    common = {"mean": timm["mean"], "std": timm["std"]}
    if timm.get("crop_mode") == "squash":
        made = processor_arguments(Preprocessing(), image_size=side, **common)
        return made | {"resample": _FILTERS[word]}
    resized = Preprocessing(resize=floor(side / crop), crop=side, resample=word)
    return processor_arguments(resized, image_size=side, **common)


def find_tokenizer(folder: Mapping[str, Path]) -> Tokenizer | None:
    """Return the tokenizer beside a checkpoint's weights; None for none. A vocab.txt is converted by transformers.

    Raises:
        ConfigError: It is damaged, or has a part that no member may have.
    """
    if TOKENIZER_JSON in folder:
        place = folder[TOKENIZER_JSON]
        return load_tokenizer(place.parent if "tokenizer_config.json" in folder else place)
    if VOCABULARY not in folder:
        return None
    from transformers import BertTokenizer

    made: Any = BertTokenizer.from_pretrained(str(folder[VOCABULARY].parent))
    return parse_tokenizer(made.backend_tokenizer.to_str(pretty=True).encode(), path=folder[VOCABULARY])


def check_member_tokenizer(tokenizer: Tokenizer, config: MemberConfig, *, sha256: str | None, name: str) -> None:
    """Raise ConfigError for a tokenizer that does not fit the model, or is not its parent's."""
    check_tokenizer(tokenizer, vocab_size=cast(Any, config).vocab_size, sha256=sha256, by=printable(name))


def names_of(config: MemberConfig) -> Sequence[str]:
    """Return the names of a classifier's classes; none for another head."""
    return [name for _, name in sorted((config.id2label or {}).items())] if config.head_role == "classifier" else []
