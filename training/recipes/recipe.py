"""Declare a whole population: frozen dataclasses, checked when they are made, without torch.

A recipe is data: zoo.json holds all of it, and a folder with another recipe is another zoo. See `training.py` for the
training of one member, and `plan.py` for how a recipe becomes members.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from training.recipes.training import Optimizer, Training
from vitzoo.architectures.vit import ViTSizes
from vitzoo.records.fields import Count, FieldError, PositiveInt, Seed, check_fields

_Level = Annotated[float, Meta(gt=0, lt=1, description="a number above 0 and below 1")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture(ViTSizes):
    """The backbone of all members.

    Args:
        mean: Mean of each channel, with pixels scaled to 0 to 1; above 0 and below 1.
        std: Standard deviation of each channel, likewise.
    """

    mean: tuple[_Level, _Level, _Level]
    std: tuple[_Level, _Level, _Level]

    def __post_init__(self) -> None:
        check_fields(self)
        for part, whole in (("patch_size", "image_size"), ("num_attention_heads", "hidden_size")):
            if getattr(self, whole) % getattr(self, part):
                raise FieldError(whole, getattr(self, whole), f"a multiple of {part}, {getattr(self, part)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The head of a member.

    Args:
        outputs: Classes, or the width of an embedding.
        width: Hidden width of an MLP head; None for a linear head.
        role: Whether the outputs are classes or an embedding.
    """

    outputs: PositiveInt
    width: PositiveInt | None = None
    role: Literal["classifier", "embedding"] = "classifier"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def type(self) -> Literal["linear", "mlp"]:
        """Return ``mlp`` for a head with a hidden layer."""
        return "linear" if self.width is None else "mlp"


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """The seeds of a member's random numbers, each in [0, 2^32).

    Args:
        init: Seed of the backbone's first weights.
        head: Seed of the head's first weights.
        order: Seed of the order of the images.
        augmentation: Seed of augmentation and mixing.
    """

    init: Seed
    head: Seed
    order: Seed
    augmentation: Seed

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def same(cls, seed: int) -> "Seeds":
        """Return one seed for all random numbers of a member, like the zoo's authors."""
        return cls(init=seed, head=seed, order=seed, augmentation=seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """A member that is pre-trained.

    Args:
        training: Training of the parent.
        head: Head of the parent.
        seeds: Seeds of its random numbers.
        replicates: Children of each cell of the children's grid.
    """

    training: Training
    head: Head
    seeds: Seeds
    replicates: Count

    def __post_init__(self) -> None:
        check_fields(self)
        _check_role(self.training, self.head)


@dataclass(frozen=True, kw_only=True, slots=True)
class Children:
    """The grid of children that are fine-tuned from every parent: heads x optimizers, for each replicate.

    Args:
        training: Training of the children; the grid replaces its optimizer.
        heads: Heads of the grid; none for a population without children.
        optimizers: Optimizers of the grid, with their learning rates.
        seeds: Seed of head, order and augmentation for each replicate, shared by all cells and parents.
    """

    training: Training
    heads: tuple[Head, ...]
    optimizers: tuple[Optimizer, ...]
    seeds: tuple[Seed, ...]

    def __post_init__(self) -> None:
        check_fields(self)
        for head in self.heads:
            _check_role(self.training, head)
        for name in ("heads", "optimizers", "seeds"):
            values = getattr(self, name)
            for place, value in enumerate(values):
                if value in values[:place]:
                    raise FieldError(f"{name}[{place}]", value, f"no duplicate of {name}[{values.index(value)}]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole population.

    Args:
        name: Name of the recipe.
        source: Source of the recipe, or "our choice".
        architecture: Backbone of all members.
        parents: ``pt-0``, ``pt-1``, ...; a published recipe only appends.
        children: Grid of children of each parent.
        deviations: Departures from the source, each in a few words.

    Raises:
        FieldError: A field of this or of an inner dataclass has the wrong type or is out of range, or two disagree.
        ValueError: A parent has more replicates than the children have seeds.
    """

    name: Annotated[str, Meta(min_length=1, description="the name of the recipe")]
    source: Annotated[str, Meta(min_length=1, description='the source of the recipe, or "our choice"')]
    architecture: Architecture
    parents: Annotated[tuple[Parent, ...], Meta(min_length=1, description="a tuple of one or more Parent(...)")]
    children: Children
    deviations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        most = max(parent.replicates for parent in self.parents)
        if most > len(self.children.seeds):
            raise ValueError(f"a parent has {most} replicates, but the children have {len(self.children.seeds)} seeds")
        for name in ("heads", "optimizers"):
            if most and not getattr(self.children, name):
                raise FieldError(f"children.{name}", (), f"one or more, since a parent has {most} replicates")
        for number, parent in enumerate(self.parents):
            _check_sizes(f"parents[{number}].training", parent.training, self.architecture.image_size)
        if most:
            _check_sizes("children.training", self.children.training, self.architecture.image_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedRecipe:
    """A recipe that was read from a name or a file.

    Args:
        recipe: The recipe.
        notes: Notes for its reader, a line each, such as a setting that was ignored and why.
    """

    recipe: Recipe
    notes: tuple[str, ...] = ()


def _check_role(training: Training, head: Head) -> None:
    role = "embedding" if training.objective == "contrastive" else "classifier"
    if head.role != role:
        raise FieldError("role", head.role, f"{role} for a {training.objective} objective")


def _check_sizes(where: str, training: Training, image_size: int) -> None:
    """Check that a recipe's crops and resizes give the model's image size.

    A recipe without any takes the size of the data, which `training.member.start` checks before training.
    """
    preprocessing, augmentation = training.dataset.preprocessing, training.augmentation
    evaluated = "resize" if preprocessing.crop is None else "crop"
    trained = "resize" if augmentation.random_crop is None else "random_crop"
    sizes = {
        f"dataset.preprocessing.{evaluated}": getattr(preprocessing, evaluated),
        f"augmentation.{trained}": getattr(augmentation, trained),
    }
    if augmentation.random_resized_crop is not None:
        sizes["augmentation.random_resized_crop.size"] = augmentation.random_resized_crop.size
    for field, size in sizes.items():
        if size not in (None, image_size):
            raise FieldError(f"{where}.{field}", size, f"{image_size}, the architecture's image_size")
    if preprocessing.resize is not None and preprocessing.resize < image_size:
        field = f"{where}.dataset.preprocessing.resize"
        raise FieldError(field, preprocessing.resize, f"{image_size} or more, the side of its crop")
