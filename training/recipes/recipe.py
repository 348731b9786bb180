"""A whole population, as a recipe says it: frozen dataclasses, checked when they are made. Pure: no torch.

A recipe is data: zoo.json holds it whole, and decides whether a folder holds this zoo or another. How one member is
trained is `training.py`'s; `plan.py` turns a recipe into members.
"""

from dataclasses import dataclass
from typing import Literal

from training.recipes.checks import check_distinct, check_one_of, check_positive, check_seed
from training.recipes.training import Optimizer, Training
from vitzoo.architectures.vit import ViTShape
from vitzoo.records.field_types import check_field_types


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """The backbone that all members share.

    Args:
        image_size: Side of the square input, pixels.
        patch_size: Side of a square patch, pixels.
        hidden_size: Width of a token.
        num_hidden_layers: Blocks.
        num_attention_heads: Heads of a block.
        intermediate_size: Width of a block's MLP.
        mean: Of each channel, with pixels scaled to 0 to 1; each above 0 and below 1, as members are read.
        std: Of each channel, likewise.

    Raises:
        ValueError: A size is not positive, the sizes do not divide, or a mean or deviation lies outside 0 to 1.
    """

    image_size: int
    patch_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        check_field_types(self)
        for name in ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
            check_positive(name, getattr(self, name))
        check_positive("intermediate_size", self.intermediate_size)
        for name in ("mean", "std"):
            for channel, value in enumerate(getattr(self, name)):
                if not 0 < value < 1:
                    raise ValueError(f"{name}[{channel}] is {value}; expected a number above 0 and below 1")
        for part, whole in (("patch_size", "image_size"), ("num_attention_heads", "hidden_size")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{whole} is {getattr(self, whole)}, which {part} {getattr(self, part)} does not divide"
                )

    def shape(self, head: "Head") -> ViTShape:
        """What decides the shapes of the tensors of a member with this head."""
        return ViTShape(
            image_size=self.image_size,
            patch_size=self.patch_size,
            num_channels=len(self.mean),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            intermediate_size=self.intermediate_size,
            qkv_bias=True,
            num_labels=head.outputs,
            head_width=head.width,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What stands on the backbone.

    Args:
        outputs: Classes, or the width of an embedding.
        width: Hidden width of an MLP head; None for a linear head.
        role: Whether the outputs are classes or an embedding.
    """

    outputs: int
    width: int | None = None
    role: Literal["classifier", "embedding"] = "classifier"

    def __post_init__(self) -> None:
        check_field_types(self)
        check_one_of("role", self.role, ("classifier", "embedding"))
        check_positive("outputs", self.outputs)
        if self.width is not None:
            check_positive("width", self.width)

    @property
    def type(self) -> Literal["linear", "mlp"]:
        """``mlp`` where there is a hidden layer."""
        return "linear" if self.width is None else "mlp"


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """Where a member's random numbers come from, each in [0, 2^32).

    Args:
        init: Of the backbone's initialisation.
        head: Of the head's.
        order: Of the order of the images.
        augmentation: Of augmentation and mixing.
    """

    init: int
    head: int
    order: int
    augmentation: int

    def __post_init__(self) -> None:
        check_field_types(self)
        for name in ("init", "head", "order", "augmentation"):
            check_seed(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """A member that is pre-trained.

    Args:
        training: How.
        head: What stands on its backbone.
        seeds: Its random numbers.
        replicates: How often each cell of the children's grid is trained from it.
    """

    training: Training
    head: Head
    seeds: Seeds
    replicates: int

    def __post_init__(self) -> None:
        check_field_types(self)
        _fits(self.training, self.head)
        if self.replicates < 0:
            raise ValueError(f"replicates is {self.replicates}; expected a number from 0 on")


@dataclass(frozen=True, kw_only=True, slots=True)
class Children:
    """The grid of members that are fine-tuned from every parent: heads x optimizers, for each replicate.

    Args:
        training: How; its optimizer is replaced by the grid's.
        heads: What stands on the parent's backbone; none for a population without children.
        optimizers: With their learning rates.
        seeds: A replicate's seed of head, order and augmentation, shared by all cells and parents.

    Raises:
        ValueError: A head does not fit the training, a seed is out of range, or one of the three holds a value twice:
            the same child would be trained twice.
    """

    training: Training
    heads: tuple[Head, ...]
    optimizers: tuple[Optimizer, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        check_field_types(self)
        for head in self.heads:
            _fits(self.training, head)
        for seed in self.seeds:
            check_seed("seeds", seed)
        for name in ("heads", "optimizers", "seeds"):
            check_distinct(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole population.

    Args:
        name: What it is called.
        source: What it follows, or "our choice".
        architecture: The backbone of all members.
        parents: ``pt-0``, ``pt-1``, ...; a published recipe only appends.
        children: What is fine-tuned from each of them.
        deviations: Departures from the source, each in a few words.

    Raises:
        ValueError: There is no parent, a parent has more children than the grid, or images come out at another size
            than the backbone's.
    """

    name: str
    source: str
    architecture: Architecture
    parents: tuple[Parent, ...]
    children: Children
    deviations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_field_types(self)
        for name, what in (("name", "what the recipe is called"), ("source", 'what it follows, or "our choice"')):
            if not getattr(self, name):
                raise ValueError(f'{name} is ""; expected {what}')
        if not self.parents:
            raise ValueError("parents is (); expected one parent at least")
        most = max(parent.replicates for parent in self.parents)
        if most > len(self.children.seeds):
            raise ValueError(f"a parent has {most} replicates, but the children have {len(self.children.seeds)} seeds")
        for name in ("heads", "optimizers"):
            if most and not getattr(self.children, name):
                raise ValueError(f"children.{name} is (); expected one at least, for a parent has {most} replicates")
        for number, parent in enumerate(self.parents):
            _check_sizes(f"parents[{number}].training", parent.training, self.architecture.image_size)
        if most:
            _check_sizes("children.training", self.children.training, self.architecture.image_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedRecipe:
    """A recipe as it was read from somewhere.

    Args:
        recipe: The recipe.
        notes: What its reader should know, a line each: what was ignored, and why.
    """

    recipe: Recipe
    notes: tuple[str, ...] = ()


def _fits(training: Training, head: Head) -> None:
    role = "embedding" if training.objective == "contrastive" else "classifier"
    if head.role != role:
        raise ValueError(f"role is {head.role} for a {training.objective} objective; expected {role}")


def _check_sizes(where: str, training: Training, image_size: int) -> None:
    """Refuse a training whose images come out at another size than the model's, as far as a recipe says it.

    Where a recipe neither cuts nor resizes, the size is the data's, which are looked at before anything is trained.
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
            raise ValueError(f"{where}.{field} is {size}; expected {image_size}, the architecture's image_size")
    if preprocessing.resize is not None and preprocessing.resize < image_size:
        raise ValueError(
            f"{where}.dataset.preprocessing.resize is {preprocessing.resize}; expected {image_size} at least, which "
            "its crop cuts"
        )
