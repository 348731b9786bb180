"""Write a folder that timm loads by name, in the layout of the Hub's timm models; timm is not needed.

    model.safetensors   the weights in timm's names, header metadata {"format": "pt"}
    config.json         {"architecture": "vit_small_patch16_224", "num_classes": 100, "num_features": 384,
                         "global_pool": "token", "label_names": [...],
                         "model_args": {"img_size": 224, ...},           every size; no default is used
                         "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [...], "std": [...],
                                            "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center", ...}}

`timm.create_model("local-dir:OUT", pretrained=True)` loads it; `timm.data.resolve_data_config` gives its preprocessing.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from vitzoo.errors import ConfigError
from vitzoo.interop.preflight import TIMM_IN_PYTHON, check_timm_head
from vitzoo.interop.timm import TIMM_EPS, timm_arguments, to_timm
from vitzoo.models.vit import VitZooConfig, VitZooModel

_INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by PIL's number of the filter
# Hidden size, depth and heads of timm's plain ViTs. Models of other sizes are instances of `_ANY` with all model_args.
_SIZES = {(192, 12, 3): "tiny", (384, 12, 6): "small", (768, 12, 12): "base", (1024, 24, 16): "large"}
_ANY = "vit_small_patch16_224"


def write_timm_folder(model: VitZooModel, folder: Path, *, processor: Mapping[str, Any]) -> None:
    """Write a model and its preprocessing as timm reads them.

    Args:
        model: A model with a linear head.
        folder: An empty folder.
        processor: Content of preprocessor_config.json, from `vitzoo.images.processor.load_processor_json`.

    Raises:
        ConfigError: timm's config cannot describe the model: it has an MLP head, another activation than GELU, another
            epsilon, or images that are cropped without being resized.
    """
    config = timm_config(model.config, processor)
    weights = {name: tensor.contiguous() for name, tensor in to_timm(model).items()}
    (folder / "model.safetensors").write_bytes(save(weights, {"format": "pt"}))  # save_file makes it private
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def timm_config(config: VitZooConfig, processor: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config.json of a timm model on the Hub. See `write_timm_folder` for arguments and errors."""
    check_timm_head(config.head_width)
    if config.layer_norm_eps != TIMM_EPS:
        raise ConfigError(
            f"The model's layer_norm_eps is {config.layer_norm_eps}",
            expected=f"{TIMM_EPS}, as timm's config.json says",
            fix=TIMM_IN_PYTHON,
            key="layer_norm_eps",
        )
    arguments = timm_arguments(config)
    labels = arguments.pop("num_classes")
    fields: dict[str, Any] = {
        "architecture": architecture(config),
        "num_classes": labels,
        "num_features": config.hidden_size,
        "global_pool": "token",
    }
    if config.head_role == "classifier":
        id2label: dict[Any, str] = dict(config.id2label or {})
        fields["label_names"] = [id2label[number] for number in range(labels)]
    return fields | {
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
    """Return the name of timm's ViT of these sizes, or of a ViT that takes all sizes from ``model_args``."""
    shape = config.shape
    size = _SIZES.get((shape.hidden_size, shape.num_hidden_layers, config.num_attention_heads))
    plain = shape.intermediate_size == 4 * shape.hidden_size and shape.qkv_bias and shape.num_channels == 3
    if size is None or not plain or shape.patch_size != 16 or shape.image_size not in (224, 384):
        return _ANY
    return f"vit_{size}_patch16_{shape.image_size}"


def _preprocessing(processor: Mapping[str, Any], side: int) -> dict[str, Any]:
    """Return the preprocessing in timm's words: it resizes the shorter side to ``side / crop_pct``, rounded down.

    torchvision's square is one pixel further on than a member's if half of the remainder is 1.5, 3.5, 5.5, ... pixels
    (`vitzoo.images.preprocess`); for 256 and 224 both are equal.
    """
    if not processor["do_resize"]:
        raise ConfigError(
            f"The member's images are cropped to {side} pixels without being resized",
            expected="a resize, as timm's config.json says",
            fix=TIMM_IN_PYTHON,
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
