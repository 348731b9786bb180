"""Find the config and model classes of a member by the ``model_type`` and the head's role in its config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitzoo.architectures import Architecture, find_architecture, load_config_json
from vitzoo.ids import MemberRef
from vitzoo.models.loading import MemberConfig, MemberModel
from vitzoo.models.vit import VitZooModel
from vitzoo.sources.source import ZooSource
from vitzoo.tables.catalogue import Catalogue

MODELS: dict[tuple[str, str], type[MemberModel]] = {}  # by backbone and role of the head


def register_model(cls: type[MemberModel]) -> type[MemberModel]:
    """Add the model class of an architecture for the roles that it declares; usable as a decorator."""
    MODELS.update({(cls.architecture.backbone, role): cls for role in cls.roles})
    return cls


for _model in (VitZooModel,):
    register_model(_model)


def model_class(architecture: Architecture, role: str) -> type[MemberModel]:
    """Return the model class of an architecture with a head of this role, or raise KeyError."""
    return MODELS[architecture.backbone, role]


def load_member_config(path: Path) -> MemberConfig:
    """Read a member's config.json as `MemberConfig.from_member` does, with the class of its architecture."""
    values = load_config_json(path)
    return _class_of(values).config_class.from_member(path, values=values)


def load_model(source: ZooSource, ref: MemberRef, **kwargs: Any) -> Any:
    """Load a member as `MemberModel.from_source` does, with the class of its architecture and head."""
    values = load_config_json(Catalogue(source).config_file(ref))
    return _class_of(values).from_source(source, ref, **kwargs)


def build_model(config: MemberConfig) -> MemberModel:
    """Build the model of a config."""
    return model_class(find_architecture(config.model_type), config.head_role)(config)


def _class_of(config: Mapping[str, Any]) -> type[MemberModel]:
    architecture = find_architecture(config["model_type"])
    return model_class(architecture, architecture.head_role(config))
