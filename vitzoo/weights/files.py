"""WeightsFiles: the weights files of many checkpoints, downloaded, opened, and read several at once.

See `vitzoo.weights.reader` for one file, and `vitzoo.weights.population` for arrays of many.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from vitzoo.errors import RecordError, WeightsError
from vitzoo.ids import MemberRef
from vitzoo.records import layout
from vitzoo.sources.folder import FolderSource
from vitzoo.sources.source import ZooSource
from vitzoo.weights.reader import KnownHeader, WeightsReader
from vitzoo.weights.shared import Header

_WORKERS = min(4, os.cpu_count() or 1)  # more do not read faster from memory
_REQUESTS = 8  # concurrent requests to a Hub
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

    def open(self, row: int, *, whole: bool) -> WeightsReader:
        """Open the file of a checkpoint.

        Args:
            row: The checkpoint's number.
            whole: Whether all files are downloaded first, if they are not on this machine.
        """
        if whole:
            self.fetch()
        ref = self.refs[row]
        relative = layout.weights_file(ref.member, ref.epoch)
        try:
            reader = WeightsReader(self.source, relative, known=self._known.get(row))
        except RecordError:
            if self._is_local:
                raise
            raise self.source.no_epoch(ref.member, ref.epoch) from None
        self._known[row] = reader.header
        return reader

    def fetch(self) -> None:
        """Download the files of a Hub zoo that are not on this machine, with progress on standard error."""
        if self._is_local:
            return
        absent = [
            ref for ref in self.refs if self.source.local_file(layout.weights_file(ref.member, ref.epoch)) is None
        ]
        if absent:
            from vitzoo.sources.download import download  # huggingface_hub

            download(self.source, absent)
        self._is_local = True

    def for_each(
        self, work: Callable[[int, WeightsReader], None], *, whole: bool = True, size: int | None = None
    ) -> None:
        """Call a function with the number and the open file of each checkpoint, several at once.

        Args:
            work: The function.
            whole: Whether all files are downloaded first.
            size: Bytes that the function reads of a file, if known; small reads run in this thread.
        """
        if whole:
            self.fetch()

        def one(row: int) -> None:
            with self.open(row, whole=False) as reader:
                work(row, reader)

        if self._is_local and size is not None and size < _MIN_BYTES:
            for row in range(len(self)):
                one(row)
            return
        with ThreadPoolExecutor(_WORKERS if self._is_local else _REQUESTS) as pool:
            try:
                list(pool.map(one, range(len(self))))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    @cached_property
    def headers(self) -> list[Header]:
        """The header of each file; equal headers are one object."""
        self.refuse_empty()
        self.for_each(lambda row, reader: None, whole=False)
        return [self._known[row].entries for row in range(len(self))]

    def refuse_empty(self) -> None:
        """Refuse to read without checkpoints.

        Raises:
            WeightsError: There are none.
        """
        if not self.refs:
            raise WeightsError("There are no checkpoints to read: the selection is empty")
