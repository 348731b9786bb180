"""scikit-learn's bundled handwritten digits, filtered by class.

Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (UCI).
"""

from importlib.metadata import version

import numpy as np

from vitzoo.errors import DatasetError
from vitzoo.images.splits import ImageDataset, ImageSplit

DIGITS = {"digits-0-5": (0, 1, 2, 3, 4, 5), "digits-6-9": (6, 7, 8, 9)}
# They lie in the order in which 43 people wrote them: contiguous blocks keep most writers on one side.
_BLOCKS = {"train": (0, 1078), "val": (1078, 1437), "test": (1437, 1797)}


def load_digits_named(name: str) -> ImageDataset:
    """One of the data sets of `DIGITS`.

    Raises:
        DatasetError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise DatasetError(
            f'The images of "{name}" are bundled with scikit-learn, which is not installed: pip install scikit-learn.',
            dataset=name,
        ) from error
    classes = DIGITS[name]
    pixels, digits = load_digits(return_X_y=True)
    grey = np.round(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)  # stored as 0 to 16
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
