"""A folder that timm loads by name, as the Hub's timm models are laid out; timm is not needed to write it.

    model.safetensors   the weights in timm's names, header metadata {"format": "pt"}
    config.json         {"architecture": "vit_small_patch16_224", "num_classes": 100, "num_features": 384,
                         "global_pool": "token", "label_names": [...],
                         "model_args": {"img_size": 224, ...},           every size, so that none is a default's
                         "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [...], "std": [...],
                                            "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center", ...}}

`timm.create_model("local-dir:OUT", pretrained=True)` loads it, and `timm.data.resolve_data_config` says how its images
are prepared.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from vitzoo.errors import ConfigError
from vitzoo.interop.timm import TIMM_EPS, timm_arguments, to_timm
from vitzoo.models.vit import VitZooConfig, VitZooModel

# PIL's numbers of its filters, in timm's words.
_INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# timm's plain ViTs: hidden size, depth and heads; then their patches and the sides of their images.
_SIZES = {(192, 12, 3): "tiny", (384, 12, 6): "small", (768, 12, 12): "base", (1024, 24, 16): "large"}
_IMAGES = {
    "tiny": {(16, 224), (16, 384)},
    "small": {(32, 224), (32, 384), (16, 224), (16, 384), (8, 224)},
    "base": {(32, 224), (32, 384), (16, 224), (16, 384), (8, 224)},
    "large": {(32, 224), (32, 384), (16, 224), (16, 384), (14, 224)},
}
_ANY = "vit_small_patch16_224"  # what a ViT of other sizes is an instance of; model_args say all sizes


def write_timm_folder(model: VitZooModel, folder: Path, *, processor: Mapping[str, Any]) -> None:
    """Write a model as timm reads it.

    Args:
        model: With a linear head.
        folder: An empty folder.
        processor: What the member's preprocessor_config.json says, from
            `vitzoo.images.processor.load_processor_json`.

    Raises:
        ConfigError: A config of timm's cannot say what the model is: it has an MLP head, another activation than GELU,
            another epsilon, or images that are cropped without being resized.
    """
    config = timm_config(model.config, processor)
    weights = {name: tensor.contiguous() for name, tensor in to_timm(model).items()}
    (folder / "model.safetensors").write_bytes(save(weights, {"format": "pt"}))  # save_file's is its owner's alone
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def timm_config(config: VitZooConfig, processor: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a timm model on the Hub.

    Args:
        config: The model's.
        processor: As `write_timm_folder`.

    Raises:
        ConfigError: As `write_timm_folder`.
    """
    if config.head_width is not None:
        raise ConfigError(
            f"The model has an MLP head of width {config.head_width}, and timm's ViTs have linear heads only: no "
            "config.json of timm's says it. In Python, vitzoo.interop.timm.to_timm_module(model) gives the module with "
            "its head, and to_timm(model) the state dict.",
            key="head_type",
        )
    if config.layer_norm_eps != TIMM_EPS:
        raise ConfigError(
            f"The model's layer_norm_eps is {config.layer_norm_eps}; timm's ViTs have {TIMM_EPS}, and no config.json "
            "of timm's says another. In Python, vitzoo.interop.timm.to_timm_module(model) gives the module.",
            key="layer_norm_eps",
        )
    arguments = timm_arguments(config)
    labels = arguments.pop("num_classes")
    written: dict[str, Any] = {
        "architecture": architecture(config),
        "num_classes": labels,
        "num_features": config.hidden_size,
        "global_pool": "token",
    }
    if config.head_role == "classifier":
        id2label: dict[Any, str] = dict(config.id2label or {})
        written["label_names"] = [id2label[number] for number in range(labels)]
    return written | {
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "vitzoo",
            "custom_load": False,
            "num_classes": labels,
            "input_size": [config.num_channels, arguments["img_size"], arguments["img_size"]],
            "fixed_input_size": True,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            **_preprocessing(processor, arguments["img_size"]),
        },
    }


def architecture(config: VitZooConfig) -> str:
    """The name of timm's ViT of these sizes; of others, one whose function ``model_args`` give all sizes to.

    Args:
        config: The model's.
    """
    shape = config.shape
    size = _SIZES.get((shape.hidden_size, shape.num_hidden_layers, config.num_attention_heads))
    plain = shape.intermediate_size == 4 * shape.hidden_size and shape.qkv_bias and shape.num_channels == 3
    if size is None or not plain or (shape.patch_size, shape.image_size) not in _IMAGES[size]:
        return _ANY
    return f"vit_{size}_patch{shape.patch_size}_{shape.image_size}"


def _preprocessing(processor: Mapping[str, Any], side: int) -> dict[str, Any]:
    """What is done to images, in timm's words: it resizes the shorter side to ``side / crop_pct``, rounded down.

    The square that torchvision cuts for it lies a pixel further on than a member's where half of what is left over is
    1.5, 3.5, 5.5, ... pixels (`vitzoo.images.preprocess`); of 256 and 224 it is the same.
    """
    if not processor["do_resize"]:
        raise ConfigError(
            f"The member's images are cut to {side} pixels without being resized, which timm's config.json cannot say. "
            "In Python, vitzoo.interop.timm.to_timm_module(model) gives the module.",
            key="do_resize",
        )
    shorter = processor["size"].get("shortest_edge")
    crop = 1.0 if shorter is None else side / shorter
    if shorter is not None and math.floor(side / crop) != shorter:
        crop = math.nextafter(crop, 0)
    return {
        "interpolation": _INTERPOLATIONS[processor["resample"]],
        "crop_pct": crop,
        "crop_mode": "squash" if shorter is None else "center",
        "mean": list(processor["image_mean"]),
        "std": list(processor["image_std"]),
    }
