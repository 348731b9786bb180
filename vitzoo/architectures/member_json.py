"""What a member's config.json and preprocessor_config.json may say: every key, and the values it may have.

Pure JSON: nothing is built here, and no key that is not listed gets any further. No key names code, a file or a kernel.
How values fit together is `vitzoo.models.configuration_vitzoo`'s; the zoo's own records are `vitzoo.records`'.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

from vitzoo.errors import ConfigError, did_you_mean, shown

HEAD_TYPES = ("linear", "mlp")
HEAD_ROLES = ("classifier", "embedding")
MAX_LABELS = 2**16  # ImageNet-21k has 21,843; each costs memory before a weight is looked at
_MAX_BYTES = 4 * 2**20
_MAX_SIZE = 2**20
MAX_RESIZE = 4  # how many times the model's side an image may have when it is cropped
_FILTERS = (2, 3)  # PIL's numbers of bilinear and bicubic


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a file may say under a key.

    Args:
        holds: Whether a value is allowed; an exception means that it is not.
        expected: The allowed values, in words.
        nullable: Whether null may stand for a value that is not there.
    """

    holds: Callable[[Any], bool]
    expected: str
    nullable: bool = False


def _one_of(*values: str, nullable: bool = False) -> _Rule:
    return _Rule(lambda value: value in values, f"one of {', '.join(values)}", nullable)


def _size(largest: int = _MAX_SIZE, *, nullable: bool = False) -> _Rule:
    return _Rule(lambda value: type(value) is int and 0 < value <= largest, f"1 to {largest}", nullable)


def _are_labels(value: dict[str, str]) -> bool:
    """Whether an ``id2label`` numbers its classes from 0, each with a name that a terminal may be shown."""
    return 0 < len(value) <= MAX_LABELS and all(value[str(i)].isprintable() for i in range(len(value)))


def _are_sides(value: dict[str, int], names: tuple[str, ...]) -> bool:
    return value.keys() == set(names) and all(_size(4096).holds(side) for side in value.values())


_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "image_size",
    "patch_size",
    "num_channels",
)
_PROBABILITY = _Rule(lambda value: type(value) in (int, float) and 0 <= value <= 1, "a number from 0 to 1")
_SMALL = _Rule(lambda value: type(value) is float and 0 < value <= 1, "a float above 0, 1 at most")
_ACTIVATION = _one_of("gelu", "gelu_pytorch_tanh", "relu", "silu", "tanh")
# Every key that a member's config.json may have: nothing here names code, a file or a kernel.
_CONFIG_RULES = {
    **dict.fromkeys(_SIZES, _size()),
    "model_type": _one_of("vit", "vitzoo"),
    "architectures": _Rule(
        lambda value: value in ([], ["ViTForImageClassification"], ["VitZooModel"]),
        '["ViTForImageClassification"] or ["VitZooModel"]',
        nullable=True,
    ),
    "transformers_version": _Rule(
        lambda value: re.fullmatch(r"\d+\.[\w.+-]{1,60}", value, re.ASCII) is not None, "a version", nullable=True
    ),
    "dtype": _one_of("float64", "float32", "float16", "bfloat16", nullable=True),
    "hidden_act": _ACTIVATION,
    "hidden_dropout_prob": _PROBABILITY,
    "attention_probs_dropout_prob": _PROBABILITY,
    "initializer_range": _SMALL,
    "layer_norm_eps": _SMALL,
    "qkv_bias": _Rule(lambda value: type(value) is bool, "true or false"),
    "encoder_stride": _size(),
    "pooler_output_size": _size(nullable=True),
    "pooler_act": _ACTIVATION,
    "problem_type": _one_of("regression", "single_label_classification", "multi_label_classification", nullable=True),
    "num_labels": _size(MAX_LABELS),
    "id2label": _Rule(_are_labels, f'an object of "0", "1", ... to printable names, {MAX_LABELS} at most'),
    "label2id": _Rule(lambda value: isinstance(value, dict), "the inverse of id2label", nullable=True),
    "head_type": _one_of(*HEAD_TYPES),
    "head_width": _size(nullable=True),
    "head_role": _one_of(*HEAD_ROLES),
}


_TRUE = _Rule(lambda value: value is True, "true")
_CHANNELS = _Rule(
    lambda value: type(value) is list and 0 < len(value) <= 4 and all(type(x) is float and 0 < x < 1 for x in value),
    "a number between 0 and 1 for each channel",
)
_PROCESSOR_RULES = {
    "image_processor_type": _one_of("ViTImageProcessor"),
    **dict.fromkeys(("do_convert_rgb", "do_normalize", "do_rescale"), _TRUE),
    "do_resize": _Rule(lambda value: type(value) is bool, "true or false"),
    **dict.fromkeys(("image_mean", "image_std"), _CHANNELS),
    "resample": _Rule(lambda value: type(value) is int and 0 <= value <= 5, "one of PIL's filters, 0 to 5"),
    "rescale_factor": _Rule(lambda value: isclose(value, 1 / 255), "1/255"),
    "size": _Rule(
        lambda value: _are_sides(value, ("height", "width")) or _are_sides(value, ("shortest_edge",)),
        "height and width of 1 to 4096, or a shortest_edge",
    ),
}
# What may stand together: do_resize, a shortest_edge, a crop.
_PREPROCESSING = ((True, False, False), (True, True, False), (True, True, True), (False, False, True))
# Of images that are cut to the model's size; others say neither.
_CROP_RULES = {
    "do_center_crop": _TRUE,
    "crop_size": _Rule(
        lambda value: _are_sides(value, ("height", "width")) and value["height"] == value["width"],
        "equal height and width of 1 to 4096",
    ),
}


def load_config_json(path: Path) -> dict[str, Any]:
    """Read a member's config.json.

    Args:
        path: The file.

    Returns:
        What it says, as plain JSON.

    Raises:
        ConfigError: A key that no member has (code to run, quantisation, adapters, attention kernels), a value of
            another type or out of bounds, or labels that contradict each other.
    """
    config = _load(path, _CONFIG_RULES, required=("model_type", *_SIZES, "layer_norm_eps"))
    if config["model_type"] == "vit" and config.keys() & {"head_type", "head_width"}:
        raise ConfigError(
            f'{path} says model_type "vit" and a head type; only "vitzoo" has one.', path=path, key="model_type"
        )
    _check_labels(path, config)
    return config


def load_processor_json(path: Path) -> dict[str, Any]:
    """Read a member's preprocessor_config.json.

    Args:
        path: The file.

    Returns:
        What it says, as plain JSON, with every key that decides ``pixel_values``; `vitzoo.images.processor` puts it in
        other words.

    Raises:
        ConfigError: A key that no member has, a value of another type or out of bounds, or a way of resizing and
            cropping that `vitzoo.images.Preprocessing` cannot say.
    """
    config = _load(path, _PROCESSOR_RULES | _CROP_RULES, required=tuple(_PROCESSOR_RULES))
    crops, shorter = "do_center_crop" in config, "shortest_edge" in config["size"]
    if crops != ("crop_size" in config):
        raise ConfigError(
            f'{path} says one of "do_center_crop" and "crop_size"; expected both or neither.',
            path=path,
            key="crop_size",
        )
    if (config["do_resize"], shorter, crops) not in _PREPROCESSING:
        raise ConfigError(
            f'{path} says "do_resize": {shown(config["do_resize"])} and a size of {", ".join(config["size"])}, '
            f"{'with' if crops else 'without'} a crop; expected a resize to height and width without a crop, one of "
            "the shortest_edge with or without a crop, or no resize and a crop.",
            path=path,
            key="do_resize",
        )
    if shorter and config["resample"] not in _FILTERS:
        raise ConfigError(
            f'{path} says "resample": {config["resample"]}; expected 2 or 3, bilinear or bicubic, of a shortest_edge.',
            path=path,
            key="resample",
        )
    return config


def check_processor_fits(path: Path, processor: dict[str, Any], model: dict[str, Any]) -> None:
    """Check that an image processor makes the images that the model beside it takes.

    Args:
        path: The preprocessor_config.json, for the error.
        processor: What it says, from `load_processor_json`.
        model: What the config.json says, from `load_config_json`.

    Raises:
        ConfigError: The sizes or the channels are others, or images are resized to much more than the model takes.
    """
    made = processor.get("crop_size", processor["size"])
    channels = {len(processor["image_mean"]), len(processor["image_std"])}
    if set(made.values()) != {model["image_size"]} or channels != {model["num_channels"]}:
        raise ConfigError(
            f"{path} makes images of {made} with {channels} channels, but the model beside it takes "
            f"{model['image_size']} pixels and {model['num_channels']} channels. Get both files again.",
            path=path,
            key="size",
        )
    shorter, most = processor["size"].get("shortest_edge", 0), MAX_RESIZE * model["image_size"]
    if shorter > most:
        raise ConfigError(
            f"{path} resizes images to a shortest_edge of {shorter}, of which the model beside it takes "
            f"{model['image_size']} pixels; expected {most} at most. Get both files again.",
            path=path,
            key="size",
        )


def _load(path: Path, rules: dict[str, _Rule], *, required: tuple[str, ...]) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path} has over {_MAX_BYTES} bytes; no config does.", path=path, key=None)
        config = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}. Get the file again.", path=path, key=None
        ) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is no JSON: {error}. The file is damaged.", path=path, key=None) from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path} is no JSON object.", path=path, key=None)
    for key, value in config.items():
        _check(path, rules, key, value)
    missing = [key for key in required if key not in config]
    if missing:
        raise ConfigError(
            f"{path} lacks {', '.join(missing)}: it is not whole. Get the file again.", path=path, key=missing[0]
        )
    return config


def _check(path: Path, rules: dict[str, _Rule], key: str, value: Any) -> None:
    if key not in rules:
        raise ConfigError(
            f"{path} says {shown(key)}, which no zoo member may say: a config describes a ViT and its head, and never "
            "names code, kernels, adapters or quantisation. Do not load it from a source you do not trust."
            f"{did_you_mean(key, sorted(rules))}",
            path=path,
            key=key,
        )
    rule = rules[key]
    try:
        fits = rule.nullable if value is None else rule.holds(value)
    except (TypeError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise ConfigError(f"{path} says {shown(key)}: {shown(value)}; expected {rule.expected}.", path=path, key=key)


def _check_labels(path: Path, config: dict[str, Any]) -> None:
    """The three ways of saying the classes agree; transformers believes one, or another, or makes names up."""
    id2label, label2id = config.get("id2label", {}), config.get("label2id") or {}
    inverse = all(type(i) is int and id2label.get(str(i)) == name for name, i in label2id.items())
    if label2id and not (inverse and label2id.keys() == set(id2label.values())):  # two classes may share a name
        raise ConfigError(
            f'{path} says a "label2id" that is not the inverse of its "id2label".', path=path, key="label2id"
        )
    if id2label and config.get("num_labels", len(id2label)) != len(id2label):
        raise ConfigError(
            f'{path} says "num_labels": {config["num_labels"]}, but names {len(id2label)} classes in "id2label".',
            path=path,
            key="num_labels",
        )
