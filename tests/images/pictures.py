"""Real pictures in every layout that data sets come in, small and made of numbers that are easy to tell apart."""

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cow")


def pixels(seed: int, *, height: int = 8, width: int = 8) -> np.ndarray:
    """Smooth enough for JPEG, different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def picture(seed: int, *, height: int = 8, width: int = 8) -> Image.Image:
    return Image.fromarray(pixels(seed, height=height, width=width))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def label_of(seed: int) -> int:
    return seed * 7 % len(CLASSES)


def write_class_folders(root: Path, splits: Mapping[str, Iterable[int]], *, extension: str = "png") -> Path:
    """``root/<split>/<class>/<seed>.png``."""
    for split, seeds in splits.items():
        for seed in seeds:
            path = root / split / CLASSES[label_of(seed)] / f"{seed:03}.{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(seed).save(path)
    return root


def table(
    seeds: Iterable[int], *, image: str = "image", label: str = "label", classes: tuple[str, ...] = CLASSES
) -> datasets.Dataset:
    """Rows as `datasets` has them."""
    seeds = list(seeds)
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=list(classes))})
    return datasets.Dataset.from_dict(
        {image: [picture(seed) for seed in seeds], label: [label_of(seed) for seed in seeds]}, features=features
    )


def write_parquet(root: Path, splits: Mapping[str, Iterable[int]], *, name: str = "{}-00000-of-00001.parquet") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, seeds in splits.items():
        table(seeds).to_parquet(root / name.format(split))
    return root


CIFAR_FINE = tuple(f"fine {number:02}" for number in range(10))
CIFAR_COARSE = ("coarse 0", "coarse 1")


def write_cifar(root: Path, *, train: Iterable[int], test: Iterable[int]) -> Path:
    """Write CIFAR-100's parquet files as the Hub has them, with fewer images and classes."""
    root.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=list(CIFAR_FINE)),
            "coarse_label": datasets.ClassLabel(names=list(CIFAR_COARSE)),
        }
    )
    for split, seeds in (("train", list(train)), ("test", list(test))):
        columns = {
            "img": [picture(seed, height=32, width=32) for seed in seeds],
            "fine_label": [seed % 10 for seed in seeds],
            "coarse_label": [seed % 10 % 2 for seed in seeds],
        }
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(root / f"{split}-00000-of-00001.parquet")
    return root
