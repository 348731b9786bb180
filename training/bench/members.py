"""Choose the members and images of a benchmark: on a GPU the paper's members, on a CPU small versions of them.

Speed does not depend on the content of images. Data sets keep their sizes, with noise of CIFAR's size in memory or
JPEGs of photographs' size in files.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from training.recipes.augmentation import GaussianBlur, RandomResizedCrop
from training.recipes.paper import paper
from training.recipes.plan import PlannedMember, plan_member
from training.recipes.recipe import Head, Parent, Recipe
from training.recipes.training import Training
from vitzoo.ids import MemberId
from vitzoo.images import FileSplit, ImageSplit
from vitzoo.images.sources import ImageFiles
from vitzoo.records.dataset_spec import Preprocessing

_PIXELS, _RESIZED = 64, 73  # on a CPU, for 224 and 256
_SIDE = 32  # of an image in memory, pixels
_OCTAVES, _SLOPE, _QUALITY = 8, 0.3, 92  # 500 x 375 pixels become 98 kB; the mean of ImageNet's files is 110
_ROWS = {256: 32, 96: 12}  # on a CPU, for the paper's batches


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """The members and the amount of work of a benchmark.

    Args:
        title: Description of the members.
        recipe: Recipe of pt-0 (supervised, from files), pt-0/ft-0 (fine-tuned, from memory) and pt-7 (contrastive).
        steps: Steps of a round.
        rounds: Rounds of every way of training.
        photograph: Width and height of the images in files, pixels.
        photographs: Number of files, which a data set repeats.
        compiled: Members that are also compiled.
        child_images: Training images of a child whose start is timed. It has twice as many test images.
    """

    title: str
    recipe: Recipe
    steps: int
    rounds: int
    photograph: tuple[int, int] = (500, 375)
    photographs: int = 128
    compiled: tuple[str, ...]
    child_images: int

    @property
    def members(self) -> dict[str, PlannedMember]:
        """Return members by name: one for each batch and pipeline of the paper's population."""
        contrastive = plan_member(self.recipe, MemberId(7))
        return {
            "supervised": plan_member(self.recipe, MemberId(0)),
            "fine-tuning": plan_member(self.recipe, MemberId(0, 0)),
            "contrastive": contrastive,
            "halves": replace(contrastive, training=replace(contrastive.training, positives="halves")),
        }

    def mode(self, name: str) -> Literal["none", "default"]:
        """Return the mode of `torch.compile` that trains a member fastest."""
        return "default" if name in self.compiled else "none"


def scale_for(device: str, *, quick: bool = False) -> Scale:
    """Return the scale for ``cuda`` or ``cpu``; ``quick`` has fewer rounds, and compiles nothing on a CPU."""
    rounds = 2 if quick else 4
    if device == "cuda":
        return Scale(
            title="ViT-S/16 at 224 pixels, as the paper trains it",
            recipe=paper(),
            steps=32,
            rounds=rounds,
            compiled=("supervised", "fine-tuning", "contrastive", "halves"),
            child_images=5_120,
        )
    steps = 2 * rounds
    return Scale(
        title=f"a small ViT at {_PIXELS} pixels, for a CPU: ratios only say how the same code behaves there",
        recipe=small(paper(), steps=steps),
        steps=steps,
        rounds=rounds,
        compiled=() if quick else ("supervised",),
        child_images=256,
    )


def small(recipe: Recipe, *, steps: int) -> Recipe:
    """Shrink every size of the paper's recipe for a CPU, in fp32; an epoch of the children has ``steps`` steps."""
    architecture = replace(
        recipe.architecture,
        image_size=_PIXELS,
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=768,
    )
    parents = tuple(
        replace(parent, training=_small(parent.training, images=parent.training.dataset.train_images // 100))
        for parent in recipe.parents
    )
    training = recipe.children.training
    training = _small(training, images=steps * _ROWS[training.batch_size])
    children = replace(recipe.children, training=training)
    return replace(recipe, name=f"{recipe.name}_small", architecture=architecture, parents=parents, children=children)


def starting(scale: Scale) -> Recipe:
    """Return a recipe of children whose start is timed, and of a parent with the same short training."""
    children, first = scale.recipe.children, scale.recipe.parents[0]
    dataset = children.training.dataset
    dataset = replace(
        dataset,
        train_images=scale.child_images,
        evaluated_train_images=min(scale.child_images, dataset.evaluated_train_images),
    )
    training = replace(children.training, dataset=dataset, epochs=1)
    parent = Parent(training=training, head=Head(outputs=children.heads[0].outputs), seeds=first.seeds, replicates=1)
    return replace(
        scale.recipe,
        name=f"{scale.recipe.name}_starting",
        parents=(parent,),
        children=replace(children, training=training),
    )


def _small(training: Training, *, images: int) -> Training:
    augmentation = training.augmentation
    return replace(
        training,
        dataset=replace(
            training.dataset,
            train_images=images,
            evaluated_train_images=min(images, training.dataset.evaluated_train_images // 50),
            preprocessing=Preprocessing(
                resize=_RESIZED, crop=_PIXELS, resample=training.dataset.preprocessing.resample
            ),
        ),
        augmentation=replace(
            augmentation,
            resize=augmentation.resize and _RESIZED,
            random_crop=augmentation.random_crop and _PIXELS,
            random_resized_crop=augmentation.random_resized_crop and RandomResizedCrop(size=_PIXELS),
            blur=augmentation.blur and GaussianBlur(kernel_size=3),
        ),
        precision="fp32",
        batch_size=_ROWS[training.batch_size],
    )


def small_images(planned: PlannedMember) -> ImageSplit:
    """Return noise of CIFAR's size: as many images as a member trains on."""
    count, rng = planned.training.dataset.train_images, np.random.default_rng(0)
    return ImageSplit(
        images=rng.integers(0, 256, size=(count, 3, _SIDE, _SIDE), dtype=np.uint8),
        labels=rng.integers(0, planned.head.outputs, size=count),
        indices=np.arange(count),
    )


def write_photographs(folder: Path, *, count: int, size: tuple[int, int]) -> ImageFiles:
    """Write JPEGs as large and as slow to decode as photographs: noise whose strength grows with its coarseness."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, names = np.random.default_rng(0), [f"{number:04}.jpg" for number in range(count)]
    for name in names:
        total = np.zeros((size[1], size[0], 3))
        for step in (2**octave for octave in range(_OCTAVES)):
            shape = (-(-size[1] // step), -(-size[0] // step), 3)
            coarse = Image.fromarray(rng.integers(0, 256, size=shape, dtype=np.uint8))
            total += np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=float) * step**_SLOPE
        pixels = (total - total.mean()) / total.std() * 55 + 115
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name, quality=_QUALITY)
    return ImageFiles(root=folder, names=np.array([name.encode() for name in names]))


def photographs(files: ImageFiles, planned: PlannedMember) -> FileSplit:
    """Return as many images as a member trains on, by repeating the files."""
    count = planned.training.dataset.train_images
    labels = np.random.default_rng(0).integers(0, planned.head.outputs, size=count)
    return FileSplit(source=files, labels=labels, indices=np.arange(count) % len(files.names))


def write_cifar(folder: Path, *, train: int, test: int) -> Path:
    """Write CIFAR-100 with random pixels as parquet files, as the Hub has it."""
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    labels = datasets.ClassLabel(names=[f"class-{label:02}" for label in range(100)])
    features = datasets.Features({"img": datasets.Image(), "fine_label": labels})
    for split, count in (("train", train), ("test", test)):
        pixels = rng.integers(0, 256, size=(count, _SIDE, _SIDE, 3), dtype=np.uint8)
        rows = {"img": list(map(Image.fromarray, pixels)), "fine_label": [number % 100 for number in range(count)]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder
