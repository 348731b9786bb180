"""How images are seen at evaluation, as preprocessor_config.json says it: both ways between it and `Preprocessing`.

What that file may say at all is `vitzoo.architectures.member_json`'s. transformers then does what
`vitzoo.models.evaluation` does:

    Preprocessing()                       "size": {"height": 8, "width": 8}, of the model: its images have that size
    Preprocessing(resize=256, crop=224)   "size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": {...}
    Preprocessing(resize=64)              "size": {"shortest_edge": 64}
    Preprocessing(crop=224)               "do_resize": false, "do_center_crop": true, "crop_size": {...}
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vitzoo.architectures.member_json import MAX_RESIZE
from vitzoo.records.dataset_spec import Preprocessing

BILINEAR, BICUBIC = 2, 3  # PIL's numbers


def processor_arguments(
    preprocessing: Preprocessing, *, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """The arguments of the `transformers.ViTImageProcessorPil` that does what a `Preprocessing` says.

    Args:
        preprocessing: What is done to an image before it is normalised.
        image_size: Side of the images that the model takes, pixels.
        mean: Of each channel, with pixels scaled to 0 to 1.
        std: Of each channel, likewise.

    Raises:
        ValueError: Images so prepared have another size than the model takes, or are resized to over four times it.
    """
    side = preprocessing.crop or preprocessing.resize
    if side not in (None, image_size):
        raise ValueError(f"{preprocessing} gives images of {side} pixels, but the model takes {image_size}")
    if (preprocessing.resize or 0) > MAX_RESIZE * image_size:
        raise ValueError(
            f"{preprocessing} resizes to {preprocessing.resize} pixels, of which the model takes {image_size}; "
            f"expected {MAX_RESIZE * image_size} at most"
        )
    arguments: dict[str, Any] = {"size": _square(image_size)}
    if preprocessing.resize is not None:
        arguments["size"] = {"shortest_edge": preprocessing.resize}
        arguments["resample"] = BICUBIC if preprocessing.resample == "bicubic" else BILINEAR
    if preprocessing.crop is not None:
        arguments |= {"do_center_crop": True, "crop_size": _square(preprocessing.crop)}
        if preprocessing.resize is None:
            arguments["do_resize"] = False
    return arguments | {"image_mean": list(mean), "image_std": list(std), "do_convert_rgb": True}


def preprocessing_of(processor: Mapping[str, Any]) -> Preprocessing:
    """What a preprocessor_config.json says is done to an image before it is normalised.

    Args:
        processor: What it says, from `vitzoo.architectures.member_json.load_processor_json`.
    """
    resize = processor["size"].get("shortest_edge") if processor["do_resize"] else None
    crop = processor["crop_size"]["height"] if processor.get("do_center_crop") else None
    if resize is None:
        return Preprocessing(crop=crop)  # a resize to height and width is one to the size that the images have
    return Preprocessing(
        resize=resize, crop=crop, resample="bicubic" if processor["resample"] == BICUBIC else "bilinear"
    )


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}
