"""Load image data sets by name, with fixed splits: the same images in the same order on every machine.

    splits.py       ImageSplit, FileSplit, ImageDataset
    sources.py      encoded images in files and rows, decoded one by one
    load.py         load_images: a data set by its spec
    digits.py, disk.py, tables.py   the places of data sets: a package, a folder, tables with columns
    assemble.py     the checks of a data set, its held-out images, decoding into memory
    resizing.py     PIL's resize, in batches
    preprocess.py   resize and crop at evaluation
    processor.py    resize and crop as preprocessor_config.json

A fingerprint proves that two data sets are the same. Small ones are in memory as uint8, large ones are decoded on
request. See `vitzoo.data` for names, folders and the Hub, `training.images` for augmentation, and
`vitzoo.models.evaluation` for evaluation.

Names are imported on first use, because records hold a `DatasetSpec` and are read without numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "DatasetSpec": "vitzoo.records.dataset_spec",
    "FileSplit": "vitzoo.images.splits",
    "ImageDataset": "vitzoo.images.splits",
    "ImageSplit": "vitzoo.images.splits",
    "Preprocessing": "vitzoo.records.dataset_spec",
    "load_images": "vitzoo.images.load",
}

__all__ = ["DatasetSpec", "FileSplit", "ImageDataset", "ImageSplit", "Preprocessing", "load_images"]

if TYPE_CHECKING:
    from vitzoo.images.load import load_images
    from vitzoo.images.splits import FileSplit, ImageDataset, ImageSplit
    from vitzoo.records.dataset_spec import DatasetSpec, Preprocessing


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vitzoo.images' has no attribute {name!r}")


def __dir__():
    return __all__
