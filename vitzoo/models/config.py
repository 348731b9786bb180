"""Load a member's config.json: the base of every architecture's config class, and the arguments of loading.

See `vitzoo.models.loading` for models, and `vitzoo.architectures` for the keys of config.json.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from vitzoo.architectures import ARCHITECTURES, Architecture, ModelShape, find_architecture, load_config_json
from vitzoo.architectures.config_json import MAX_LABELS
from vitzoo.errors import ConfigError, ConflictingArgumentsError, printable
from vitzoo.ids import MemberRef
from vitzoo.records.files import refuse_member_folder
from vitzoo.sources.locate import Name, expand_home, locate
from vitzoo.sources.source import HubOptions, ZooSource
from vitzoo.tables.catalogue import Catalogue

# The arguments that locate a member or download it; transformers gets none of them.
_LOCATING_ARGUMENTS = (
    *("subfolder", "variant", "revision"),
    *("cache_dir", "force_download", "local_files_only", "token", "proxies"),
)
# The arguments that would run code, read pickles or give other weights.
_REFUSED_ARGUMENTS = ("trust_remote_code", "state_dict", "key_mapping", "gguf_file", "quantization_config")

if TYPE_CHECKING:  # a mixin, so that transformers sees its own class alone
    _Config = PreTrainedConfig
else:
    _Config = object


def label_names(classes: Iterable[str]) -> dict[str, Any]:
    """Return ``id2label`` and ``label2id`` of class names in the order of their numbers."""
    names = dict(enumerate(classes))
    return {"id2label": names, "label2id": {name: number for number, name in names.items()}}


class MemberConfig(_Config):
    """Base of an architecture's config class: loads a member's config.json by the member's id."""

    head_role: str

    def __post_init__(self, **kwargs: Any) -> None:
        """Check the number of labels and make their names agree before transformers makes up a name for each."""
        labels = kwargs.get("num_labels")
        if labels is not None and not (type(labels) is int and 0 < labels <= MAX_LABELS):
            raise ConfigError(f"num_labels is {labels!r}", expected=f"1 to {MAX_LABELS}", key="num_labels")
        self._take_names()
        super().__post_init__(**kwargs)

    def _take_names(self) -> None:
        """Take the class names of ``label2id`` if ``id2label`` has none, then make the two agree."""
        numbers = self.label2id or {}
        names = {int(number): name for number, name in (self.id2label or {}).items()}
        if numbers and names in ({}, {number: f"LABEL_{number}" for number in range(len(numbers))}):
            self.id2label = names = {int(number): name for name, number in numbers.items()}
        if names and any(names.get(int(number)) != name for name, number in numbers.items()):
            self.label2id = {name: number for number, name in names.items()}

    @property
    def shape(self) -> ModelShape:
        """The sizes that decide the shapes of the model's tensors."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: Name, *, epoch: int | None = None, **kwargs: Any
    ) -> Any:
        """Load the config of a member, or of any model that transformers loads.

        Args:
            pretrained_model_name_or_path: A member id (``"zoo/pt-12/ft-3"``), a zoo with ``subfolder=``, or anything
                that transformers loads.
            epoch: Finished epochs, accepted so that model and config take the same arguments; all share one config.
            **kwargs: As `transformers.PreTrainedConfig.from_pretrained`.

        Raises:
            VitZooError: The id is malformed, there is no such member, or its config is not valid for a member.
        """
        located = locate_member(pretrained_model_name_or_path, epoch, kwargs)
        if located is None:
            name: Any = expand_home(pretrained_model_name_or_path)
            return super().from_pretrained(name, **kwargs)
        refuse_arguments(kwargs)
        ref, source = located
        return cls.from_member(Catalogue(source).config_file(ref), **kwargs)

    @classmethod
    def plain_defaults(cls) -> dict[str, Any]:
        """Return the defaults of the plain config of transformers where this class has others."""
        return {}

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Read a config as transformers does; a plain one becomes one of this class, with a linear head.

        Raises:
            ConfigError: The config is of another architecture.
        """
        config, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        cls._check_architecture(config, what=str(pretrained_model_name_or_path))
        if (word := config.get("model_type")) != cls.model_type and word in cls._architecture().model_types:
            config = cls.plain_defaults() | config | {"model_type": cls.model_type}
        return config, kwargs

    @classmethod
    def _architecture(cls) -> Architecture:
        return find_architecture(cls.model_type)

    @classmethod
    def _check_architecture(cls, config: Mapping[str, Any], *, what: str) -> None:
        """Raise ConfigError if a config is of another architecture that the library has."""
        word = config.get("model_type")
        architecture = next((each for each in ARCHITECTURES.values() if word in each.model_types), None)
        if architecture is not None and architecture is not cls._architecture():
            right = architecture.classes.get("config", "vitzoo.ZooModel")
            raise ConfigError(
                f'{printable(what)} has model_type "{word}"',
                expected=f"{' or '.join(cls._architecture().model_types)} for a {cls.__name__}",
                fix=f"Use {right}.from_pretrained, or ZooModel.from_pretrained for the model.",
                key="model_type",
            )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a config as transformers does; an embedding that is given labels becomes a classifier."""
        names = ("num_labels", "id2label", "label2id")
        kwargs = {key: value for key, value in kwargs.items() if key not in names or value is not None}
        is_embedding = config_dict.get("head_role") == "embedding"
        if not is_embedding and kwargs.get("num_labels") == len(config_dict.get("id2label") or ()):
            del kwargs["num_labels"]  # the same number: the labels keep their names
        if kwargs.keys() & set(names):
            labels = {name: kwargs.pop(name) for name in names if name in kwargs}
            kept = {key: value for key, value in config_dict.items() if key not in names}
            config_dict = kept | {"head_role": "classifier"} | labels
        config = super().from_dict(dict(config_dict), **kwargs)
        (config[0] if isinstance(config, tuple) else config).validate()  # transformers sets overrides unchecked
        return config

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Save the config as transformers does, but not in a member's folder.

        Models, and with them Trainer, save their config before their weights.

        Raises:
            MemberOverwriteError: The folder is a member's, or lies inside of one.
        """
        refuse_member_folder(save_directory)
        return super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_member(cls, path: Path, *, values: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """Read a member's config.json, which is not trusted, or take its values from `load_config_json`.

        Args:
            path: The file.
            values: Content of the file, if it was read before.
            **kwargs: As ``from_dict``.

        Raises:
            ConfigError: The file has a key or value that no member may have, or its values contradict each other.
        """
        values = load_config_json(path) if values is None else values
        cls._check_architecture(values, what=str(path))
        values = values | {"model_type": cls.model_type}
        try:
            return cls.from_dict(values, **kwargs) if kwargs else cls(**values)
        except (ValueError, TypeError, AttributeError, StrictDataclassError) as error:
            arguments = f" with {', '.join(kwargs)}=" if kwargs else ""
            raise ConfigError(f"{path} is not a valid config{arguments}: {error}", path=path) from error


def refuse_arguments(arguments: dict[str, Any]) -> None:
    """Raise ConflictingArgumentsError if an argument would run code, read pickles or give a member other weights."""
    values = {name: arguments.pop(name, None) for name in _REFUSED_ARGUMENTS}
    refused = [name for name, value in values.items() if value is not None and value is not False]
    if arguments.pop("use_safetensors", None) is False:
        refused.append("use_safetensors")
    if refused:
        raise ConflictingArgumentsError(
            f"{refused[0]}= was given for a zoo member",
            expected="a member loaded whole, from safetensors and without code of its own",
            fix="Leave it out, or save the member with save_pretrained and load that.",
        )


def locate_member(
    name: Name | None, epoch: int | None, arguments: dict[str, Any]
) -> tuple[MemberRef, ZooSource] | None:
    """Find the member of a name, and remove the arguments that locate it."""
    located = locate(
        name,
        subfolder=arguments.get("subfolder"),
        variant=arguments.get("variant"),
        epoch=epoch,
        options=HubOptions.of(arguments),
    )
    if located is not None:
        for argument in _LOCATING_ARGUMENTS:
            arguments.pop(argument, None)
    return located
