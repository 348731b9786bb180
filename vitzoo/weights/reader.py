"""WeightsReader: read tensors of one weights file directly into existing memory.

A local file is read by `os.preadv`, which scatters neighbouring tensors to their places in one call. From a Hub repo
whose file is not downloaded, only the needed bytes are requested. No torch. See `vitzoo.weights.files` for many files.
"""

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from vitzoo.errors import WeightsError
from vitzoo.records.files import reading
from vitzoo.sources.source import ZooSource, read_open_range
from vitzoo.tensors.dtypes import NUMPY, as_floats, convert
from vitzoo.tensors.header import DTYPE_BYTES, TensorEntry, read_header

_FLAGS = os.O_RDONLY | os.O_CLOEXEC
_MAX_BUFFERS = 1024  # of one preadv: Linux's IOV_MAX
_MAX_BYTES = 2**30  # of one preadv: Linux moves 2 GiB less a page at most


@dataclass(frozen=True, slots=True)
class KnownHeader:
    """A header that was read before.

    Args:
        entries: Tensor names to entries.
        signature: Device, inode, size and time of the file; None for a file of a Hub repo.
        local: Path of the file on this machine, which was checked for links.
    """

    entries: Mapping[str, TensorEntry]
    signature: tuple[int, ...] | None
    local: Path | None = None


class WeightsReader:
    """An open weights file.

    Args:
        source: The zoo's files.
        relative: Path of the file in the zoo.
        known: Header of the file, if it was read before.

    Raises:
        RecordError: There is no such file.
        WeightsError: The header is damaged, or the file has changed since its header was read.
        HubError: The Hub cannot be reached, or refuses.
    """

    def __init__(self, source: ZooSource, relative: PurePosixPath, *, known: KnownHeader | None = None):
        self._place = source.root, relative
        self._read_range = partial(source.read_range, relative)
        # Its signature shows that the path still leads to the file that was checked.
        self._local = known.local if known is not None and source.digest is None else None
        self._file = None
        if self._local is not None:
            with suppress(OSError):
                self._file = os.open(self._local, _FLAGS)
        if self._file is None:
            self._local = source.local_file(relative)
            with reading(self.path):
                self._file = None if self._local is None else os.open(self._local, _FLAGS)
        try:
            self.header = self._load_header(known)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """Path of the file in the zoo."""
        root, relative = self._place
        return root / relative

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """Tensor names to entries."""
        return self.header.entries

    def _load_header(self, known: KnownHeader | None) -> KnownHeader:
        if self._file is None:
            return known or KnownHeader(read_header(self._read_range, path=self.path), None)
        state = os.fstat(self._file)
        signature = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if known is None or known.signature is None:
            entries = read_header(partial(read_open_range, self._file), path=self.path)
            return KnownHeader(entries, signature, self._local)
        if signature != known.signature:
            raise WeightsError(f"{self.path} changed while it was in use", fix="Restart.", path=self.path)
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
        """Map the whole downloaded file into memory, privately: writes stay in this process."""
        if self._file is None:
            raise WeightsError(f"{self.path} is not downloaded, so it cannot be mapped", path=self.path)
        return mmap.mmap(self._file, 0, access=mmap.ACCESS_COPY)

    def read(self, outputs: Iterable[tuple[TensorEntry, np.ndarray]]) -> None:
        """Read tensors into arrays, and convert those whose array has another type.

        Args:
            outputs: Entries of this file, each with a contiguous array of its size; bfloat16 is read into uint16.
        """
        raw: list[tuple[int, memoryview]] = []
        converted: list[tuple[TensorEntry, np.ndarray, np.ndarray]] = []
        for entry, out in outputs:
            flat = out.reshape(-1)
            if flat.dtype != NUMPY[entry.dtype]:
                numbers = np.empty(flat.size, NUMPY[entry.dtype])
                converted.append((entry, numbers, flat))
                flat = numbers
            raw.append((entry.start, flat.view(np.uint8).data))
        self.read_bytes(raw)
        for entry, numbers, out in converted:
            convert(numbers, entry.dtype, out)

    def read_slice(self, name: str, begin: int, end: int, *, memory: np.ndarray | None = None) -> np.ndarray:
        """Read numbers ``begin`` to ``end`` of a flat tensor as floats: float32 for bfloat16.

        Args:
            name: Name on disk.
            begin: Number of the first value.
            end: Number after the last value.
            memory: Contiguous array of bytes to read into, of 8 bytes a number or more; None for new memory.
        """
        entry = self.entries[name]
        width = DTYPE_BYTES[entry.dtype]
        size = (end - begin) * width
        content = np.empty(size, np.uint8) if memory is None else memory[:size]
        self.read_bytes([(entry.start + begin * width, content.data)])
        return as_floats(content.view(NUMPY[entry.dtype]), entry.dtype)

    def read_bytes(self, outputs: Iterable[tuple[int, memoryview]]) -> None:
        """Fill buffers from places in the file; raise WeightsError if it was truncated while it was open."""
        for start, buffers in _runs(sorted(outputs, key=lambda output: output[0])):
            size = sum(map(len, buffers))
            if self._file is None:
                content = memoryview(self._read_range(start, start + size)[0])
                if len(content) < size:
                    raise self._truncated(start + len(content))
                for buffer in buffers:
                    buffer[:] = content[: len(buffer)]
                    content = content[len(buffer) :]
            elif os.preadv(self._file, buffers, start) < size:  # as a file system may
                self._read_in_steps(self._file, start, buffers)

    def _read_in_steps(self, file: int, start: int, buffers: list[memoryview]) -> None:
        for buffer in buffers:
            done = 0
            while done < len(buffer):
                count = os.preadv(file, [buffer[done:]], start + done)
                if count == 0:
                    raise self._truncated(start + done)
                done += count
            start += len(buffer)

    def _truncated(self, end: int) -> WeightsError:
        return WeightsError(
            f"{self.path} ended at byte {end} while it was read: it has changed", fix="Get it again.", path=self.path
        )


def _runs(outputs: Iterable[tuple[int, memoryview]]) -> Iterator[tuple[int, list[memoryview]]]:
    """Group buffers whose bytes follow each other in the file, within the limits of one call."""
    first = end = 0
    buffers: list[memoryview] = []
    for start, buffer in outputs:
        if buffers and (start != end or len(buffers) == _MAX_BUFFERS or end + len(buffer) - first > _MAX_BYTES):
            yield first, buffers
            buffers = []
        if not buffers:
            first = start
        buffers.append(buffer)
        end = start + len(buffer)
    if buffers:
        yield first, buffers
