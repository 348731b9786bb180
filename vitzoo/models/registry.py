"""The config and model classes of each architecture, found by the word in a member's config.json."""

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
    """Read a member's config.json, which is not trusted.

    Raises:
        ConfigError: It has a key or value that no member may have, or its values contradict each other.
    """
    values = load_config_json(path)
    return _model_class(values["model_type"]).config_class.from_json(values, path=path)


def load_model(source: ZooSource, ref: MemberRef, **kwargs: Any) -> Any:
    """Load a member of a zoo that is open, in evaluation mode.

    Args:
        source: The zoo.
        ref: The member and the epoch.
        **kwargs: As `MemberModel.from_source`.

    Raises:
        VitZooError: As `MemberModel.from_pretrained`.
    """
    values = load_config_json(Catalogue(source).config_file(ref))
    return _model_class(values["model_type"]).from_source(source, ref, **kwargs)


def build_model(config: MemberConfig) -> MemberModel:
    """Build the model of a config."""
    return _model_class(config.model_type)(config)


def _model_class(model_type: str) -> type[MemberModel]:
    return MODELS[find_architecture(model_type).backbone]
