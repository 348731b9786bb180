"""Declare a whole population: frozen dataclasses, checked when they are made, without torch.

A recipe is data: zoo.json holds all of it, and a folder with another recipe is another zoo. See `training.py` for the
training of one member, and `plan.py` for how a recipe becomes members.
"""

from collections import defaultdict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from training.recipes.data import Data, Dataset, TextData, TokenizerSpec, decode_data
from training.recipes.training import Optimizer, Training
from vitzoo.architectures import ARCHITECTURES, Sizes, owner_of
from vitzoo.architectures.vit import ViTSizes
from vitzoo.records.fields import Commit, Count, FieldError, PositiveInt, Seed, Sha256, check_fields
from vitzoo.records.json_files import parse_record

_Level = Annotated[float, Meta(gt=0, lt=1, description="a number above 0 and below 1")]
if TYPE_CHECKING:  # each architecture has fields of its own
    _Sizes = Any
else:
    _Sizes = Sizes

_ROLES = {"supervised": "classifier", "masked": "masked"}  # others have an embedding


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture(ViTSizes):
    """The backbone of all members of a population of ViTs, and how pixels are normalised.

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
        outputs: Classes, the width of an embedding, or the tokens of a masked language model.
        width: Hidden width of an MLP head, or its widths from the backbone on; None for a linear head.
        role: Whether the outputs are classes, an embedding or masked tokens.
    """

    outputs: PositiveInt
    width: PositiveInt | Annotated[tuple[PositiveInt, ...], Meta(min_length=2)] | None = None
    role: Literal["classifier", "embedding", "masked"] = "classifier"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def type(self) -> Literal["linear", "mlp"]:
        """Return ``mlp`` for a head with a hidden layer."""
        return "linear" if self.width is None else "mlp"

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the hidden widths, from the backbone on."""
        return () if self.width is None else (self.width,) if isinstance(self.width, int) else self.width


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """The seeds of a member's random numbers, each in [0, 2^32).

    Args:
        init: Seed of the backbone's first weights.
        head: Seed of the head's first weights.
        order: Seed of the order of the data.
        augmentation: Seed of augmentation, mixing, masking and dropout.
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
class Start:
    """A published model from which a parent starts, in place of random weights.

    Args:
        repo: Model repo of the Hub, with model.safetensors and config.json.
        commit: Commit of the repo, 40 hex digits. None in a recipe that can be planned but not trained.
        sha256: Digest of its model.safetensors; None likewise.
    """

    repo: str
    commit: Commit | None = None
    sha256: Sha256 | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """A member that is pre-trained.

    Args:
        training: Training of the parent.
        head: Head of the parent.
        seeds: Seeds of its random numbers.
        replicates: Children of each cell of the children's grid.
        start: Published model that it starts from; None for random weights.
    """

    training: Training
    head: Head
    seeds: Seeds
    replicates: Count
    start: Start | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        _check_role(self.training, self.head)
        if self.training.frozen_backbone:
            raise FieldError("training.frozen_backbone", True, "False for a parent, whose backbone starts from random")


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
        tokenizer: Tokenizer of a population of language models; None for images.

    Raises:
        FieldError: A field of this or of an inner dataclass has the wrong type or is out of range, or two disagree.
        ValueError: A parent has more replicates than the children have seeds.
    """

    name: Annotated[str, Meta(min_length=1, description="the name of the recipe")]
    source: Annotated[str, Meta(min_length=1, description='the source of the recipe, or "our choice"')]
    architecture: _Sizes
    parents: Annotated[tuple[Parent, ...], Meta(min_length=1, description="a tuple of one or more Parent(...)")]
    children: Children
    deviations: tuple[str, ...] = ()
    tokenizer: TokenizerSpec | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        most = max(parent.replicates for parent in self.parents)
        if most > len(self.children.seeds):
            raise ValueError(f"a parent has {most} replicates, but the children have {len(self.children.seeds)} seeds")
        for name in ("heads", "optimizers"):
            if most and not getattr(self.children, name):
                raise FieldError(f"children.{name}", (), f"one or more, since a parent has {most} replicates")
        for number, parent in enumerate(self.parents):
            self._check_member(f"parents[{number}]", parent.training, (parent.head,))
        if most:
            self._check_member("children", self.children.training, self.children.heads)

    def _check_member(self, where: str, training: Training, heads: tuple[Head, ...]) -> None:
        """Check that data and heads fit the architecture and the tokenizer."""
        sizes: Any = self.architecture  # images have image_size; texts have vocab_size and max_position_embeddings
        architecture, dataset = owner_of(sizes), training.dataset
        if dataset.modality != architecture.modality:
            what = f"{architecture.modality} for an architecture of {architecture.modality}, {architecture.backbone}"
            raise FieldError(f"{where}.training.dataset", dataset.name, what)
        if (architecture.modality == "text") != (self.tokenizer is not None):
            raise FieldError("tokenizer", self.tokenizer, "TokenizerSpec(...) for texts, None for images")
        if isinstance(dataset, Dataset):
            _check_sizes(f"{where}.training", dataset, training, image_size=sizes.image_size)
            if training.decoder is not None and sizes.num_patches < 2:
                expected = "None for images of one patch, which leave none to hide"
                raise FieldError(f"{where}.training.decoder", training.decoder, expected)
        if isinstance(dataset, TextData) and self.tokenizer is not None:
            if self.tokenizer.vocab_size > sizes.vocab_size:
                expected = f"at most {sizes.vocab_size}, the architecture's vocab_size"
                raise FieldError("tokenizer.vocab_size", self.tokenizer.vocab_size, expected)
            if dataset.texts.max_length > sizes.max_position_embeddings:
                expected = f"at most {sizes.max_position_embeddings}, the architecture's max_position_embeddings"
                raise FieldError(f"{where}.training.dataset.texts.max_length", dataset.texts.max_length, expected)
        for head in heads:
            if head.role == "masked" and (head.outputs, head.width) != (sizes.vocab_size, None):
                expected = f"Head(outputs={sizes.vocab_size}, role='masked'), with the architecture's vocab_size"
                raise FieldError(f"{where}.head", head, expected)
            sizes.shape(outputs=head.outputs, head_width=head.width, role=head.role)  # raises FieldError if it cannot


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedRecipe:
    """A recipe that was read from a name or a file.

    Args:
        recipe: The recipe.
        notes: Notes for its reader, a line each, such as a setting that was ignored and why.
    """

    recipe: Recipe
    notes: tuple[str, ...] = ()


def start_notes(recipe: Recipe) -> tuple[str, ...]:
    """Return notes on the published models that parents start from: families, and values that are missing.

    Members of one first backbone are one family, which a split never divides.
    """
    notes = []
    cells = len(recipe.children.heads) * len(recipe.children.optimizers)
    groups: dict[Start, list[int]] = defaultdict(list)
    for number, parent in enumerate(recipe.parents):
        if parent.start is not None:
            groups[parent.start].append(number)
    for start, numbers in groups.items():
        children = sum(recipe.parents[number].replicates * cells for number in numbers)
        if len(numbers) > 1:
            notes.append(
                f"{', '.join(f'pt-{number}' for number in numbers)} start from {start.repo}: these parents and their "
                f"{children} children are one family, which no split divides"
            )
    unknown = [start.repo for start in groups if start.commit is None or start.sha256 is None]
    if recipe.tokenizer is not None and recipe.tokenizer.repo is not None and recipe.tokenizer.commit is None:
        unknown.append(recipe.tokenizer.repo)
    notes += [
        f"the recipe does not say the commit and sha256 of {repo}, so it can be planned but not trained: see pin in "
        "training/recipes/language.py"
        for repo in dict.fromkeys(unknown)
    ]
    return tuple(notes)


def _check_role(training: Training, head: Head) -> None:
    role = _ROLES.get(training.objective, "embedding")
    if head.role != role:
        raise FieldError("role", head.role, f"{role} for a {training.objective} objective")
    decoder = training.decoder
    if decoder is not None and head.outputs % decoder.num_attention_heads:
        expected = f"a multiple of the decoder's num_attention_heads, {decoder.num_attention_heads}"
        raise FieldError("head.outputs", head.outputs, expected)


def _check_sizes(where: str, dataset: Dataset, training: Training, *, image_size: int) -> None:
    """Check that a recipe's crops and resizes give the model's image size.

    A recipe without any takes the size of the data, which `training.member.start` checks before training.
    """
    preprocessing, augmentation = dataset.preprocessing, training.augmentation
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


def parse_recipe(plain: dict[str, Any], path: Path) -> Recipe:
    """Convert the plain JSON of a zoo.json to its recipe.

    Raises:
        RecordError: Another version of this code wrote it.
    """
    return parse_record(Recipe, plain, "its recipe", path, hook=_decode)


def _decode(kind: type, value: Any) -> Any:
    """Find the class of an architecture's sizes, or of data, by the fields in plain JSON."""
    if kind is Data:
        return decode_data(value)
    candidates: tuple[Any, ...] = (Architecture, *(architecture.sizes for architecture in ARCHITECTURES.values()))
    known = [cls for cls in candidates if isinstance(value, dict) and {field.name for field in fields(cls)} == {*value}]
    return msgspec.convert(value, known[0] if known else Architecture)
