"""Choose the members and images of a benchmark: on a GPU the paper's members, on a CPU small versions of them.

Speed does not depend on the content of images. Data sets keep their sizes, with noise of CIFAR's size in memory or
JPEGs of photographs' size in files.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from training.recipes.augmentation import GaussianBlur, RandomResizedCrop
from training.recipes.data import image_data
from training.recipes.paper import paper
from training.recipes.plan import PlannedMember, plan_member
from training.recipes.recipe import Architecture, Parent, Recipe
from training.recipes.training import Training
from vitzoo.ids import MemberId
from vitzoo.images import FileSplit
from vitzoo.images.sources import ImageFiles

_PIXELS, _RESIZED = 64, 73  # on a CPU, for 224 and 256
_SIDE = 32  # of an image in memory, pixels
_PHOTOGRAPH, _PHOTOGRAPHS = (500, 375), 128  # pixels, and files that a data set repeats
_COARSE, _QUALITY = 4, 91  # noise this coarse takes 98 kB a file; the mean of ImageNet's files is 110


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """The members and the amount of work of a benchmark.

    Args:
        title: Description of the members.
        recipe: Recipe of pt-0 (supervised, from files), pt-0/ft-0 (fine-tuned, from memory) and pt-7 (contrastive).
        steps: Steps of a round.
        rounds: Rounds of every way of training.
    """

    title: str
    recipe: Recipe
    steps: int
    rounds: int

    @property
    def members(self) -> dict[str, PlannedMember]:
        """Return members by name: one for each batch and pipeline of the paper's population."""
        ids = {"supervised": MemberId(0), "contrastive": MemberId(7), "fine-tuning": MemberId(0, 0)}
        return {name: plan_member(self.recipe, member) for name, member in ids.items()}


def scale_for(device: str, *, quick: bool = False) -> Scale:
    """Return the scale for ``cuda`` or ``cpu``; ``quick`` has fewer rounds."""
    rounds = 2 if quick else 4
    if device == "cuda":
        recipe, title = sized(paper(), child_images=5_120), "ViT-S/16 at 224 pixels, as the paper trains it"
        return Scale(title=title, recipe=recipe, steps=32, rounds=rounds)
    title = f"a small ViT at {_PIXELS} pixels, for a CPU: ratios only say how the same code behaves there"
    return Scale(title=title, recipe=small(paper()), steps=2 * rounds, rounds=rounds)


def small(recipe: Recipe) -> Recipe:
    """Shrink the network, the images and the batches of the paper's recipe for a CPU, in fp32."""
    vit = cast(Architecture, recipe.architecture)
    shrunken = replace(
        recipe,
        architecture=replace(
            vit,
            image_size=_PIXELS,
            hidden_size=192,
            num_hidden_layers=6,
            num_attention_heads=3,
            intermediate_size=768,
        ),
        parents=tuple(replace(parent, training=_small(parent.training)) for parent in recipe.parents),
        children=replace(recipe.children, training=_small(recipe.children.training)),
    )
    return sized(shrunken, child_images=64)


def _small(training: Training) -> Training:
    augmentation = training.augmentation
    augmentation = replace(
        augmentation,
        resize=augmentation.resize and _RESIZED,
        random_crop=augmentation.random_crop and _PIXELS,
        random_resized_crop=augmentation.random_resized_crop and RandomResizedCrop(size=_PIXELS),
        blur=augmentation.blur and GaussianBlur(kernel_size=3),
    )
    dataset = image_data(training.dataset)
    dataset = replace(dataset, preprocessing=replace(dataset.preprocessing, resize=_RESIZED, crop=_PIXELS))
    return replace(training, dataset=dataset, augmentation=augmentation, precision="fp32", batch_size=8)


def sized(recipe: Recipe, *, child_images: int) -> Recipe:
    """Return a recipe whose children train on so many images."""
    training = recipe.children.training
    images = image_data(training.dataset)
    evaluated = min(child_images, images.n_evaluated)
    dataset = replace(images, train_images=child_images, evaluated_train_images=evaluated)
    return replace(recipe, children=replace(recipe.children, training=replace(training, dataset=dataset)))


def starting(recipe: Recipe) -> Recipe:
    """Return a recipe with the same children, and one parent that trains for an epoch on their images."""
    training = replace(recipe.children.training, epochs=1)
    seeds = recipe.parents[0].seeds
    return replace(
        recipe, parents=(Parent(training=training, head=recipe.children.heads[0], seeds=seeds, replicates=1),)
    )


@cache
def write_photographs(folder: Path) -> ImageFiles:
    """Write JPEGs of coarse noise, as large and as slow to decode as photographs."""
    folder.mkdir()
    rng, names = np.random.default_rng(0), [f"{number:04}.jpg" for number in range(_PHOTOGRAPHS)]
    shape = (_PHOTOGRAPH[1] // _COARSE, _PHOTOGRAPH[0] // _COARSE, 3)
    for name in names:
        noise = Image.fromarray(rng.integers(0, 256, size=shape, dtype=np.uint8))
        noise.resize(_PHOTOGRAPH, Image.Resampling.BICUBIC).save(folder / name, quality=_QUALITY)
    return ImageFiles(root=folder, names=np.array([name.encode() for name in names]))


def photographs(files: ImageFiles, planned: PlannedMember) -> FileSplit:
    """Return as many images as a member trains on, by repeating the files."""
    count = planned.training.dataset.n_train
    labels = np.random.default_rng(0).integers(0, planned.head.outputs, size=count)
    return FileSplit(source=files, labels=labels, indices=np.arange(count) % len(files.names))


@cache
def write_cifar(folder: Path, *, train: int) -> Path:
    """Write CIFAR-100 with random pixels and twice as many test images as parquet files, as the Hub has it."""
    import datasets

    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = datasets.ClassLabel(names=[f"class-{label:02}" for label in range(100)])
    features = datasets.Features({"img": datasets.Image(), "fine_label": labels})
    for split, count in (("train", train), ("test", 2 * train)):
        pixels = rng.integers(0, 256, size=(count, _SIDE, _SIDE, 3), dtype=np.uint8)
        rows = {"img": list(map(Image.fromarray, pixels)), "fine_label": [number % 100 for number in range(count)]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder
