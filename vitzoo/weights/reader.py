"""WeightsReader: tensors of one weights file, read straight into existing memory.

A local file is read by `os.preadv`, which scatters neighbouring tensors to their places in one call. From a Hub repo
whose file is not downloaded, only the needed bytes are requested. No torch. See `vitzoo.weights.files` for many files.
"""

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from vitzoo.errors import WeightsError
from vitzoo.sources.source import ZooSource, read_open_range
from vitzoo.tensors.dtypes import NUMPY, convert
from vitzoo.tensors.header import TensorEntry, read_header

_MAX_BUFFERS = 1024  # of one preadv: Linux's IOV_MAX
_MAX_BYTES = 2**30  # of one preadv: Linux moves 2 GiB less a page at most


@dataclass(frozen=True, slots=True)
class KnownHeader:
    """The header of a file that was read before.

    Args:
        entries: Names to entries.
        signature: What tells that the file is still the same; None of one that is not here, pinned by its commit.
    """

    entries: Mapping[str, TensorEntry]
    signature: tuple[int, ...] | None


class WeightsReader:
    """An open weights file.

    Args:
        source: The zoo's files.
        relative: The file's path in the zoo.
        known: Its header, if it was read before.

    Raises:
        RecordError: There is no such file.
        WeightsError: Its header is damaged, or the file changed since its header was read.
        HubError: The Hub cannot be reached, or refuses.
    """

    def __init__(self, source: ZooSource, relative: PurePosixPath, *, known: KnownHeader | None = None):
        self.path = source.root / relative
        local = source.local_file(relative)
        self._file = None if local is None else os.open(local, os.O_RDONLY | os.O_CLOEXEC)
        self._read_range = partial(source.read_range, relative)
        try:
            self.header = self._load_header(known)
        except BaseException:
            self.close()
            raise

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """Names to entries."""
        return self.header.entries

    def _load_header(self, known: KnownHeader | None) -> KnownHeader:
        if self._file is None:
            return known or KnownHeader(read_header(self._read_range, path=self.path), None)
        state = os.fstat(self._file)
        signature = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if known is None or known.signature is None:
            return KnownHeader(read_header(partial(read_open_range, self._file), path=self.path), signature)
        if signature != known.signature:
            raise WeightsError(f"{self.path} changed while it was in use", fix="Start again.", path=self.path)
        return known

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> "WeightsReader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def map(self) -> mmap.mmap:
        """The whole file as private memory: read when it is looked at, written to in this process alone.

        Raises:
            WeightsError: The file is not here.
        """
        if self._file is None:
            raise WeightsError(f"{self.path} is not downloaded, so it cannot be mapped.", path=self.path)
        return mmap.mmap(self._file, 0, access=mmap.ACCESS_COPY)

    def read(self, wanted: Iterable[tuple[TensorEntry, np.ndarray]]) -> None:
        """Read tensors, converting those whose array has another type.

        Args:
            wanted: Entries of this file, and a contiguous array of as many numbers for each; bfloat16 is read into
                uint16 as it is.
        """
        raw: list[tuple[int, memoryview]] = []
        converted: list[tuple[TensorEntry, np.ndarray, np.ndarray]] = []
        for entry, out in wanted:
            flat = out.reshape(-1)
            if flat.dtype != NUMPY[entry.dtype]:
                numbers = np.empty(flat.size, NUMPY[entry.dtype])
                converted.append((entry, numbers, flat))
                flat = numbers
            raw.append((entry.start, flat.view(np.uint8).data))
        self.read_bytes(raw)
        for entry, numbers, out in converted:
            convert(numbers, entry.dtype, out)

    def read_bytes(self, wanted: Iterable[tuple[int, memoryview]]) -> None:
        """Read bytes of the file.

        Args:
            wanted: Places in the file, and the memory to fill from each.

        Raises:
            WeightsError: The file ends before that: it was cut while it was open.
        """
        for start, buffers in _runs(sorted(wanted, key=lambda one: one[0])):
            size = sum(map(len, buffers))
            if self._file is not None:
                done = os.preadv(self._file, buffers, start)
            else:
                content, _ = self._read_range(start, start + size)
                done = _scatter(content, buffers)
            if done != size:  # a file system may give less than was asked for
                self._read_rest(start, buffers, done)

    def _read_rest(self, start: int, buffers: list[memoryview], done: int) -> None:
        for buffer in buffers:
            rest = buffer[min(done, len(buffer)) :]
            position = start + len(buffer) - len(rest)
            while len(rest):
                count = 0 if self._file is None else os.preadv(self._file, [rest], position)
                if count == 0:
                    raise WeightsError(
                        f"{self.path} ended at byte {position} while it was read: it was changed",
                        fix="Get it again.",
                        path=self.path,
                    )
                rest, position = rest[count:], position + count
            done -= min(done, len(buffer))
            start += len(buffer)


def _runs(wanted: Iterable[tuple[int, memoryview]]) -> Iterator[tuple[int, list[memoryview]]]:
    """What one call reads: neighbours in the file, not too many."""
    first = end = 0
    buffers: list[memoryview] = []
    for start, buffer in wanted:
        if buffers and (start != end or len(buffers) == _MAX_BUFFERS or end + len(buffer) - first > _MAX_BYTES):
            yield first, buffers
            buffers = []
        if not buffers:
            first = start
        buffers.append(buffer)
        end = start + len(buffer)
    if buffers:
        yield first, buffers


def _scatter(content: bytes, buffers: Iterable[memoryview]) -> int:
    position = 0
    for buffer in buffers:
        part = content[position : position + len(buffer)]
        buffer[: len(part)] = part
        position += len(part)
    return position
