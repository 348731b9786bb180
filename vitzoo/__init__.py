"""vitzoo: a population of vision transformers, loaded by id, read as a table and regenerated at will.

Names are imported on first use: ``import vitzoo`` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "Member": "vitzoo.zoo.member",
    "MemberId": "vitzoo.ids",
    "MemberRef": "vitzoo.ids",
    "Selection": "vitzoo.zoo.selection",
    "VitZooConfig": "vitzoo.models.vit",
    "VitZooError": "vitzoo.errors",
    "VitZooModel": "vitzoo.models.vit",
    "Zoo": "vitzoo.zoo.zoo",
}

__all__ = [
    "Member",
    "MemberId",
    "MemberRef",
    "Selection",
    "VitZooConfig",
    "VitZooError",
    "VitZooModel",
    "Zoo",
    "__version__",
]

if TYPE_CHECKING:
    from vitzoo.errors import VitZooError
    from vitzoo.ids import MemberId, MemberRef
    from vitzoo.models.vit import VitZooConfig, VitZooModel
    from vitzoo.zoo.member import Member
    from vitzoo.zoo.selection import Selection
    from vitzoo.zoo.zoo import Zoo


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vitzoo' has no attribute {name!r}")


def __dir__():
    return __all__
