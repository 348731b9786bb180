"""Recipes from the configs of the zoo's authors: what is written in them, rather than what their code makes of it.

Each config without a ``pretraining::`` key is a parent, or a grid of them; each with one is children of the parents
that it names. Keys are `authors_keys.py`'s, one model is `authors_cell.py`'s; what the authors' code makes of the same
configs is the recipe `as_released`.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from training.recipes import pipelines
from training.recipes.authors_cell import LOSSES, head_of, in_their_words, training_of
from training.recipes.authors_keys import Cell, Config, parse_config
from training.recipes.deviations import (
    CHILDREN_START,
    CONTRASTIVE_FIGURES,
    ERASING_NOISE,
    MIXING_PARTNER,
    TRAINER,
    contrastive_preprocessing,
    deviation,
    evaluated_images,
)
from training.recipes.recipe import Children, Head, LoadedRecipe, Parent, Recipe, Seeds
from training.recipes.training import Optimizer, Training
from vitzoo.errors import TrainingError, shown

_SEED = 42  # theirs, where a config names none
_CHECKPOINT = re.compile(r"checkpoint_(\d{1,9})", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class _NamedParent:
    """A parent, and what a fine-tuning config may call it by."""

    where: str
    parent: Parent
    model: str | None
    seed: int
    mode: str
    loss: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Child:
    """One cell of the children's grid."""

    head: Head
    optimizer: Optimizer
    seed: int


_Family = dict[_Child, None]  # a set that keeps its order


def authors_recipe(configs: Sequence[Config | Mapping[str, Any]], *, name: str) -> LoadedRecipe:
    """A population from the authors' configs.

    Args:
        configs: Pre-training configs, and fine-tuning ones beside them; parsed, or as plain JSON values.
        name: What the recipe is called.

    Returns:
        The recipe, and a note for each key that was ignored. Parents stand in the order of the configs and, within one,
        of its grids (the last grid of the file changes fastest); children by seed, then head, then optimizer, each in
        the order in which they are first met.

    Raises:
        TrainingError: A config says what is not done here, a fine-tuning config names a parent that is not given, or
            the children of the parents form no common grid of heads, optimizers and seeds.
    """
    parsed = [
        one if isinstance(one, Config) else parse_config(one, where=f"config {number}")
        for number, one in enumerate(configs)
    ]
    parents = [_parent(cell) for config in parsed if not config.is_fine_tuning for cell in config.cells()]
    if not parents:
        raise TrainingError(
            f"{parsed[0].where if parsed else name} pre-trains nothing. Give the config of the parents as well: "
            "pretraining.json+finetuning.json."
        )
    for number, one in enumerate(parents):
        if any(one.parent == other.parent for other in parents[:number]):
            raise TrainingError(f"{one.where}: parent {number} is given twice. Take one of the two away.")
    families, training = _families([config for config in parsed if config.is_fine_tuning], parents)
    children, replicates = _children(families, training or parents[0].parent.training, name)
    made = tuple(
        Parent(training=one.parent.training, head=one.parent.head, seeds=one.parent.seeds, replicates=count)
        for one, count in zip(parents, replicates, strict=True)
    )
    recipe = Recipe(
        name=name,
        source="configs in the form of github.com/ModelZoos/ViTModelZoo at 2eb7441, as written",
        architecture=pipelines.VIT_S_16,
        parents=made,
        children=children,
        deviations=_deviations(made, children),
    )
    return LoadedRecipe(recipe=recipe, notes=tuple(dict.fromkeys(note for one in parsed for note in one.notes())))


def _parent(cell: Cell) -> _NamedParent:
    training, seed, model = training_of(cell), cell.whole("seed", default=_SEED), cell.values.get("model::name")
    head_seed = cell.whole("model::head::seed", default=seed)
    with in_their_words(cell):
        seeds = Seeds(init=seed, head=head_seed, order=seed, augmentation=seed)
    return _NamedParent(
        where=cell.where,
        parent=Parent(training=training, head=head_of(cell, training), seeds=seeds, replicates=0),
        model=None if model is None else str(model),
        seed=seed,
        mode="cl" if training.objective == "contrastive" else "sl",
        loss=cell.text("training::loss", tuple(LOSSES)),
    )


def _child(cell: Cell) -> tuple[_Child, Training]:
    training, seed = training_of(cell), cell.whole("seed", default=_SEED)
    if training.objective == "contrastive":
        raise cell.refuse("training::loss", '"stce": children are fine-tuned supervised')
    if cell.whole("model::head::seed", default=seed) != seed:
        raise cell.refuse(
            "model::head::seed", f"{seed}, as seed, or null: a child's head, order and augmentation share their seed"
        )
    with in_their_words(cell):
        Seeds(init=seed, head=seed, order=seed, augmentation=seed)
    return _Child(head=head_of(cell, training), optimizer=training.optimizer, seed=seed), training


def _families(fine_tuning: Sequence[Config], parents: Sequence[_NamedParent]) -> tuple[list[_Family], Training | None]:
    """The children of each parent, in the order in which they are met, and how they are trained."""
    families: list[_Family] = [{} for _ in parents]
    shared: Training | None = None
    for config in fine_tuning:
        chosen = _chosen(config, parents)
        for cell in config.cells():
            child, training = _child(cell)
            shared = shared or training
            changed = _differences(training, shared)
            if changed:
                raise TrainingError(
                    f"{config.where}: children differ in {', '.join(changed)}. Those of a recipe differ in head, "
                    "optimizer, learning rate, weight decay, momentum and seed alone; make a recipe of each."
                )
            for number in chosen:
                families[number].setdefault(child)
    return families, shared


def _differences(one: Training, other: Training) -> list[str]:
    names = ("dataset", "augmentation", "mixing", "epochs", "batch_size")
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def _chosen(config: Config, parents: Sequence[_NamedParent]) -> list[int]:
    """The places of the parents that a fine-tuning config starts from: those that agree with all that it says."""
    chosen = list(range(len(parents)))
    for key in ("model", "model::path", "seed", "mode", "loss"):
        wanted = config.given(f"pretraining::{key}")
        for named in wanted:
            if not any(_is_called(parents[number], key, named) for number in chosen):
                names = (shown(getattr(parents[number], key.partition("::")[0])) for number in chosen)
                raise TrainingError(
                    f"{config.where}: pretraining::{key} is {shown(named)}, of no parent that is given: expected "
                    f"{', '.join(dict.fromkeys(names))}. Give the config of that parent as well, or name one of these."
                )
        if wanted:
            chosen = [n for n in chosen if any(_is_called(parents[n], key, named) for named in wanted)]
    for path in config.given("pretraining::model::path"):
        for number in map(int, _CHECKPOINT.findall(str(path))):  # theirs are counted from 0 or from 1
            for epochs in {parents[n].parent.training.epochs for n in chosen} - {number, number + 1}:
                raise TrainingError(
                    f"{config.where}: pretraining::model::path names checkpoint {number} of {epochs} epochs; children "
                    "start from their parent's last."
                )
    return chosen


def _is_called(parent: _NamedParent, key: str, named: object) -> bool:
    if key == "model::path":  # .../<model>/checkpoint_89/checkpoints
        return parent.model in PurePosixPath(str(named)).parts
    return getattr(parent, key) == named


def _children(families: Sequence[_Family], training: Training, name: str) -> tuple[Children, list[int]]:
    """The grid that all families share, and how many of its seeds each has."""
    met = list(dict.fromkeys(child for family in families for child in family))
    heads = tuple(dict.fromkeys(child.head for child in met))
    optimizers = tuple(dict.fromkeys(child.optimizer for child in met))
    seeds = tuple(dict.fromkeys(child.seed for child in met))
    replicates = []
    for number, family in enumerate(families):
        count = len({child.seed for child in family})
        grid = {
            _Child(head=head, optimizer=optimizer, seed=seed)
            for head in heads
            for optimizer in optimizers
            for seed in seeds[:count]
        }
        if family.keys() != grid:
            raise TrainingError(
                f"{name}: the {len(family)} children of parent {number} are no grid of {len(heads)} heads x "
                f"{len(optimizers)} optimizers x {count} seeds. Every parent with children has all of them; write a "
                "recipe in Python for another shape (docs/guides/recipes.md)."
            )
        replicates.append(count)
    try:
        return Children(training=training, heads=heads, optimizers=optimizers, seeds=seeds), replicates
    except ValueError as error:
        raise TrainingError(f"{name}: {error}.") from error


def _deviations(parents: Sequence[Parent], children: Children) -> tuple[str, ...]:
    contrastive = [n for n, one in enumerate(parents) if one.training.objective == "contrastive"]
    trainings = [one.training for one in parents] + ([children.training] if children.heads else [])
    entries = [
        *_evaluated_images(parents, children),
        *(contrastive_preprocessing(f"parents[{number}].training") for number in contrastive),
        *TRAINER,
        *(
            deviation(
                f"parents[{number}].training.positives",
                ours="two views of an image",
                source="one view of each image in the data preparation that goes with the configs",
                why="what InfoNCE is for",
            )
            for number in contrastive
        ),
    ]
    if any(training.mixing.mixup or training.mixing.cutmix for training in trainings):
        entries.append(MIXING_PARTNER)
    if any(training.augmentation.erasing_fill == "noise" for training in trainings):
        entries.append(ERASING_NOISE)
    return (*entries, *([CONTRASTIVE_FIGURES] if contrastive else []), *([CHILDREN_START] if children.heads else []))


def _evaluated_images(parents: Sequence[Parent], children: Children) -> list[str]:
    counts = [one.training.dataset.evaluated_train_images for one in parents]
    paths = {f"parents[0:{len(parents)}].training": counts[0]}
    if len(set(counts)) > 1:
        paths = {f"parents[{number}].training": count for number, count in enumerate(counts)}
    if children.heads:
        paths["children.training"] = children.training.dataset.evaluated_train_images
    return [evaluated_images(path, count) for path, count in paths.items()]
