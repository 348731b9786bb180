"""Read texts in batches, from lists or from columns of memory-mapped Arrow. See `assemble.py` for their checks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from vitzoo.errors import DatasetError, printable

_ROWS = 1000  # texts that are read at once


class TextBatch(NamedTuple):
    """Consecutive texts of a source.

    Args:
        start: Place of the first.
        texts: The texts; None where one is missing.
        pairs: The second texts, likewise; None where a sample has one text.
    """

    start: int
    texts: list[str | None]
    pairs: list[str | None] | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ListedTexts:
    """Texts in memory.

    Args:
        texts: The texts.
        name: Name of the list in messages.
        labels: Class of each text; None where there are no classes.
        indices: Place of each text in its source.
    """

    texts: list[str]
    name: str
    labels: Int64[np.ndarray, " texts"] | None
    indices: Int64[np.ndarray, " texts"]

    def __len__(self) -> int:
        return len(self.texts)

    def iter_batches(self) -> Iterator[TextBatch]:
        """Yield all texts in order."""
        for start in range(0, len(self.texts), _ROWS):
            yield TextBatch(start, [*self.texts[start : start + _ROWS]], None)

    def describe(self, place: int) -> str:
        """Return the place of a text, for messages."""
        return f"text {self.indices[place]} of {self.name}"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TableTexts:
    """Texts in one or two columns of a `datasets.Dataset`.

    Args:
        rows: The table, of those columns alone, as plain Python values.
        columns: The column of the texts, and that of the second texts if there is one.
        name: Name of the table in messages.
        labels: Class of each row; None where there are no classes.
        indices: Place of each row in the table.
    """

    rows: Any
    columns: tuple[str, ...]
    name: str
    labels: Int64[np.ndarray, " texts"] | None
    indices: Int64[np.ndarray, " texts"]

    def __len__(self) -> int:
        return len(self.indices)

    def iter_batches(self) -> Iterator[TextBatch]:
        """Yield all texts in order.

        Raises:
            DatasetError: A text is not UTF-8.
        """
        start, (first, *second) = 0, self.columns
        batches = self.rows.iter(batch_size=_ROWS)
        while True:
            try:
                batch = next(batches, None)
            except (UnicodeDecodeError, ValueError) as error:
                raise DatasetError(
                    f"A text of {self.name}, row {start} or later, cannot be read: {printable(str(error))[:300]}",
                    expected="UTF-8",
                    fix="Convert the data set to UTF-8.",
                ) from None
            if batch is None:
                return
            yield TextBatch(start, batch[first], batch[second[0]] if second else None)
            start += len(batch[first])

    def describe(self, place: int) -> str:
        """Return the place of a text, for messages."""
        columns = " or ".join(f'"{printable(column)}"' for column in self.columns)
        return f"row {self.indices[place]} of {self.name}, column {columns},"
