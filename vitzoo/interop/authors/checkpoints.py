"""Load checkpoints of the authors' release without running code in them, and check names, shapes and checksums.

A checkpoint is a torch pickle of a state dict. A ViT's has timm's names behind ``vit.``, where queries, keys and values
are one tensor. See `vitzoo.interop.bert_names` for a BERT's. The file is a zip archive whose members are stored as they
are. ``data.pkl`` holds the pickled object, ``data/<key>`` the bytes of a storage. No unpickler is used. Only
instructions that torch.save writes for tensors, numbers, texts, dictionaries and lists are evaluated, in time and
memory that the file's size bounds. Tensors are memory-mapped. `torch.load` is not used, because its
``weights_only=True`` hashes, allocates and repeats as much as a pickle asks for.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441, ``models/vit_s.py`` and ``experiment_runner/def_nn_experiment.py``;
torch/serialization.py and torch/_utils.py of torch 2; CPython's Lib/pickletools.py.
"""

import io
import mmap
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitzoo.architectures import ModelShape, Sizes, describe_mismatch, is_head
from vitzoo.architectures.architecture import HeadWidth
from vitzoo.architectures.bert import BertSizes
from vitzoo.errors import VitZooError, WeightsError, printable
from vitzoo.interop import bert_names
from vitzoo.interop.authors.config import Settings
from vitzoo.interop.authors.facts import INITIAL_BIAS
from vitzoo.interop.authors.job import Import
from vitzoo.interop.timm_names import from_timm_state

_PREFIX = "vit."
_LONGEST_NAME = 100
_MAX_OTHER = 2**20  # bytes of a file beside those of its tensors

# Errors of the parsers for a damaged or hostile file.
_DAMAGE = (
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


def load_raw(path: Path, sizes: Sizes) -> dict[str, Tensor]:
    """Load a checkpoint's state dict under the authors' names, as memory-mapped tensors.

    Args:
        path: The file.
        sizes: Expected sizes, which say the architecture.

    Raises:
        WeightsError: The file is damaged, asks for more than tensors, or holds something else.
    """
    state = _load(path)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise _refused(path, f"holds a {type(state).__name__}", expected="a state dict")
    prefixes, example, buffers = (_PREFIX,), f"{_PREFIX}cls_token", ()
    if isinstance(sizes, BertSizes):
        prefixes, example = bert_names.PREFIXES, "bert.embeddings.word_embeddings.weight"
        buffers = bert_names.BUFFERS
    raw = {}
    for name, tensor in state.items():
        if name.rpartition(".")[2] in buffers:
            continue
        shown_name = f'"{printable(name[:_LONGEST_NAME])}"'
        if not name.startswith(prefixes) or len(name) > _LONGEST_NAME:
            raise _refused(path, f"holds {shown_name}", expected=f'names such as "{example}"')
        if not isinstance(tensor, Tensor):
            raise _refused(path, f"holds {shown_name} as {type(tensor).__name__}", expected="float32")
        if tensor.dtype != torch.float32:
            raise _refused(path, f"holds {shown_name} as {tensor.dtype}", expected="float32")
        raw[name.removeprefix(_PREFIX)] = tensor
    stored = {(tensor.data_ptr(), tensor.numel()) for tensor in raw.values()}  # tied tensors are there once
    size, needed = path.stat().st_size, 4 * sum(count for _, count in stored)
    if not needed <= size <= needed + _MAX_OTHER:
        raise _refused(path, f"has {size} bytes", expected=f"about the {needed} bytes of its tensors")
    return raw


def _load(path: Path) -> Any:
    """Load the object in a file of torch.save: tensors are memory-mapped, whatever device they were on."""
    try:
        with _open_archive(path) as archive, open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            parts = {part.filename.partition("/")[2]: part for part in archive.infolist()}
            if (size := parts["data.pkl"].file_size) > _MAX_PICKLE:
                raise ValueError(f"data.pkl has {size} bytes, more than {_MAX_PICKLE}")
            if "byteorder" in parts and archive.read(parts["byteorder"]) != b"little":
                raise ValueError("its byte order is not little")
            return _Evaluation(content, parts).evaluate(archive.read(parts["data.pkl"]))
    except pickle.UnpicklingError as error:
        what = f"is not a pickle of tensors alone, and nothing in it was run: it holds {_brief(error)}"
        raise _refused(path, what, expected="float32 tensors") from None
    except zipfile.BadZipFile as error:
        what = f"is not a file of torch.save, or is damaged, and was not opened: {_brief(error)}"
        raise _refused(path, what, expected="an archive, as torch writes since 1.6") from None
    except _DAMAGE as error:
        raise _refused(path, f"cannot be read: {_brief(error)}") from None


def load_checkpoint(path: Path, sizes: Sizes, *, outputs: int | None) -> dict[str, Tensor]:
    """Load a checkpoint's weights under their on-disk names, memory-mapped, and check their shapes.

    Args:
        path: The file.
        sizes: Expected sizes; a BERT may have another vocabulary.
        outputs: Expected width of the head's output; None for any.

    Raises:
        WeightsError: As `load_raw`, or names or shapes are others.
    """
    raw = load_raw(path, sizes)
    try:
        if isinstance(sizes, BertSizes):
            weights = bert_names.from_bert_state(raw)
            shape: ModelShape = bert_names.shape_of(weights, sizes, outputs=outputs)
        else:
            weights = from_timm_state(raw)
            found_outputs, head_width = head_shape(weights)
            shape = sizes.shape(outputs=outputs or found_outputs, head_width=head_width, role="classifier")
    except (VitZooError, ValueError) as error:
        raise _refused(path, f"is not a checkpoint of the zoo: {error}") from None
    misfit = describe_mismatch(
        shape.tensor_shapes(),
        {name: tuple(tensor.shape) for name, tensor in weights.items()},
        says="its config's model::type and model::o_dim say",
    )
    if misfit is not None:
        raise _refused(path, f"holds other tensors than expected: {misfit}")
    return {name: tensor if tensor.is_contiguous() else tensor.contiguous() for name, tensor in weights.items()}


def head_shape(weights: Mapping[str, Tensor]) -> tuple[int, HeadWidth]:
    """Return the width of a head's output, and the hidden width of an MLP head, or widths; None for a linear one."""
    if _is_bert(weights):
        return bert_names.head_shape(weights)
    if "classifier.fc1.weight" in weights:
        return len(weights["classifier.fc2.weight"]), len(weights["classifier.fc1.weight"])
    return len(weights["classifier.weight"]), None


def is_untrained(weights: Mapping[str, Tensor]) -> bool | None:
    """Return whether all biases of a linear head, or of a parent, are .01, as before the first step.

    See `vitzoo.interop.bert_names.is_untrained` for a BERT, which may not show it.
    """
    if _is_bert(weights):
        return bert_names.is_untrained(weights)
    biases = [
        tensor
        for name, tensor in weights.items()
        if name.endswith(".bias") and "layernorm" not in name and not name.startswith("classifier.fc")
    ]
    return all(bool((bias == INITIAL_BIAS).all()) for bias in biases)


def sizes_and_role(weights: Mapping[str, Tensor], settings: Settings, job: Import) -> tuple[Sizes, str]:
    """Return the sizes of a model's backbone and the role of its head."""
    sizes = job.model_types[settings.model_type]
    if isinstance(sizes, BertSizes):
        return bert_names.sizes_of(weights, sizes), bert_names.role_of(weights)
    return sizes, "embedding" if settings.objective == "contrastive" else "classifier"


def _is_bert(weights: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("bert.") for name in weights)


def check_sums(path: Path) -> None:
    """Raise a WeightsError where bytes differ from torch's checksums."""
    try:
        with _open_archive(path) as archive:
            damaged = archive.testzip()
    except _DAMAGE as error:
        raise _refused(path, f"is a damaged archive: {_brief(error)}") from None
    if damaged is not None:
        raise _refused(path, f"is damaged: {printable(damaged)} has another checksum than was written with it")


def have_equal_backbones(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two models have equal weights except for their heads."""
    names = sorted((name for name in one if not is_head(name)), key=lambda name: one[name].numel())
    return all(name in other and torch.equal(one[name], other[name]) for name in names)  # small ones first


def content_mark(path: Path) -> tuple[tuple[str, int, int], ...] | None:
    """Return name, size and CRC-32 of each tensor in an archive, equal for equal weights; None for another file."""
    try:
        with _open_archive(path) as archive:
            parts = archive.infolist()
    except _DAMAGE:
        return None
    names = [part.filename.partition("/")[2] for part in parts]
    return tuple(
        (name, part.file_size, part.CRC) for name, part in zip(names, parts, strict=True) if name.startswith("data/")
    )


def _brief(error: Exception) -> str:
    return printable(str(error).partition("\n")[0][:200])


def _refused(path: Path, what: str, *, expected: str | None = None) -> WeightsError:
    return WeightsError(f"{printable(path.parent.name)}/{path.name} {what}", expected=expected, path=path)


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
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
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
