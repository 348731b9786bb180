"""The image data sets that members are trained and tested on, by name, as images with fixed splits.

Splits are index-listed: the same images in the same order on every machine, proved by a fingerprint. Small data sets
are held in memory as uint8, large ones are decoded when they are asked for. What is done to the images in training is
`training.images`' business, what at evaluation `vitzoo.models.evaluation`'s.

    spec.py         which images, and how they are seen: plain data
    known.py        what data sets are called, and which folder is whose
    splits.py       ImageSplit, FileSplit, ImageDataset
    sources.py      encoded images in files and rows, decoded one by one
    load.py         load_images: a data set by its spec
    digits.py, hub.py, disk.py      the places of data sets (tables.py: those with columns)
    assemble.py     from what was found to a checked data set
    resizing.py     PIL's resize, in batches
    preprocess.py   what is done to images before they are normalised, at evaluation
    processor.py    the same, as preprocessor_config.json says it

Names are imported on first use: records hold a `DatasetSpec`, and are read without numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "DatasetSpec": "vitzoo.records.dataset_spec",
    "FileSplit": "vitzoo.images.splits",
    "ImageDataset": "vitzoo.images.splits",
    "ImageSplit": "vitzoo.images.splits",
    "Preprocessing": "vitzoo.records.dataset_spec",
    "check_data": "vitzoo.images.known",
    "load_images": "vitzoo.images.load",
    "parse_data": "vitzoo.images.known",
}

__all__ = [
    "DatasetSpec",
    "FileSplit",
    "ImageDataset",
    "ImageSplit",
    "Preprocessing",
    "check_data",
    "load_images",
    "parse_data",
]

if TYPE_CHECKING:
    from vitzoo.images.known import check_data, parse_data
    from vitzoo.images.load import load_images
    from vitzoo.images.splits import FileSplit, ImageDataset, ImageSplit
    from vitzoo.records.dataset_spec import DatasetSpec, Preprocessing


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vitzoo.images' has no attribute {name!r}")


def __dir__():
    return __all__
