"""CIFAR-100 as its authors publish it: the folder cifar-100-python, as torchvision unpacks it.

Its three files are pickles, read by an unpickler that calls nothing: it makes dicts, lists, texts, numbers, and uint8
arrays from their bytes, and refuses every other name. Images and labels lie in the order of the Hub's copy.

Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images; https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from vitzoo.errors import DatasetError, printable, shown
from vitzoo.images.assemble import Found, wanted_splits
from vitzoo.images.splits import ImageSplit
from vitzoo.images.tables import no_split
from vitzoo.records.dataset_spec import DatasetSpec

FOLDER = "cifar-100-python"
_SPLITS = ("train", "test")
_SIDE = 32
_MAX_BYTES = 256 * 2**20  # the larger file has 155 MB


def is_cifar_folder(folder: Path) -> bool:
    """Whether a folder is one of CIFAR-100's pickles."""
    return all((folder / name).is_file() for name in ("meta", *_SPLITS))


def find_in_pickles(images: DatasetSpec, folder: Path) -> Found:
    """The splits of CIFAR-100's pickles.

    Args:
        images: Which labels and splits, complete: ``label_column`` is ``fine_label`` or ``coarse_label``.
        folder: Holds ``meta``, ``train`` and ``test``.

    Raises:
        DatasetError: A file is damaged, or holds more than numbers and texts.
    """
    if images.streamed:
        raise DatasetError(
            f"{folder} holds images in memory, not in files: set streamed=False in the DatasetSpec.",
            dataset=images.name,
        )
    labels = images.label_column or "fine_label"
    meta = folder / "meta"
    names = [_text(meta, name) for name in _field(meta, load_plain_pickle(meta), f"{labels}_names")]
    parts = {}
    for part, split in wanted_splits(images).items():
        if split not in _SPLITS:
            raise no_split(images, split, dict.fromkeys(_SPLITS))
        parts[part] = _load_split(folder / split, f"{labels}s")
    return Found(revision="torchvision", classes=tuple(names), parts=parts)


def _load_split(path: Path, labels_field: str) -> ImageSplit:
    content = load_plain_pickle(path)
    pixels, labels = _field(path, content, "data"), _field(path, content, labels_field)
    if not isinstance(pixels, _Array) or pixels.shape[1:] != (3 * _SIDE**2,) or len(labels) != pixels.shape[0]:
        raise _damaged(path, f"it holds no {3 * _SIDE**2} numbers for each of its {len(labels)} labels")
    if not all(type(label) is int for label in labels):
        raise _damaged(path, f"its {labels_field} are no whole numbers")
    return ImageSplit(
        images=pixels.to_numpy().reshape(-1, 3, _SIDE, _SIDE),
        labels=np.array(labels, dtype=np.int64),
        indices=np.arange(len(labels), dtype=np.int64),
    )


def _field(path: Path, content: object, name: str) -> Any:
    for key in (name, name.encode()):
        if isinstance(content, dict) and key in content:
            value = content[key]
            if isinstance(value, (list, _Array)):
                return value
    raise _damaged(path, f"it holds no {name}")


def _text(path: Path, name: object) -> str:
    if isinstance(name, bytes):
        name = name.decode("utf-8", errors="replace")
    if not isinstance(name, str):
        raise _damaged(path, "a class has no name")
    return name


def _damaged(path: Path, why: str) -> DatasetError:
    return DatasetError(f"{path} is no file of CIFAR-100: {why}. Unpack the archive again.", dataset="uoft-cs/cifar100")


def load_plain_pickle(path: Path) -> Any:
    """Read a pickle of plain containers, texts, numbers and uint8 arrays.

    Args:
        path: The file.

    Returns:
        What it holds; byte strings of Python 2 as bytes.

    Raises:
        DatasetError: It is damaged, too large, or names anything else, such as code to run.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise _damaged(path, f"it has over {_MAX_BYTES // 2**20} MiB")
        with open(path, "rb") as file:
            return _PlainUnpickler(file, encoding="bytes").load()
    except DatasetError:
        raise
    except OSError as error:
        raise _damaged(path, error.strerror or "it cannot be read") from error
    except Exception as error:  # a hostile pickle may raise anything
        raise _damaged(path, printable(str(error))) from error


class _Array:
    """An array of uint8 as its pickle describes it; numpy itself is never called by a pickle."""

    def __init__(self, *_: object):  # what `_reconstruct` is given says nothing
        self.shape: tuple[int, ...] = (0,)
        self._content = b""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, content = state
        content = content.encode("latin-1") if isinstance(content, str) else content
        plain = type(shape) is tuple and all(type(length) is int and length >= 0 for length in shape)
        if not plain or not isinstance(kind, _Uint8) or by_columns or len(content) != math.prod(shape):
            raise ValueError("an array in it is no array of uint8, row by row")
        self.shape, self._content = shape, bytes(content)

    def to_numpy(self) -> np.ndarray:
        return np.frombuffer(bytearray(self._content), dtype=np.uint8).reshape(self.shape)


class _Uint8:
    """The one dtype that is read."""

    def __init__(self, name: object, *_: object):
        if name not in ("u1", b"u1"):
            raise ValueError(f"an array in it is of {shown(str(name))}, not uint8")

    def __setstate__(self, state: object) -> None:
        """Byte order and fields, of which uint8 has none."""


class _Latin1:
    """How Python 3 writes bytes in the protocols of Python 2; a class, for a pickle may change functions."""

    def __new__(cls, text: object, encoding: object = "latin1") -> bytes:  # pyright: ignore[reportInconsistentConstructor]
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise ValueError("bytes in it are written in another encoding than latin1")
        return text.encode("latin-1")

    def __setstate__(self, state: object) -> None:
        raise ValueError("bytes in it have a state")


_NAMES = {
    **{(module, "_reconstruct"): _Array for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Uint8,
    ("_codecs", "encode"): _Latin1,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _NAMES:
            raise pickle.UnpicklingError(
                f"it names {shown(f'{module_name}.{global_name}')}, which no file of numbers does; do not load it "
                "elsewhere either"
            )
        return _NAMES[module_name, global_name]
