"""Decode encoded images one at a time, from files or from rows of memory-mapped Arrow.

`ImageFiles` and `ImageRows` can be pickled, and their errors name the file or row. See `splits.py` for the images of a
split.
"""

import os
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64, Shaped

from vitzoo.errors import DatasetError, printable

if TYPE_CHECKING:
    from hashlib import _Hash

    from PIL.Image import Image

_ROWS = 4096  # rows whose sizes are read at once


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageFiles:
    """Image files in a folder.

    Args:
        root: The folder.
        names: Path of each file relative to it, as bytes: an array, so that forked workers share a million.
    """

    root: Path
    names: Shaped[np.ndarray, " files"]

    def load(self, index: int) -> "Image":
        """Decode one image to RGB, as `decode`."""
        return decode(os.fsdecode(self._path(index)), named=self.describe(index))

    def describe(self, index: int) -> str:
        """Return the file's path, for messages."""
        return printable(os.fsdecode(self._path(index)))

    def sizes(self, indices: Int64[np.ndarray, " images"]) -> Int64[np.ndarray, " images"]:
        """Return the bytes of each file."""
        return np.array([os.stat(self._path(index)).st_size for index in indices.tolist()], dtype=np.int64)

    def update(self, digest: "_Hash", indices: Int64[np.ndarray, " images"]) -> None:
        """Feed the relative paths to a digest."""
        for name in self.names[indices]:
            digest.update(name + b"\0")

    def _path(self, index: int) -> bytes:
        return os.path.join(os.fsencode(self.root), self.names[index])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageRows:
    """Encoded images in a column of a memory-mapped Arrow table.

    Args:
        rows: A `datasets.Dataset` of that column alone, as Arrow structs of bytes and path.
        column: The column.
        name: Name of the table in messages.
        files_in: Folder of the files that rows without bytes may name; None where no row may name a file.
    """

    rows: Any
    column: str
    name: str
    files_in: Path | None = None

    def load(self, index: int) -> "Image":
        """Decode one image to RGB, as `decode`."""
        content = self._row(index).get("bytes")
        file = self._file(index) if content is None else BytesIO(content)
        return decode(file, named=self.describe(index))

    def describe(self, index: int) -> str:
        """Return the table and the row, for messages."""
        return f'row {index} of {self.name}, column "{printable(self.column)}"'

    def sizes(self, indices: Int64[np.ndarray, " images"]) -> Int64[np.ndarray, " images"]:
        """Return the bytes of each encoded image."""
        import pyarrow.compute as pc

        lengths = [np.zeros(0, dtype=np.int64)]
        for batch in self.rows.iter(batch_size=_ROWS):
            encoded = pc.call_function("struct_field", [batch[self.column]], pc.StructFieldOptions(["bytes"]))
            lengths.append(pc.call_function("binary_length", [encoded]).fill_null(-1).to_numpy().astype(np.int64))
        sizes = np.concatenate(lengths)[indices]
        for place in np.flatnonzero(sizes < 0):  # rows that name a file
            sizes[place] = os.stat(self._file(int(indices[place]))).st_size
        return sizes

    def update(self, digest: "_Hash", indices: Int64[np.ndarray, " images"]) -> None:
        """Do nothing, because the indices already name the rows."""

    def _row(self, index: int) -> dict[str, Any]:
        return self.rows[index][self.column][0].as_py() or {}

    def _file(self, index: int) -> str:
        """Return the file that a row without bytes names, if `datasets` itself downloaded it."""
        path = self._row(index).get("path")
        if path is None or self.files_in is None or not Path(path).resolve().is_relative_to(self.files_in.resolve()):
            raise DatasetError(
                f"{self.describe(index)} has no image, and names no file of the data set",
                fix="Save the data set with its images in it (datasets' to_parquet or save_to_disk).",
                dataset=self.name,
            )
        return path


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageList:
    """Decoded images in memory, such as a user's own.

    Args:
        images: The images.
    """

    images: "Sequence[Image]"

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> "Image":
        """Return one image in RGB."""
        return self.images[index].convert("RGB")

    def describe(self, index: int) -> str:
        """Return the place of the image, for messages."""
        return f"image {index}"

    def sizes(self, indices: Int64[np.ndarray, " images"]) -> Int64[np.ndarray, " images"]:
        """Return the bytes of each image's pixels."""
        return np.array([len(self.images[index].tobytes()) for index in indices.tolist()], dtype=np.int64)

    def update(self, digest: "_Hash", indices: Int64[np.ndarray, " images"]) -> None:
        """Feed the pixels to a digest."""
        for index in indices.tolist():
            digest.update(self.images[index].tobytes())


def decode(file: str | BytesIO, *, named: str) -> "Image":
    """Decode an image to RGB like torchvision's loader: by PIL, and not rotated as EXIF data asks.

    Args:
        file: Path or content of the image file.
        named: Name of the image in messages.

    Raises:
        DatasetError: The file is not an image, or is damaged.
    """
    from PIL import Image

    try:
        # PIL warns of large images, and refuses images twice as large.
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(file) as image,
        ):
            image.info.pop("transparency", None)  # PIL would warn that RGB has none
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DatasetError(
            f"{named} cannot be decoded as an image: {printable(str(error)).rstrip(' .')}", fix="Get it again."
        ) from error
