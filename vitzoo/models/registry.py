"""Find the config and model classes of a member by the ``model_type`` and the head's role in its config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from vitzoo.architectures import Architecture, find_architecture, load_config_json
from vitzoo.errors import ConfigError, printable, shown
from vitzoo.ids import MemberRef
from vitzoo.models.bert import BertZooForMaskedLM, BertZooForSequenceClassification
from vitzoo.models.config import MemberConfig, locate_member
from vitzoo.models.loading import MemberModel
from vitzoo.models.vit import VitZooModel
from vitzoo.sources.locate import Name, expand_home
from vitzoo.sources.source import ZooSource
from vitzoo.tables.catalogue import Catalogue

MODELS: dict[tuple[str, str], type[MemberModel]] = {}  # by backbone and role of the head


def register_model(cls: type[MemberModel]) -> type[MemberModel]:
    """Add the model class of an architecture for the roles that it declares; usable as a decorator."""
    MODELS.update({(cls.architecture.backbone, role): cls for role in cls.roles})
    return cls


for _model in (VitZooModel, BertZooForMaskedLM, BertZooForSequenceClassification):
    register_model(_model)


def model_class(architecture: Architecture, role: str) -> type[MemberModel]:
    """Return the model class of an architecture with a head of this role, or raise KeyError."""
    return MODELS[architecture.backbone, role]


class ZooModel:
    """Load any member with the class that its config says, like an Auto class. It is never instantiated.

    Example:
        >>> type(ZooModel.from_pretrained("zoo/pt-0/ft-0")).__name__
        'VitZooModel'
    """

    def __init__(self) -> None:
        raise TypeError("ZooModel has no instances; expected ZooModel.from_pretrained(...), which returns a model")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Name,
        *,
        epoch: int | None = None,
        subfolder: str | None = None,
        variant: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load a member by its id, or a saved model of an architecture that the library has.

        Args:
            pretrained_model_name_or_path: As `MemberModel.from_pretrained`.
            epoch: As `MemberModel.from_pretrained`.
            subfolder: Id of the member, if the name is a zoo's.
            variant: Weights of an epoch, such as ``epoch-07``.
            **kwargs: Other arguments of `MemberModel.from_pretrained`.

        Returns:
            The model, of the class that the config says, in evaluation mode.

        Raises:
            VitZooError: As `MemberModel.from_pretrained`.
            ConfigError: The config is not of an architecture of the library.
        """
        places = {"subfolder": subfolder, "variant": variant}
        kwargs |= {name: value for name, value in places.items() if value is not None}
        located = locate_member(pretrained_model_name_or_path, epoch, locating := dict(kwargs))
        if located is not None:
            ref, source = located
            return load_model(source, ref, **locating)
        name: Any = expand_home(pretrained_model_name_or_path)
        config, _ = PreTrainedConfig.get_config_dict(name, **kwargs)
        return find_model_class(config, what=str(name)).from_pretrained(name, epoch=epoch, **kwargs)


def load_member_config(path: Path) -> MemberConfig:
    """Read a member's config.json as `MemberConfig.from_member` does, with the class of its architecture."""
    values = load_config_json(path)
    return find_model_class(values, what=str(path)).config_class.from_member(path, values=values)


def load_model(source: ZooSource, ref: MemberRef, **kwargs: Any) -> Any:
    """Load a member as `MemberModel.from_source` does, with the class of its architecture and head."""
    path = Catalogue(source).config_file(ref)
    return find_model_class(load_config_json(path), what=str(path)).from_source(source, ref, **kwargs)


def assemble_model(config: MemberConfig, tensors: Mapping[str, Tensor]) -> MemberModel:
    """Build the model of a config around tensors by their names on disk, without copying them."""
    cls = model_class(find_architecture(config.model_type), config.head_role)
    return cls.from_tensors(config, dict(tensors))


def build_model(config: MemberConfig) -> MemberModel:
    """Build the model of a config without memory for its parameters."""
    return model_class(find_architecture(config.model_type), config.head_role).build_empty(config)


def class_of(model: PreTrainedModel) -> type[MemberModel]:
    """Return the class of the zoo that computes a model, which may be of transformers' own class.

    Raises:
        ConfigError: The library has no such class.
    """
    if isinstance(model, MemberModel):
        return type(model)
    name = type(model).__name__
    found = find_model_class({**model.config.to_dict(), "architectures": [name]}, what=name)
    plain = found.__bases__[-1]  # transformers' own class
    if not isinstance(model, plain):
        raise ConfigError(
            f"The model is a {printable(name)}", expected=f"a {found.__name__} or a {plain.__name__}", key="model_type"
        )
    return found


def find_model_class(config: Mapping[str, Any], *, what: str) -> type[MemberModel]:
    """Return the class of a model by its config; raise ConfigError if the library has none."""
    word, names = config.get("model_type"), config.get("architectures")
    try:
        architecture = find_architecture(str(word))
        return model_class(architecture, architecture.head_role(config))
    except KeyError:
        raise ConfigError(
            f"{printable(what)} has model_type {shown(word)} and architectures {printable(str(names))[:80]}",
            expected=f"a model of {', '.join(sorted({model.__name__ for model in MODELS.values()}))}",
            fix="Load it by transformers' own classes.",
            key="model_type",
        ) from None
