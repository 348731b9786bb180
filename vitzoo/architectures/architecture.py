"""Architecture: what the library must know of a kind of transformer to read and check its files without torch.

See `vitzoo.architectures.vit` for a ViT's, and `vitzoo.models` for the classes that compute.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

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


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One kind of transformer.

    A tensor has a name on disk, which never changes, and one in memory, which transformers chooses. Each function of a
    name takes either.

    Args:
        backbone: The module that holds the backbone; its tensors have this prefix. Also the name of the module of
            `vitzoo.models`.
        model_types: The words for it in config.json.
        shape: Makes a `ModelShape` of its sizes.
        disk_name: Returns a tensor's name on disk.
        memory_name: Returns a tensor's name in a module's state dict.
        is_head: Tells whether a tensor belongs to the head.
        layer_name: Returns the layer of a tensor.
        module_name: Returns the on-disk name of the module that a weight or bias belongs to.
        network_order: Sorts on-disk names by the order of the network; unknown names come last.
        config_fields: The keys that its config.json may have, with their types (`config_json.check_fields`).
        required_fields: The keys that it must have.
        check_config: Raises ConfigError where the values contradict each other.
        num_heads: Returns the attention heads of a block, from the config.
        recipe_keys: The keys of the config that a recipe's architecture decides.
        shared_keys: The other keys that decide outputs or training, and are equal in all members of a zoo.
        plan_graph: Adds the nodes and edges of the network to a plan.
    """

    backbone: str
    model_types: tuple[str, ...]
    shape: Callable[..., ModelShape]
    disk_name: Callable[[str], str]
    memory_name: Callable[[str], str]
    is_head: Callable[[str], bool]
    layer_name: Callable[[str], str]
    module_name: Callable[[str], str]
    network_order: Callable[[Iterable[str]], list[str]]
    config_fields: Mapping[str, Any]
    required_fields: tuple[str, ...]
    check_config: Callable[[Path, dict[str, Any]], None]
    num_heads: Callable[[Mapping[str, Any]], int]
    recipe_keys: tuple[str, ...]
    shared_keys: tuple[str, ...]
    plan_graph: "Callable[[GraphPlan], None]"

    def __post_init__(self) -> None:
        _BY_BACKBONE[self.backbone] = self

    def __reduce__(self):  # msgspec's types cannot be pickled: another process has its own
        return (_by_backbone, (self.backbone,))


_BY_BACKBONE: dict[str, Architecture] = {}


def _by_backbone(name: str) -> Architecture:
    return _BY_BACKBONE[name]


def describe_mismatch(
    expected: Shapes, found: Shapes, *, of: str = "model", says: str = "the config says"
) -> str | None:
    """Describe the differences between the expected tensors and those found.

    Args:
        expected: Names to shapes, by the config of a model or another source.
        found: Names to shapes, in the file.
        of: The owner of the expected tensors.
        says: The source of the expected shapes.

    Returns:
        The first few differences in one line, for an error message; None where there are none.
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
    """Describe the differences between the shape of a config and the tensors of a file.

    The tensors of the config are counted before they are listed, so that a hostile number of layers costs nothing.

    Args:
        shape: The shape of the config.
        found: Names to shapes, in the file.
        ignored: Tells by a tensor's name that it is not compared.

    Returns:
        As `describe_mismatch`.
    """
    if shape.num_tensors > len(found) + 10_000:
        return f"the config's layers have {shape.num_tensors} tensors, the file {len(found)}"
    expected: Shapes = shape.tensor_shapes()
    if ignored is not None:
        expected, found = ({name: its[name] for name in its if not ignored(name)} for its in (expected, found))
    return describe_mismatch(expected, found)
