"""Measure a parquet file before pyarrow decodes it, from its footer and the headers of its pages.

pyarrow ends the process at some values of a footer, and decodes as many values as the pages promise: a kilobyte may
promise billions. Here both are read as plain Thrift, whose lengths are bounded by the file.

Source: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift, and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. Field numbers below are theirs.
"""

import re
from dataclasses import dataclass
from typing import Any

_MAX_FOOTER_BYTES = 2**20  # the paper's tables have 20 kB
_MAX_DEPTH = 16  # of structs and lists
_WRITER = re.compile(rb"parquet-cpp-arrow version [0-9.]+", re.ASCII)
_CODECS = (0, 1)  # none and snappy, which vitzoo writes


class ParquetError(ValueError):
    """A file is not a parquet file as pyarrow writes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParquetSize:
    """Size of a parquet file's content.

    Args:
        rows: Number of rows that the footer promises.
        values: Number of values in all pages, dictionaries and elements of lists included.
        bytes: Size of all pages, decompressed.
    """

    rows: int
    values: int
    bytes: int


def measure_parquet(content: bytes) -> ParquetSize:
    """Measure a parquet file.

    Raises:
        ParquetError: It is not a parquet file, or not as pyarrow writes it.
    """
    try:
        return _measure(content)
    except (LookupError, TypeError) as error:
        raise ParquetError("its footer or a page is damaged") from error


def _measure(content: bytes) -> ParquetSize:
    length = int.from_bytes(content[-8:-4], "little")
    if content[:4] != b"PAR1" or content[-4:] != b"PAR1" or not 0 < length <= min(len(content) - 12, _MAX_FOOTER_BYTES):
        raise ParquetError("it has no footer of parquet")
    footer = _Thrift(content[:-8], len(content) - 8 - length).struct()
    if _WRITER.fullmatch(footer[6]) is None:  # of other writers' files, pyarrow reads bytes behind a column, too
        raise ParquetError("it was not written by pyarrow")
    rows = max(_natural(footer[3]), sum(_natural(group[3]) for group in footer[4]))
    values = size = 0
    for chunk in (chunk for group in footer[4] for chunk in group[1]):
        column = chunk[3]
        if 1 in chunk or column[4] not in _CODECS:
            raise ParquetError("its compression is not the one that vitzoo uses")
        if column[5] == 0:
            continue  # pyarrow reads no page, and names none
        position = min(_natural(column[9]), _natural(column.get(11) or column[9]))
        end = position + _natural(column[7])
        if end > len(content):
            raise ParquetError("a column is truncated")
        while position < end:
            thrift = _Thrift(content, position)
            page = thrift.struct()
            position = thrift.position + _natural(page[3])
            size += _natural(page[2])
            values += _natural((page.get(5) or page.get(7) or page[8])[1])
    return ParquetSize(rows=rows, values=values, bytes=size)


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ParquetError("it has a size below 0")
    return value


class _Thrift:
    """Reads one value after another in Thrift's compact protocol. Past the end of the bytes is an IndexError."""

    def __init__(self, data: bytes, position: int):
        self.data, self.position = data, position

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a struct: field numbers to values."""
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 15, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ParquetError("its footer is too deep")
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                head = self._byte()
                count, kind = head >> 4, head & 15
                count = self._varint() if count == 15 else count
                kind = 3 if kind in (1, 2) else kind  # in a list, a truth value is a byte
                return [self._value(kind, depth + 1) for _ in range(count)]
            case 12:
                return self.struct(depth)
        raise ParquetError("its footer has a value of an unknown type")

    def _bytes(self, count: int) -> bytes:
        self.position += count
        if self.position > len(self.data):
            raise IndexError(self.position)
        return self.data[self.position - count : self.position]

    def _integer(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ParquetError("its footer has a number that is too large")

    def _byte(self) -> int:
        byte = self.data[self.position]
        self.position += 1
        return byte
