"""Generated images: noise of CIFAR's size in memory or in its authors' files, and JPEGs of photographs' size."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.recipes.plan import PlannedMember
from vitzoo.images import FileSplit, ImageSplit
from vitzoo.images.sources import ImageFiles

_SIDE = 32
_OCTAVES, _SLOPE, _QUALITY = 8, 0.3, 92  # 500 x 375 pixels become 98 kB; the mean of ImageNet's files is 110


def small_images(planned: PlannedMember) -> ImageSplit:
    """As many images of CIFAR's size as a member trains on."""
    count, rng = planned.training.dataset.train_images, np.random.default_rng(0)
    return ImageSplit(
        images=rng.integers(0, 256, size=(count, 3, _SIDE, _SIDE), dtype=np.uint8),
        labels=rng.integers(0, planned.head.outputs, size=count),
        indices=np.arange(count),
    )


def write_photographs(folder: Path, *, count: int, size: tuple[int, int]) -> ImageFiles:
    """Write JPEGs with detail of every size, so that they are as large and as slow to decode as photographs.

    Args:
        folder: An empty or a new one.
        count: How many files.
        size: Width and height, pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng, names = np.random.default_rng(0), []
    for number in range(count):
        name = f"{number:04}.jpg"
        _photograph(rng, size).save(folder / name, quality=_QUALITY)
        names.append(name.encode())
    return ImageFiles(root=folder, names=np.array(names))


def photographs(files: ImageFiles, planned: PlannedMember) -> FileSplit:
    """As many images as a member trains on: the files again and again, for a file in memory is read as fast as any."""
    count = planned.training.dataset.train_images
    labels = np.random.default_rng(0).integers(0, planned.head.outputs, size=count)
    return FileSplit(source=files, labels=labels, indices=np.arange(count) % len(files.names))


def write_cifar(folder: Path, *, train: int, test: int) -> Path:
    """Write CIFAR-100 with random pixels as parquet files, as the Hub has it.

    Args:
        folder: Folder of the files, new or empty.
        train: Number of training images.
        test: Number of test images.
    """
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    labels = datasets.ClassLabel(names=[f"class-{label:02}" for label in range(100)])
    for split, count in (("train", train), ("test", test)):
        pixels = rng.integers(0, 256, size=(count, _SIDE, _SIDE, 3), dtype=np.uint8)
        rows = {"img": list(map(Image.fromarray, pixels)), "fine_label": [number % 100 for number in range(count)]}
        features = datasets.Features({"img": datasets.Image(), "fine_label": labels})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def _photograph(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Noise that is the stronger the coarser it is."""
    total = np.zeros((size[1], size[0], 3))
    for octave in range(_OCTAVES):
        step = 2**octave
        shape = (-(-size[1] // step), -(-size[0] // step), 3)
        coarse = Image.fromarray(rng.integers(0, 256, size=shape, dtype=np.uint8))
        total += np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=float) * step**_SLOPE
    total = (total - total.mean()) / total.std() * 55 + 115
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))
