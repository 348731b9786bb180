"""Architecture: the facts of one kind of transformer that the library needs to read and check its files without torch.

See `vitzoo.architectures.vit` for a ViT's facts, and `vitzoo.models` for the classes that compute.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from vitzoo.architectures.symmetry import Symmetry

if TYPE_CHECKING:
    from vitzoo.architectures.graph import GraphPlan

Shapes = Mapping[str, tuple[int, ...]]
HeadWidth = int | tuple[int, ...] | None


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


@runtime_checkable
class Sizes(Protocol):
    """The sizes of a backbone, as a recipe declares them."""

    def shape(self, *, outputs: int, head_width: HeadWidth, role: str) -> ModelShape:
        """Return the values that decide the shapes of the tensors of a model with this backbone.

        Args:
            outputs: Classes, or the width of an embedding; a masked head has one output for each token.
            head_width: Widths of the head's hidden layers, or the width of one; None for a linear head.
            role: Role of the head, from ``MemberModel.roles``.
        """
        ...

    def flops(self, *, tokens: int | None = None) -> float:
        """Return the floating-point operations of the backbone's forward pass.

        Args:
            tokens: Tokens of a row; None for an image.
        """
        ...


@dataclass(frozen=True, slots=True)
class FirstValue:
    """Rule that draws the first value of a tensor.

    Args:
        rule: ``normal`` of mean 0, ``uniform`` around 0, or ``constant``.
        value: Standard deviation, bound of the absolute value, or the constant.
    """

    rule: Literal["normal", "uniform", "constant"]
    value: float


class Architecture:
    """Facts and names of one kind of transformer.

    A tensor has a name on disk, which never changes, and one in memory, which transformers chooses. Each method of a
    name takes either.

    Attributes:
        backbone: Name of the module that holds the backbone, and prefix of its tensors.
        modality: Kind of data that the model reads.
        sizes: Dataclass of a recipe's sizes.
        tied: Names of a module's state dict that no file has, with the names on disk of the tensors that they repeat.
        classes: Names in `vitzoo` of the config class, under ``config``, and of the model class of each role.
        model_types: Values of ``model_type`` in config.json.
        config_fields: Allowed keys of config.json, with their types (`config_json.check_fields`).
        required_fields: Required keys of config.json.
        recipe_keys: Keys of the config that a recipe's architecture decides.
        shared_keys: Other keys that decide outputs or training, and are equal in all members of a zoo.
        training_keys: Those of ``shared_keys`` that decide training alone, and may differ between imported members.
    """

    backbone: ClassVar[str]
    modality: ClassVar[Literal["images", "text"]]
    sizes: ClassVar[type[Sizes]]
    tied: ClassVar[Mapping[str, str]] = {}
    classes: ClassVar[Mapping[str, str]] = {}
    model_types: ClassVar[tuple[str, ...]]
    config_fields: ClassVar[Mapping[str, Any]]
    required_fields: ClassVar[tuple[str, ...]]
    recipe_keys: ClassVar[tuple[str, ...]]
    shared_keys: ClassVar[tuple[str, ...]]
    training_keys: ClassVar[tuple[str, ...]] = ()

    def disk_name(self, name: str) -> str:
        """Return a tensor's name on disk; for a tied one, the name that it repeats."""
        return self.tied.get(name, name)

    def memory_name(self, name: str) -> str:
        """Return a tensor's name in a module's state dict."""
        return name

    def is_head(self, name: str) -> bool:
        """Return whether a tensor belongs to the head."""
        raise NotImplementedError

    def layer_name(self, name: str) -> str:
        """Return the layer of a tensor."""
        raise NotImplementedError

    def module_name(self, name: str) -> str:
        """Return the on-disk name of the module that a weight or bias belongs to."""
        return re.sub(r"\.(?:weight|bias)$", "", self.disk_name(name))

    def network_order(self, names: Iterable[str]) -> list[str]:
        """Sort on-disk names by the order of the network; unknown names come last."""
        raise NotImplementedError

    def first_value(self, name: str, shapes: Shapes, config: Mapping[str, Any]) -> FirstValue:
        """Return the rule of a tensor's first value.

        Args:
            name: Name on disk.
            shapes: Names on disk to shapes, of all tensors of the model.
            config: Content of config.json.

        Raises:
            ValueError: There is no rule for the tensor.
        """
        raise NotImplementedError

    def head_role(self, config: Mapping[str, Any]) -> str:
        """Return the role of the head of a config.json."""
        return config.get("head_role", "classifier")

    def check_config(self, path: Path, config: dict[str, Any]) -> None:
        """Raise ConfigError if the values of a config.json contradict each other."""
        raise NotImplementedError

    def describe_stranger(self, name: str) -> str | None:
        """Say why a tensor of another program is not a member's; None for an unknown name."""
        return None

    def num_heads(self, config: Mapping[str, Any]) -> int:
        """Return the number of attention heads of a block."""
        return config["num_attention_heads"]

    def symmetry(self, names: Iterable[str]) -> Symmetry:
        """Return the groups of units of the network with these tensors, by their names on disk.

        Raises:
            NotImplementedError: The architecture declares none.
        """
        raise NotImplementedError

    def plan_graph(self, plan: "GraphPlan") -> None:
        """Add the nodes and edges of the network to a plan."""
        raise NotImplementedError


def hidden_widths(head_width: HeadWidth) -> tuple[int, ...]:
    """Return the widths of a head's hidden layers; none for a linear head."""
    if head_width is None:
        return ()
    return (head_width,) if isinstance(head_width, int) else head_width


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
