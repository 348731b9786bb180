"""WeightsFiles: download and open the weights files of many checkpoints, and read several at a time.

See `vitzoo.weights.reader` for one file, and `vitzoo.weights.population` for arrays of many.
"""

import contextlib
import os
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import PurePosixPath

from vitzoo.errors import RecordError, WeightsError
from vitzoo.ids import MemberRef
from vitzoo.records import layout
from vitzoo.sources.folder import FolderSource
from vitzoo.sources.source import ZooSource
from vitzoo.weights.reader import KnownHeader, WeightsReader
from vitzoo.weights.shared import Header

WORKERS = min(4, os.cpu_count() or 1)  # more do not read faster from memory
_REQUESTS = 8  # concurrent requests to a Hub
_MAX_OPEN = 256  # files at once
_MIN_BYTES = 2**21  # a thread for fewer bytes of a file costs more than it saves


class WeightsFiles:
    """The weights files of checkpoints. Nothing is read before it is needed.

    Args:
        source: The zoo's files.
        refs: The checkpoints, in their order.
    """

    def __init__(self, source: ZooSource, refs: Sequence[MemberRef]):
        self.source = source
        self.refs = tuple(refs)
        self._known: dict[int, KnownHeader] = {}
        self._is_local = isinstance(source, FolderSource)

    def __reduce__(self):  # another process reads the headers again
        return (WeightsFiles, (self.source, self.refs))

    def __len__(self) -> int:
        return len(self.refs)

    @cached_property
    def _paths(self) -> list[PurePosixPath]:
        """The path of each file in the zoo."""
        return [layout.weights_file(ref.member, ref.epoch) for ref in self.refs]

    def open(self, row: int) -> WeightsReader:
        """Open the file of the checkpoint with this number."""
        try:
            reader = WeightsReader(self.source, self._paths[row], known=self._known.get(row))
        except RecordError:
            if self._is_local:
                raise
            ref = self.refs[row]
            raise self.source.no_epoch(ref.member, ref.epoch) from None
        self._known[row] = reader.header
        return reader

    def fetch(self) -> None:
        """Download the files of a Hub zoo that are not on this machine, with progress on standard error."""
        if self._is_local:
            return
        files = zip(self.refs, self._paths, strict=True)
        missing = [ref for ref, file in files if self.source.local_file(file) is None]
        if missing:
            from vitzoo.sources.download import download  # huggingface_hub

            download(self.source, missing, only_weights=True)
        self._is_local = True

    def keep_open(
        self, stack: contextlib.ExitStack
    ) -> Callable[[int], contextlib.AbstractContextManager[WeightsReader]]:
        """Download missing files, and return a function that opens a checkpoint's file by number.

        Up to 256 files stay open until the stack closes them. More are opened and closed at each call.
        """
        self.fetch()
        if len(self) <= min(_MAX_OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4):
            readers = [stack.enter_context(self.open(row)) for row in range(len(self))]
            return lambda row: contextlib.nullcontext(readers[row])
        return self.open  # the limit is for all files of the process

    def for_each(self, work: Callable[[int, WeightsReader], None], *, size: int | None = None) -> None:
        """Call a function with the number and the open file of each checkpoint, several at a time.

        If the function reads few bytes, its ``size``, of a local file, it runs in this thread.
        """

        def work_on(row: int) -> None:
            with self.open(row) as reader:
                work(row, reader)

        if self._is_local and size is not None and size < _MIN_BYTES:
            for row in range(len(self)):
                work_on(row)
            return
        with ThreadPoolExecutor(WORKERS if self._is_local else _REQUESTS) as pool:
            try:
                list(pool.map(work_on, range(len(self))))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    @cached_property
    def headers(self) -> list[Header]:
        """The header of each file; equal headers are one object."""
        self.refuse_empty()
        self.for_each(lambda row, reader: None)
        return [self._known[row].entries for row in range(len(self))]

    def refuse_empty(self) -> None:
        """Raise WeightsError if there are no checkpoints."""
        if not self.refs:
            raise WeightsError("There are no checkpoints to read: the selection is empty")
