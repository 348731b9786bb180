"""Find the config and model classes of each architecture by the ``model_type`` in a member's config.json."""

from pathlib import Path
from typing import Any

from vitzoo.architectures import find_architecture, load_config_json
from vitzoo.ids import MemberRef
from vitzoo.models.loading import MemberConfig, MemberModel
from vitzoo.models.vit import VitZooModel
from vitzoo.sources.source import ZooSource
from vitzoo.tables.catalogue import Catalogue

MODELS: dict[str, type[MemberModel]] = {model.architecture.backbone: model for model in (VitZooModel,)}


def load_member_config(path: Path) -> MemberConfig:
    """Read a member's config.json as `MemberConfig.from_member` does, with the class of its architecture."""
    values = load_config_json(path)
    return _model_class(values["model_type"]).config_class.from_member(path, values=values)


def load_model(source: ZooSource, ref: MemberRef, **kwargs: Any) -> Any:
    """Load a member as `MemberModel.from_source` does, with the class of its architecture."""
    values = load_config_json(Catalogue(source).config_file(ref))
    return _model_class(values["model_type"]).from_source(source, ref, **kwargs)


def build_model(config: MemberConfig) -> MemberModel:
    """Build the model of a config."""
    return _model_class(config.model_type)(config)


def _model_class(model_type: str) -> type[MemberModel]:
    return MODELS[find_architecture(model_type).backbone]
