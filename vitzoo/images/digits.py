"""Load scikit-learn's bundled handwritten digits, filtered by class, without importing scikit-learn.

Importing it takes a second, which every process that trains or evaluates would spend. Source: Alpaydin and Kaynak 1998,
Optical Recognition of Handwritten Digits (UCI).
"""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vitzoo.errors import DatasetError
from vitzoo.images.splits import ImageDataset, ImageSplit

DIGITS = {"digits-0-5": (0, 1, 2, 3, 4, 5), "digits-6-9": (6, 7, 8, 9)}
# The images are in the order in which 43 people wrote them: contiguous blocks keep most writers in one part.
_BLOCKS = {"train": (0, 1078), "val": (1078, 1437), "test": (1437, 1797)}
_FILE = Path("datasets", "data", "digits.csv.gz")  # in the package: a line an image, 64 pixels from 0 to 16 and a digit


def find_digits(name: str) -> Path:
    """Find the file of one of the data sets of `DIGITS`.

    Raises:
        DatasetError: scikit-learn is not installed, or has the images in another place.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DatasetError(
            f'The images of "{name}" come with scikit-learn, which is not installed',
            fix="Run: pip install scikit-learn.",
            dataset=name,
        )
    file = Path(package.origin).parent / _FILE
    if not file.is_file():
        raise DatasetError(
            f'The images of "{name}" are not in {file}', fix="Install scikit-learn 1.9, which has them.", dataset=name
        )
    return file


def load_digits_named(name: str) -> ImageDataset:
    """Load one of the data sets of `DIGITS`. Errors as `find_digits`."""
    rows = np.loadtxt(find_digits(name), delimiter=",")
    classes = DIGITS[name]
    pixels, digits = rows[:, :-1], rows[:, -1]
    grey = np.round(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    parts = {}
    for part, (start, stop) in _BLOCKS.items():
        indices = np.arange(start, stop)
        indices = indices[np.isin(digits[indices], classes)].astype(np.int64)
        parts[part] = ImageSplit(
            images=np.repeat(grey[indices], 3, axis=1),
            labels=np.searchsorted(classes, digits[indices]).astype(np.int64),
            indices=indices,
        )
    return ImageDataset(
        name=name, revision=f"scikit-learn {version('scikit-learn')}", classes=tuple(map(str, classes)), **parts
    )
