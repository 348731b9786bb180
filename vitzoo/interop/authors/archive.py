"""Read a file of torch.save without an unpickler, in time and memory that its own size bounds.

A file is a zip archive whose members are stored as they are. ``data.pkl`` holds the pickled object, ``data/<key>`` the
bytes of a storage. Only the instructions that torch.save writes for tensors, numbers, texts, dictionaries and lists
are evaluated. Tensors are memory-mapped. `torch.load` is not used, because its ``weights_only=True`` hashes, allocates
and repeats as much as a pickle asks for.

Source: torch/serialization.py and torch/_utils.py of torch 2; CPython's Lib/pickletools.py.
"""

import io
import mmap
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Errors of the parsers for a damaged or hostile file.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, OSError, ValueError, TypeError, KeyError),
    *(AttributeError, IndexError, EOFError, OverflowError),
)
_MAX_PICKLE = 2**18  # bytes; a ViT-H has 60 kB
_MAX_READ = 2**20  # bytes; zipfile reads the archive's directory at once, and parts in pieces of this size
_MAX_DIMENSIONS = 8
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field

_DTYPES = {
    f"torch {name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Bool": torch.bool,
    }.items()
}
_DICTIONARY, _TENSOR, _PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
_GLOBALS = {_DICTIONARY, _TENSOR, _PARAMETER, *_DTYPES}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Global(str):
    """Name of a class or function in a pickle; texts of the pickle are plain strings."""

    __slots__ = ()


class _ShortReads(io.BufferedReader):
    """A file whose archive directory is refused when it is long: zipfile reads it in one call."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_READ:
            raise zipfile.BadZipFile(f"its directory has {size} bytes, more than {_MAX_READ}")
        return super().read(size)


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive whose parts are stored, plain, unique and together no longer than the file.

    Raises:
        zipfile.BadZipFile: It is another file.
        OSError: It cannot be read.
    """
    with _ShortReads(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1 for part in parts):
            raise zipfile.BadZipFile("it is compressed or encrypted, which torch.save does not do")
        names, total = {part.filename for part in parts}, sum(part.file_size for part in parts)
        if len(names) < len(parts) or total > path.stat().st_size:
            raise zipfile.BadZipFile("parts overlap or have the same name")
        yield archive


def load_tensors(path: Path) -> Any:
    """Load the object in a file of torch.save: tensors are memory-mapped, whatever device they were on.

    Raises:
        pickle.UnpicklingError: The object has other parts than tensors, numbers, texts, dictionaries and lists.
        Exception: One of `DAMAGE`.
    """
    with open_archive(path) as archive, open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        parts = {part.filename.partition("/")[2]: part for part in archive.infolist()}
        if (size := parts["data.pkl"].file_size) > _MAX_PICKLE:
            raise ValueError(f"data.pkl has {size} bytes, more than {_MAX_PICKLE}")
        if "byteorder" in parts and archive.read(parts["byteorder"]) != b"little":
            raise ValueError("its byte order is not little")
        return _Evaluation(content, parts).evaluate(archive.read(parts["data.pkl"]))


class _Evaluation:
    """Evaluates the instructions of a pickle. Its cost is linear in their number: only texts and tensors repeat."""

    def __init__(self, content: mmap.mmap, parts: dict[str, zipfile.ZipInfo]):
        self._content, self._parts = content, parts
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def evaluate(self, pickled: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise EOFError("data.pkl is cut")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "GLOBAL":
            if argument not in _GLOBALS:
                raise pickle.UnpicklingError(argument)
            stack.append(_Global(argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            if not isinstance(self._memo[argument], (str, Tensor)):  # a tuple of a tuple, twice each, 60 times
                raise pickle.UnpicklingError("a value that is used twice")
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "TUPLE" or name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES.get(name))))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1 if name == "APPEND" else None)
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2 if name == "SETITEM" else None)
            if not all(type(key) in (str, int) for key in items[::2]):
                raise pickle.UnpicklingError("a key that is not a text")
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "BUILD":  # attributes, such as the versions of modules
            stack.pop()
        elif name == "BINPERSID":
            stack.append(self._storage(*stack.pop()))
        elif name == "REDUCE":
            function, arguments = self._pop(2)
            stack.append(self._call(function, arguments))
        elif name != "PROTO":
            raise pickle.UnpicklingError(f"the instruction {name}")

    def _pop(self, count: int | None) -> list[Any]:
        """Take the last values from the stack: those since the last mark for None."""
        start = self._marks.pop() if count is None else len(self._stack) - count
        if start < 0:
            raise IndexError("a value is missing")
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _storage(self, kind: str, dtype: str, key: str, _location: str, _count: int) -> Tensor:
        """Map the bytes of a storage."""
        part, dtype_of = self._parts[f"data/{key}"], _DTYPES[dtype]
        signature, name, extra = _LOCAL_HEADER.unpack_from(self._content, part.header_offset)
        start = part.header_offset + _LOCAL_HEADER.size + name + extra
        count, rest = divmod(part.file_size, dtype_of.itemsize)
        if kind != "storage" or signature != b"PK\3\4" or rest or start % dtype_of.itemsize:
            raise ValueError(f"data/{key} has another length or place than torch.save gives it")
        if count == 0:
            return torch.empty(0, dtype=dtype_of)
        return torch.frombuffer(self._content, dtype=dtype_of, count=count, offset=start)

    def _call(self, function: object, arguments: tuple[Any, ...]) -> Any:
        if not isinstance(function, _Global) or type(arguments) is not tuple:
            raise pickle.UnpicklingError("a call of a value")
        if function == _DICTIONARY and not arguments:
            return {}
        if function == _PARAMETER:
            return arguments[0]
        if function != _TENSOR:
            raise pickle.UnpicklingError(f"a call of {function}")
        storage, offset, size, stride, *_ = arguments
        numbers = (offset, *size, *stride)
        if len(numbers) > 1 + 2 * _MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
            raise ValueError("a tensor's size is not a size")
        if prod(size) > storage.numel():  # a stride of 0 repeats a value
            raise ValueError(f"a tensor of {tuple(size)} has {storage.numel()} values")
        return torch.as_strided(storage, size, stride, offset)
