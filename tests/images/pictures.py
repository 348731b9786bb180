"""Real pictures in every layout that data sets come in, small and made of numbers that are easy to tell apart."""

import codecs
import pickle
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

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


_Pickler: Any = pickle._Pickler  # pyright: ignore[reportAttributeAccessIssue]


class _Python2(_Pickler):
    """Writes bytes as Python 2 wrote its strings, as in the authors' files."""

    dispatch: ClassVar = dict(_Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes

    def save_reduce(self, func: object, args: tuple, *rest: object, **options: object) -> None:
        if func is codecs.encode:
            return self.save_bytes(args[0].encode(args[1]))
        return super().save_reduce(func, args, *rest, **options)


def python2_pickle(value: object) -> bytes:
    content = BytesIO()
    _Python2(content, protocol=2).dump(value)
    return content.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


CIFAR_FINE = tuple(f"fine {number:02}" for number in range(10))
CIFAR_COARSE = ("coarse 0", "coarse 1")


def cifar_arrays(seeds: Iterable[int]) -> tuple[np.ndarray, list[int]]:
    """Pixels as images, and fine labels."""
    seeds = list(seeds)
    return np.stack([pixels(seed, height=32, width=32).transpose(2, 0, 1) for seed in seeds]), [s % 10 for s in seeds]


def cifar_split(seeds: Iterable[int]) -> dict[bytes, object]:
    images, fine = cifar_arrays(seeds)
    return {
        b"filenames": [f"{place}.png".encode() for place in range(len(fine))],
        b"batch_label": b"training batch 1 of 1",
        b"fine_labels": fine,
        b"coarse_labels": [label % 2 for label in fine],
        b"data": images.reshape(len(fine), 3072),
    }


def write_cifar(root: Path, *, train: Iterable[int], test: Iterable[int], dump=python2_pickle) -> Path:
    """``root/{meta,train,test}``, as the authors' archive has them but for the number of images and classes."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "train").write_bytes(dump(cifar_split(train)))
    (root / "test").write_bytes(dump(cifar_split(test)))
    fine, coarse = ([name.encode() for name in names] for names in (CIFAR_FINE, CIFAR_COARSE))
    (root / "meta").write_bytes(dump({b"fine_label_names": fine, b"coarse_label_names": coarse}))
    return root
