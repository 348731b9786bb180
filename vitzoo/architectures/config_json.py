"""Read and check an untrusted JSON file: every key must be listed, and every value must fit its type.

No listed key names code, a file or a kernel. See `vitzoo.architectures.vit` for the keys of a ViT's config.json,
`vitzoo.images.processor` for the keys of preprocessor_config.json, and `vitzoo.records` for the zoo's own records.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from vitzoo.errors import ConfigError, did_you_mean, shown
from vitzoo.records.files import open_regular

HEAD_TYPES = ("linear", "mlp")
HEAD_ROLES = ("classifier", "embedding")
MAX_LABELS = 2**16  # ImageNet-21k has 21,843; each costs memory before a weight is read
MAX_SIZE = 2**20
_MAX_BYTES = 4 * 2**20


def one_of(*values: str, nullable: bool = False) -> Any:
    """Return the type of a text that is one of a few."""
    literal: Any = Literal[values]  # pyright: ignore[reportInvalidTypeArguments]
    return Annotated[literal | None if nullable else literal, Meta(description=f"one of {', '.join(values)}")]


def whole_number(most: int, *, nullable: bool = False) -> Any:
    """Return the type of an integer from 1."""
    number: Any = Annotated[int, Meta(ge=1, le=most)]
    return Annotated[number | None if nullable else number, Meta(description=f"1 to {most}")]


SIZE = whole_number(MAX_SIZE)
NULLABLE_SIZE = whole_number(MAX_SIZE, nullable=True)
SMALL = Annotated[float, Meta(gt=0, le=1, description="a number above 0, 1 at most")]
PROBABILITY = Annotated[float, Meta(ge=0, le=1, description="a number from 0 to 1")]
ACTIVATION = one_of("gelu", "gelu_pytorch_tanh", "relu", "silu", "tanh")
BOOLEAN = Annotated[bool, Meta(description="true or false")]
# The keys that a config.json of any architecture may have, beside its own.
COMMON_FIELDS: dict[str, Any] = {
    "transformers_version": Annotated[
        Annotated[str, Meta(pattern=r"^[0-9]+\.[A-Za-z0-9_.+-]{1,60}\Z")] | None, Meta(description="a version")
    ],
    "dtype": one_of("float64", "float32", "float16", "bfloat16", nullable=True),
    "initializer_range": SMALL,
    "layer_norm_eps": SMALL,
    "problem_type": one_of("regression", "single_label_classification", "multi_label_classification", nullable=True),
    "num_labels": whole_number(MAX_LABELS),
    "id2label": Annotated[
        dict[str, str],
        Meta(
            min_length=1,
            max_length=MAX_LABELS,
            description=f'an object of "0", "1", ... to printable names, {MAX_LABELS} at most',
        ),
    ],
    "label2id": Annotated[dict[str, int] | None, Meta(description="the inverse of id2label")],
    "head_type": one_of(*HEAD_TYPES),
    "head_width": NULLABLE_SIZE,
    "head_role": one_of(*HEAD_ROLES),
}


def load_json(path: Path, *, content: bytes | None = None) -> dict[str, Any]:
    """Read a JSON object, or raise ConfigError if the file cannot be read, is too large or is not one.

    Args:
        path: The file.
        content: Bytes of the file, if they were read before.
    """
    try:
        if content is None:
            with open_regular(path) as file:
                content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"{path} is too large", expected=f"at most {_MAX_BYTES} bytes", path=path)
        values = msgspec.json.decode(content)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", fix="Get the file again.", path=path) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}", fix="Get the file again.", path=path) from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a JSON object", path=path)
    return values


def check_fields(
    path: Path, values: dict[str, Any], fields: Mapping[str, Any], *, required: tuple[str, ...] = ()
) -> None:
    """Check each key and value of a JSON object, and convert the values to the types of their keys, in place.

    Args:
        path: The file, for the error.
        values: The object.
        fields: Allowed keys with annotated types, whose last description is for the error.
        required: Required keys.

    Raises:
        ConfigError: A key is unknown or missing, or a value does not fit.
    """
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(
                f"{path} says {shown(key)}, which no zoo member may say",
                expected="only keys of a model and its head, and never code, kernels, adapters or quantisation",
                fix=f"Do not load it from a source you do not trust.{did_you_mean(key, sorted(fields))}",
                path=path,
                key=key,
            )
        try:
            values[key] = msgspec.convert(value, fields[key])
        except msgspec.ValidationError:
            raise unfit(path, key, value, describe_field(fields[key])) from None
    missing = [key for key in required if key not in values]
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}", fix="Get the file again.", path=path, key=missing[0])


def describe_field(field: Any) -> str:
    """Return the allowed values of a field, in words."""
    return field.__metadata__[-1].description


def unfit(path: Path, key: str, value: Any, expected: str) -> ConfigError:
    """Return the error for a value that does not fit."""
    return ConfigError(f"{path} says {shown(key)}: {shown(value)}", expected=expected, path=path, key=key)


def check_labels(path: Path, config: dict[str, Any]) -> None:
    """Raise ConfigError if id2label, label2id and num_labels disagree, or a name is not printable."""
    id2label, label2id = config.get("id2label", {}), config.get("label2id") or {}
    names = [id2label.get(str(i)) for i in range(len(id2label))]
    if not all(name is not None and name.isprintable() for name in names):
        raise unfit(path, "id2label", id2label, describe_field(COMMON_FIELDS["id2label"]))
    inverse = all(id2label.get(str(i)) == name for name, i in label2id.items())
    if label2id and not (inverse and label2id.keys() == set(names)):  # two classes may share a name
        raise ConfigError(
            f'{path} says a "label2id" that does not match',
            expected='the inverse of its "id2label"',
            path=path,
            key="label2id",
        )
    if id2label and config.get("num_labels", len(id2label)) != len(id2label):
        raise ConfigError(
            f'{path} says "num_labels": {config["num_labels"]}',
            expected=f'{len(id2label)}, the classes in "id2label"',
            path=path,
            key="num_labels",
        )
