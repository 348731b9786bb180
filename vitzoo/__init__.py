"""vitzoo: a population of transformers, loaded by id, read as a table and regenerated at will.

Names are imported on first use: ``import vitzoo`` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "BertZooConfig": "vitzoo.models.bert",
    "BertZooForMaskedLM": "vitzoo.models.bert",
    "BertZooForSequenceClassification": "vitzoo.models.bert",
    "Member": "vitzoo.zoo.member",
    "MemberId": "vitzoo.ids",
    "MemberRef": "vitzoo.ids",
    "Selection": "vitzoo.zoo.selection",
    "VitZooConfig": "vitzoo.models.vit",
    "VitZooError": "vitzoo.errors",
    "VitZooModel": "vitzoo.models.vit",
    "Zoo": "vitzoo.zoo.zoo",
    "ZooModel": "vitzoo.models.registry",
    "align": "vitzoo.analysis.alignment.alignment",
    "behaviour": "vitzoo.analysis.behaviour.behaviour",
    "canonical": "vitzoo.analysis.alignment.symmetries",
    "diff": "vitzoo.analysis.diversity.diff",
    "diversity": "vitzoo.analysis.diversity.diversity",
    "evaluate": "vitzoo.zoo.evaluate",
    "lineage": "vitzoo.analysis.lineage.lineage",
    "prediction": "vitzoo.analysis.prediction.prediction",
    "merge": "vitzoo.analysis.merging.merging",
    "path": "vitzoo.analysis.merging.paths",
}

__all__ = [
    "BertZooConfig",
    "BertZooForMaskedLM",
    "BertZooForSequenceClassification",
    "Member",
    "MemberId",
    "MemberRef",
    "Selection",
    "VitZooConfig",
    "VitZooError",
    "VitZooModel",
    "Zoo",
    "ZooModel",
    "__version__",
    "align",
    "behaviour",
    "canonical",
    "diff",
    "diversity",
    "evaluate",
    "lineage",
    "merge",
    "path",
    "prediction",
]

if TYPE_CHECKING:
    from vitzoo.analysis.alignment.alignment import align
    from vitzoo.analysis.alignment.symmetries import canonical
    from vitzoo.analysis.behaviour.behaviour import behaviour
    from vitzoo.analysis.diversity.diff import diff
    from vitzoo.analysis.diversity.diversity import diversity
    from vitzoo.analysis.lineage.lineage import lineage
    from vitzoo.analysis.merging.merging import merge
    from vitzoo.analysis.merging.paths import path
    from vitzoo.analysis.prediction.prediction import prediction
    from vitzoo.errors import VitZooError
    from vitzoo.ids import MemberId, MemberRef
    from vitzoo.models.bert import BertZooConfig, BertZooForMaskedLM, BertZooForSequenceClassification
    from vitzoo.models.registry import ZooModel
    from vitzoo.models.vit import VitZooConfig, VitZooModel
    from vitzoo.zoo.evaluate import evaluate
    from vitzoo.zoo.member import Member
    from vitzoo.zoo.selection import Selection
    from vitzoo.zoo.zoo import Zoo


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vitzoo' has no attribute {name!r}")


def __dir__():
    return __all__
