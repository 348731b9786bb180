"""Convert between a `Preprocessing` and preprocessor_config.json, by which transformers processes images as we do.

    Preprocessing()                       "size": {"height": 8, "width": 8}, the model's and the images' size; images
                                          of another size are resized to it, see `ExactSize`
    Preprocessing(resize=256, crop=224)   "size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": {...}
    Preprocessing(resize=64)              "size": {"shortest_edge": 64}
    Preprocessing(crop=224)               "do_resize": false, "do_center_crop": true, "crop_size": {...}

See `vitzoo.architectures.config_json` for how the file is read, and `vitzoo.models.evaluation` for evaluation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from vitzoo.architectures.config_json import BOOLEAN, check_fields, describe_field, load_json, one_of, unfit
from vitzoo.errors import ConfigError, DatasetError, shown
from vitzoo.records.dataset_spec import Preprocessing

if TYPE_CHECKING:
    from transformers import ViTImageProcessorPil

BILINEAR, BICUBIC = 2, 3  # PIL's numbers
MAX_RESIZE = 4  # the largest side of a resized image, in sides of the model's

_Side = Annotated[int, Meta(ge=1, le=4096)]
_TRUE = Annotated[bool, Meta(description="true")]
_CHANNELS = Annotated[
    list[Annotated[float, Meta(gt=0, lt=1)]],
    Meta(min_length=1, max_length=4, description="a number between 0 and 1 for each channel"),
]
_FIELDS: dict[str, Any] = {
    "image_processor_type": one_of("ViTImageProcessor"),
    **dict.fromkeys(("do_convert_rgb", "do_normalize", "do_rescale"), _TRUE),
    "do_resize": BOOLEAN,
    **dict.fromkeys(("image_mean", "image_std"), _CHANNELS),
    "resample": Annotated[int, Meta(ge=0, le=5, description="one of PIL's filters, 0 to 5")],
    "rescale_factor": Annotated[float, Meta(ge=(1 - 1e-9) / 255, le=(1 + 1e-9) / 255, description="1/255")],
    "size": Annotated[
        dict[Literal["height", "width", "shortest_edge"], _Side],
        Meta(description="height and width of 1 to 4096, or a shortest_edge"),
    ],
}
# Of images that are cropped to the model's size; others have neither.
_CROP_FIELDS: dict[str, Any] = {
    "do_center_crop": _TRUE,
    "crop_size": Annotated[
        dict[Literal["height", "width"], _Side], Meta(description="equal height and width of 1 to 4096")
    ],
}
# The valid combinations of do_resize, a shortest_edge and a crop.
_COMBINATIONS = ((True, False, False), (True, True, False), (True, True, True), (False, False, True))


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactSize:
    """Resize images to a height and width, without regard to their shape, as a processor without a crop does.

    Args:
        height: Height, pixels.
        width: Width, pixels.
        filter: PIL's number of the filter.
    """

    height: int
    width: int
    filter: int

    @property
    def resample(self) -> Literal["bilinear", "bicubic"]:
        """The name of the filter.

        Raises:
            DatasetError: vitzoo does not resize by that filter.
        """
        if self.filter not in (BILINEAR, BICUBIC):
            raise DatasetError(
                f"The image processor has resample {self.filter}",
                expected="2 or 3, bilinear or bicubic, for images of another size than the model's",
                fix=f"Resize the images to {self.height} x {self.width} pixels first.",
            )
        return "bicubic" if self.filter == BICUBIC else "bilinear"


def load_processor_json(path: Path, *, model: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a member's preprocessor_config.json. Args and errors as `check_processor_json`."""
    return check_processor_json(load_json(path), path=path, model=model)


def of_transformers(processor: Any, *, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an image processor of transformers, as `check_processor_json` does for a file."""
    values = {key: value for key, value in processor.to_dict().items() if key in _FIELDS | _CROP_FIELDS}
    values = {key: value for key, value in values.items() if value is not None}
    if not values.get("do_center_crop"):
        values = {key: value for key, value in values.items() if key not in _CROP_FIELDS}
    size = dict(values.get("size") or {})
    values |= {"image_processor_type": "ViTImageProcessor", "do_convert_rgb": True}
    values["size"] = {key: value for key, value in size.items() if value is not None}
    return check_processor_json(values, path=Path(type(processor).__name__), model=model)


def check_processor_json(
    config: dict[str, Any], *, path: Path, model: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Check the content of a preprocessor_config.json.

    Args:
        config: The content.
        path: The file, for messages.
        model: The model's config, whose image_size and num_channels the images must have; None for no comparison.

    Returns:
        The file as plain JSON, with every key that decides ``pixel_values``.

    Raises:
        ConfigError: The file has an unknown key or a bad value, a resize and crop that `vitzoo.images.Preprocessing`
            cannot express, or images that do not fit the model.
    """
    fields = _FIELDS | _CROP_FIELDS
    check_fields(path, config, fields, required=tuple(_FIELDS))
    crop_size, size = config.get("crop_size"), config["size"]
    crops, shorter = "do_center_crop" in config, "shortest_edge" in size
    sound = {key: config[key] for key in fields if key in config and fields[key] is _TRUE}
    sound["size"] = size.keys() in ({"height", "width"}, {"shortest_edge"})
    sound["crop_size"] = crop_size is None or (len(crop_size) == 2 and len(set(crop_size.values())) == 1)
    for key, is_sound in sound.items():
        if not is_sound:
            raise unfit(path, key, config[key], describe_field(fields[key]))
    if crops != (crop_size is not None):
        raise ConfigError(
            f'{path} has one of "do_center_crop" and "crop_size"',
            expected="both or neither",
            path=path,
            key="crop_size",
        )
    if (config["do_resize"], shorter, crops) not in _COMBINATIONS:
        raise ConfigError(
            f"""{path} says "do_resize": {shown(config["do_resize"])} and a size of {", ".join(size)}, """
            f"{('with' if crops else 'without')} a crop",
            expected="a resize to height and width without a crop, one of the shortest_edge with or without a "
            "crop, or no resize and a crop",
            path=path,
            key="do_resize",
        )
    if shorter and config["resample"] not in (BILINEAR, BICUBIC):
        raise unfit(path, "resample", config["resample"], "2 or 3, bilinear or bicubic, for a shortest_edge")
    if model is not None:
        _check_fits(path, config, model)
    return config


def _check_fits(path: Path, config: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Check that the images have the size and channels of the model."""
    output, side = config.get("crop_size", config["size"]), model["image_size"]
    channels, edge = {len(config["image_mean"]), len(config["image_std"])}, config["size"].get("shortest_edge", 0)
    expected = None
    if set(output.values()) != {side} or channels != {model["num_channels"]}:
        problem = (
            f"{path} makes images of {output} with {channels} channels, but the model beside it takes {side} pixels "
            f"and {model['num_channels']} channels"
        )
    elif edge > MAX_RESIZE * side:
        problem, expected = f"{path} resizes to a shortest_edge of {edge} pixels", f"{MAX_RESIZE * side} at most"
    else:
        return
    raise ConfigError(problem, expected=expected, fix="Get both files again.", path=path, key="size")


def image_processor(config: Mapping[str, Any]) -> "ViTImageProcessorPil":
    """Return transformers' image processor for the values of `processor_arguments` or `load_processor_json`."""
    from vitzoo.images.member_processor import MemberImageProcessor

    return MemberImageProcessor(**{key: value for key, value in config.items() if key != "image_processor_type"})


def processor_arguments(
    preprocessing: Preprocessing, *, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """Return the arguments of the `image_processor` that does a `Preprocessing`.

    Args:
        preprocessing: Resize and crop before normalisation.
        image_size: Side of the model's images, pixels.
        mean: Mean of each channel, with pixels scaled to 0 to 1.
        std: Standard deviation of each channel, likewise.

    Raises:
        ValueError: The prepared images have another size than the model takes, or are resized to over four times it.
    """
    side = preprocessing.crop or preprocessing.resize
    if side not in (None, image_size):
        raise ValueError(f"{preprocessing} gives images of {side} pixels, but the model takes {image_size}")
    if (preprocessing.resize or 0) > MAX_RESIZE * image_size:
        raise ValueError(f"{preprocessing} resizes to over {MAX_RESIZE} times the model's {image_size} pixels")
    square = {"height": image_size, "width": image_size}
    arguments: dict[str, Any] = {"size": square}
    if preprocessing.resize is not None:
        arguments["size"] = {"shortest_edge": preprocessing.resize}
        arguments["resample"] = BICUBIC if preprocessing.resample == "bicubic" else BILINEAR
    if preprocessing.crop is not None:
        arguments |= {"do_center_crop": True, "crop_size": square}
        if preprocessing.resize is None:
            arguments["do_resize"] = False
    return arguments | {"image_mean": list(mean), "image_std": list(std), "do_convert_rgb": True}


def preprocessing_of(processor: Mapping[str, Any]) -> Preprocessing | ExactSize:
    """Return the resize and crop of the values of `load_processor_json`."""
    size = processor["size"]
    if processor["do_resize"] and "height" in size:
        return ExactSize(height=size["height"], width=size["width"], filter=processor["resample"])
    resize = processor["size"].get("shortest_edge") if processor["do_resize"] else None
    crop = processor["crop_size"]["height"] if processor.get("do_center_crop") else None
    if resize is None:
        return Preprocessing(crop=crop)
    return Preprocessing(
        resize=resize, crop=crop, resample="bicubic" if processor["resample"] == BICUBIC else "bilinear"
    )
