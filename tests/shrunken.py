"""The recipes `paper` and `evening`, shrunken for a CPU, and their images on disk as real JPEGs and PNGs.

`shrunken_paper` has 2 parents (one supervised, one contrastive) x 24 children of a tiny ViT that train for two epochs,
in a minute. The sizes of images and batches are about a 14th of the paper's. `shrunken_evening` has 2 parents x 4
children on images of full size, and takes seconds. See `training.recipes` for the rest of both.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from msgspec import structs
from PIL import Image

from training.recipes.augmentation import GaussianBlur, RandomResizedCrop
from training.recipes.evening import evening
from training.recipes.paper import paper
from training.recipes.recipe import Head, Parent, Recipe
from training.recipes.training import Training

PARENTS = (0, 7)  # of the paper's
SIDE, RESIZED, PATCH = 16, 18, 4  # for 224, 256, 16
IMAGENET_CLASSES, CIFAR_CLASSES = 6, 4  # for 1000, 100
IMAGENET_IMAGES, CIFAR_IMAGES = 60, 48
TEST_IMAGES = 12  # of each
EPOCHS = 2
HELD_OUT = 12  # of the evening zoo's data sets, beside 48 training images


def shrunken_paper() -> Recipe:
    """`paper` with 2 parents x 24 children, pt-0 supervised and pt-1 contrastive."""
    recipe = paper()
    children = recipe.children
    return replace(
        recipe,
        name="shrunken_paper",
        architecture=replace(
            recipe.architecture,
            image_size=SIDE,
            patch_size=PATCH,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
        ),
        parents=tuple(_parent(recipe.parents[number]) for number in PARENTS),
        children=replace(
            children,
            training=_training(children.training, images=CIFAR_IMAGES, batch_size=16),
            heads=(Head(outputs=CIFAR_CLASSES), Head(outputs=CIFAR_CLASSES, width=8)),
        ),
        deviations=(
            *recipe.deviations,
            "shrunken: sizes, epochs, images, parents; source: the recipe paper; for tests",
        ),
    )


def shrunken_evening() -> Recipe:
    """`evening` with 2 parents x 4 children of three epochs, pt-0 supervised and pt-1 contrastive."""
    recipe = evening()

    def training(whole: Training) -> Training:
        dataset = replace(
            whole.dataset,
            images=structs.replace(whole.dataset.images, held_out=HELD_OUT),
            train_images=CIFAR_IMAGES,
            evaluated_train_images=16,
            test_images=TEST_IMAGES,
        )
        schedule = replace(whole.schedule, warmup_steps=min(whole.schedule.warmup_steps, 3))
        return replace(whole, dataset=dataset, schedule=schedule, epochs=3, batch_size=16)

    parents = tuple(
        replace(parent, training=training(parent.training), head=replace(parent.head, outputs=outputs), replicates=1)
        for parent, outputs in ((recipe.parents[0], CIFAR_CLASSES), (recipe.parents[7], 24))
    )
    return replace(
        recipe,
        name="shrunken_evening",
        architecture=replace(
            recipe.architecture,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        ),
        parents=parents,
        children=replace(
            recipe.children,
            training=training(recipe.children.training),
            heads=(Head(outputs=CIFAR_CLASSES), Head(outputs=CIFAR_CLASSES, width=8)),
            optimizers=(recipe.children.optimizers[1], recipe.children.optimizers[4]),
        ),
    )


def write_cifars(root: Path) -> dict[str, Path]:
    """Write the data sets of `shrunken_evening`, with other noise each, and return the folder of each by name."""
    folders = {name: root / name for name in ("cifar10", "cifar100")}
    for seed, folder in enumerate(folders.values()):
        _write_cifar(folder, train=CIFAR_IMAGES + HELD_OUT, rng=np.random.default_rng(seed))
    return folders


def write_images(root: Path) -> dict[str, Path]:
    """Write both data sets as folders of classes.

    Args:
        root: An empty folder.

    Returns:
        The folder of each data set by name, as `vitzoo.images.load_images` takes ``data``.
    """
    folders = {"imagenet": root / "imagenet", "cifar100": root / "cifar100"}
    rng = np.random.default_rng(0)
    for split, count in (("train", IMAGENET_IMAGES), ("validation", TEST_IMAGES)):
        for number in range(count):
            width, height = (int(side) for side in rng.integers(20, 41, size=2))  # photographs differ in size
            mode = "L" if number % 10 == 3 else "RGB"  # and ImageNet has grey ones among them
            _write(folders["imagenet"] / split, number, IMAGENET_CLASSES, (width, height), "jpg", rng, mode=mode)
    _write_cifar(folders["cifar100"], train=CIFAR_IMAGES, rng=rng)
    return folders


def _parent(parent: Parent) -> Parent:
    contrastive = parent.training.objective == "contrastive"
    training = _training(parent.training, images=IMAGENET_IMAGES, batch_size=8 if contrastive else 16)
    outputs = 24 if contrastive else IMAGENET_CLASSES
    return replace(parent, training=training, head=replace(parent.head, outputs=outputs))


def _training(training: Training, *, images: int, batch_size: int) -> Training:
    augmentation = training.augmentation
    return replace(
        training,
        dataset=replace(
            training.dataset,
            train_images=images,
            evaluated_train_images=16,
            test_images=TEST_IMAGES,
            preprocessing=replace(training.dataset.preprocessing, resize=RESIZED, crop=SIDE),
        ),
        augmentation=replace(
            augmentation,
            resize=augmentation.resize and RESIZED,
            random_crop=augmentation.random_crop and SIDE,
            random_resized_crop=augmentation.random_resized_crop and RandomResizedCrop(size=SIDE),
            blur=augmentation.blur and GaussianBlur(kernel_size=3),
        ),
        epochs=EPOCHS,
        batch_size=batch_size,
    )


def _write_cifar(folder: Path, *, train: int, rng: np.random.Generator) -> None:
    for split, count in (("train", train), ("test", TEST_IMAGES)):
        for number in range(count):
            _write(folder / split, number, CIFAR_CLASSES, (32, 32), "png", rng)


def _write(
    folder: Path,
    number: int,
    classes: int,
    size: tuple[int, int],
    suffix: str,
    rng: np.random.Generator,
    *,
    mode: str = "RGB",
) -> None:
    """Write an image whose class is a colour under noise."""
    label = number % classes
    colour = np.array([40 + 170 * (label & 1), 40 + 170 * (label >> 1 & 1), 40 + 170 * (label >> 2 & 1)])
    pixels = np.clip(colour + rng.normal(0, 30, size=(size[1], size[0], 3)), 0, 255).astype(np.uint8)
    path = folder / f"class-{label}" / f"{number:04}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
