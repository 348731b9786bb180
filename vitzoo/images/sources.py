"""ImageFiles and ImageRows: encoded images in files, or in rows of memory-mapped Arrow; one is decoded at a time.

Both can be pickled, and say which file or row could not be decoded. Which images make a split is `splits.py`'s.
"""

import os
import struct
import warnings
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
        names: Path of each file relative to it, as bytes: an array, so that a million are shared by forked workers.
    """

    root: Path
    names: Shaped[np.ndarray, " files"]

    def load(self, index: int) -> "Image":
        """Decode one image, to RGB.

        Raises:
            DatasetError: It cannot be decoded.
        """
        return decode(self._path(index), named=self.describe(index))

    def describe(self, index: int) -> str:
        """The file's path."""
        return printable(os.fsdecode(self._path(index)))

    def sizes(self, indices: Int64[np.ndarray, " images"]) -> Int64[np.ndarray, " images"]:
        """Bytes of each file."""
        return np.array([os.stat(self._path(index)).st_size for index in indices.tolist()], dtype=np.int64)

    def update(self, digest: "_Hash", indices: Int64[np.ndarray, " images"]) -> None:
        """Feed the relative paths to a digest."""
        for name in self.names[indices]:
            digest.update(name + b"\0")

    def _path(self, index: int) -> bytes:
        return os.path.join(os.fsencode(self.root), self.names[index])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageRows:
    """Encoded images in a column of an Arrow table that is mapped into memory.

    Args:
        rows: A `datasets.Dataset` of that column alone, which gives Arrow.
        column: The column: bytes, or a struct of bytes and path.
        name: What the table is called in messages.
        within: Folder that a row without bytes may name a file of; None where none may.
    """

    rows: Any
    column: str
    name: str
    within: Path | None = None

    def load(self, index: int) -> "Image":
        """Decode one image, to RGB.

        Raises:
            DatasetError: It cannot be decoded.
        """
        value = self.rows[index][self.column][0].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            return decode(self._file(index, value), named=self.describe(index))
        return decode(BytesIO(content), named=self.describe(index))

    def describe(self, index: int) -> str:
        """The table and the row."""
        return f'row {index} of {self.name}, column "{printable(self.column)}"'

    def sizes(self, indices: Int64[np.ndarray, " images"]) -> Int64[np.ndarray, " images"]:
        """Bytes of each encoded image."""
        import pyarrow as pa
        import pyarrow.compute as pc

        sizes: list[np.ndarray] = []
        for batch in self.rows.iter(batch_size=_ROWS):
            column = batch[self.column]
            if pa.types.is_struct(column.type):
                column = pc.call_function("struct_field", [column], pc.StructFieldOptions(["bytes"]))
            lengths = pc.call_function("binary_length", [column])
            sizes.append(lengths.fill_null(-1).to_numpy().astype(np.int64))
        found = np.concatenate([*sizes, np.zeros(0, dtype=np.int64)])[indices]
        for place in np.flatnonzero(found < 0):  # rows that name a file
            index = int(indices[place])
            found[place] = os.stat(self._file(index, self.rows[index][self.column][0].as_py())).st_size
        return found

    def update(self, digest: "_Hash", indices: Int64[np.ndarray, " images"]) -> None:
        """Nothing more than the indices, which name the rows, can be told of them."""

    def _file(self, index: int, value: object) -> Path:
        """The file that a row names instead of holding it: only where `datasets` itself put it."""
        path = value.get("path") if isinstance(value, dict) else None
        if path is None or self.within is None or not Path(path).resolve().is_relative_to(self.within.resolve()):
            raise DatasetError(
                f"{self.describe(index)} holds no image, and names no file of the data set",
                fix="Save the data set with its images in it (datasets' to_parquet or save_to_disk).",
                dataset=self.name,
            )
        return Path(path)


def decode(file: bytes | Path | BytesIO, *, named: str) -> "Image":
    """Decode an image file to RGB as torchvision's loader does: by PIL, not turned as its EXIF data may ask.

    Args:
        file: Its path or content.
        named: What it is called in messages.

    Raises:
        DatasetError: It is no image, or a damaged one.
    """
    from PIL import Image

    try:
        # PIL refuses twice as many pixels as it warns of: what lies between is large, and no error.
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            return _open_rgb(file if isinstance(file, BytesIO) else os.fsdecode(file))
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DatasetError(
            f"{named} is no image that can be decoded: {printable(str(error)).rstrip(' .')}",
            fix="Get it again, or take it away.",
        ) from error


def _open_rgb(file: str | BytesIO) -> "Image":
    from PIL import Image

    with Image.open(file) as image:
        if image.mode == "RGB":
            image.load()
            return image
        image.info.pop("transparency", None)  # what RGB cannot say: PIL would only warn of it
        return image.convert("RGB")
