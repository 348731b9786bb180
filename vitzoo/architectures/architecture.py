"""Architecture: the facts of one kind of transformer that the library needs to read and check its files without torch.

See `vitzoo.architectures.vit` for a ViT's facts, and `vitzoo.models` for the classes that compute.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from vitzoo.architectures.graph import GraphPlan

Shapes = Mapping[str, tuple[int, ...]]


@runtime_checkable
class ModelShape(Protocol):
    """The sizes that decide the shapes of a model's tensors."""

    @property
    def num_tensors(self) -> int:
        """The number of tensors, counted without listing them."""
        ...

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the on-disk name and shape of every tensor, in the order of the network."""
        ...


class Architecture:
    """Facts and names of one kind of transformer.

    A tensor has a name on disk, which never changes, and one in memory, which transformers chooses. Each method of a
    name takes either.

    Attributes:
        backbone: Name of the module that holds the backbone, and prefix of its tensors.
        model_types: Values of ``model_type`` in config.json.
        config_fields: Allowed keys of config.json, with their types (`config_json.check_fields`).
        required_fields: Required keys of config.json.
        recipe_keys: Keys of the config that a recipe's architecture decides.
        shared_keys: Other keys that decide outputs or training, and are equal in all members of a zoo.
    """

    backbone: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    config_fields: ClassVar[Mapping[str, Any]]
    required_fields: ClassVar[tuple[str, ...]]
    recipe_keys: ClassVar[tuple[str, ...]]
    shared_keys: ClassVar[tuple[str, ...]]

    def disk_name(self, name: str) -> str:
        """Return a tensor's name on disk."""
        raise NotImplementedError

    def memory_name(self, name: str) -> str:
        """Return a tensor's name in a module's state dict."""
        raise NotImplementedError

    def is_head(self, name: str) -> bool:
        """Return whether a tensor belongs to the head."""
        raise NotImplementedError

    def layer_name(self, name: str) -> str:
        """Return the layer of a tensor."""
        raise NotImplementedError

    def module_name(self, name: str) -> str:
        """Return the on-disk name of the module that a weight or bias belongs to."""
        raise NotImplementedError

    def network_order(self, names: Iterable[str]) -> list[str]:
        """Sort on-disk names by the order of the network; unknown names come last."""
        raise NotImplementedError

    def check_config(self, path: Path, config: dict[str, Any]) -> None:
        """Raise ConfigError if the values of a config.json contradict each other."""
        raise NotImplementedError

    def num_heads(self, config: Mapping[str, Any]) -> int:
        """Return the number of attention heads of a block."""
        raise NotImplementedError

    def plan_graph(self, plan: "GraphPlan") -> None:
        """Add the nodes and edges of the network to a plan."""
        raise NotImplementedError


def describe_mismatch(
    expected: Shapes, found: Shapes, *, of: str = "model", says: str = "the config says"
) -> str | None:
    """Describe the first three differences between expected shapes and a file's in one line, or return None.

    Args:
        expected: Names to shapes.
        found: Names to shapes, in the file.
        of: Owner of the expected tensors, for the text.
        says: Source of the expected shapes, for the text.
    """
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not in the {of}" for name in found if name not in expected]
    problems += [
        f"{name} is {list(found[name])}, {says} {list(expected[name])}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    if not problems:
        return None
    more = len(problems) - 3
    return "; ".join(problems[:3]) + (f"; and {more} more" if more > 0 else "")


def describe_misfit(shape: ModelShape, found: Shapes, *, ignored: Callable[[str], bool] | None = None) -> str | None:
    """Describe the differences between a config and a file as `describe_mismatch`, without ``ignored`` tensors.

    The tensors of the config are counted before they are listed, so a hostile number of layers costs nothing.
    """
    if shape.num_tensors > len(found) + 10_000:
        return f"the config's layers have {shape.num_tensors} tensors, the file {len(found)}"
    expected: Shapes = shape.tensor_shapes()
    if ignored is not None:
        expected = {name: size for name, size in expected.items() if not ignored(name)}
        found = {name: size for name, size in found.items() if not ignored(name)}
    return describe_mismatch(expected, found)
