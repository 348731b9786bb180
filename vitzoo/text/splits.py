"""Hold a data set of texts: three splits of rows of tokens, one after another in one array.

See `load.py` for where the texts come from, and `tokenizer.py` for how they are encoded.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32, Int64

from vitzoo.data.splits import evenly_spaced
from vitzoo.notebook import Shown
from vitzoo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from hashlib import _Hash

NO_LABEL = -1  # of packed rows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class TextSplit(Shown):
    """A part of a data set: rows of tokens, in memory or memory-mapped.

    Args:
        labels: Class of each row, an index into the data set's ``classes``; -1 for packed rows.
        indices: Place of each row in the source, so that every use can be traced and compared. For packed rows, the
            place in the stream of the part.
        token_ids: Tokens of all rows, special tokens included.
        offsets: Start of each row in ``token_ids``, and the end of the last.
        second: Place in each row where the second text begins; None where rows have one text.
    """

    labels: Int64[np.ndarray, " rows"]
    indices: Int64[np.ndarray, " rows"]
    token_ids: Int32[np.ndarray, " tokens"]
    offsets: Int64[np.ndarray, "rows+1"]
    second: Int32[np.ndarray, " rows"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def _facts(self) -> dict[str, Any]:
        return {"rows": len(self), "tokens": len(self.token_ids), "classes": len(np.unique(self.labels))}

    @property
    def lengths(self) -> Int64[np.ndarray, " rows"]:
        """Return the number of tokens of each row, special tokens included."""
        return np.diff(self.offsets)

    def row(self, place: int) -> Int32[np.ndarray, " length"]:
        """Return the tokens of one row, without a copy."""
        return self.token_ids[self.offsets[place] : self.offsets[place + 1]]

    def take(self, places: Int64[np.ndarray, " taken"]) -> "TextSplit":
        """Return the rows at these places of the split, in this order."""
        lengths = self.lengths[places]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        shifts = np.repeat(self.offsets[:-1][places] - offsets[:-1], lengths)
        return replace(
            self,
            labels=self.labels[places],
            indices=self.indices[places],
            token_ids=self.token_ids[shifts + np.arange(offsets[-1])],
            offsets=offsets,
            second=None if self.second is None else self.second[places],
        )

    def part(self, start: int, stop: int) -> "TextSplit":
        """Return the rows from place ``start`` to before ``stop``, without a copy of the tokens."""
        start, stop, _ = slice(start, stop).indices(len(self))
        offsets = self.offsets[start : max(start, stop) + 1]
        return replace(
            self,
            labels=self.labels[start:stop],
            indices=self.indices[start:stop],
            token_ids=self.token_ids[offsets[0] : offsets[-1]],
            offsets=offsets - offsets[0],
            second=None if self.second is None else self.second[start:stop],
        )

    def evenly(self, count: int) -> "TextSplit":
        """Return ``count`` rows evenly spaced over the split, such as the fixed subset for train metrics.

        Raises:
            DatasetError: The split has fewer.
        """
        return self.take(evenly_spaced(count, len(self)))

    def update(self, digest: "_Hash") -> None:
        """Feed every token, offset, label, index and start of a second text to a digest."""
        for array in (self.token_ids, self.offsets, self.labels, self.indices, self.second):
            if array is not None:
                little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
                digest.update(f"{little.dtype.str} {little.shape}\n".encode())
                digest.update(little.data)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TextDataset(Shown):
    """A data set of texts with its three splits.

    Args:
        name: Name of the data set in a recipe.
        revision: Source of the texts: ``<repo>@<commit>`` of the Hub; ``parquet``, ``arrow``, ``csv`` or ``json`` of a
            folder; or a package and its version.
        classes: Names of the classes, in the order of the labels; none for packed rows.
        train: Rows to train on.
        val: Rows to make choices on; of length 0 where there are none.
        test: Rows that are evaluated once.
        tokenizer: Tokenizer of the rows.
        dropped: Number of texts that were left out, by reason.
    """

    name: str
    revision: str
    classes: tuple[str, ...]
    train: TextSplit
    val: TextSplit
    test: TextSplit
    tokenizer: Tokenizer
    dropped: Mapping[str, int] = field(default_factory=dict)

    def _facts(self) -> dict[str, Any]:
        parts = {part: len(getattr(self, part)) for part in ("train", "val", "test")}
        return {"name": self.name, "revision": self.revision, "classes": self.classes} | parts

    @cached_property
    def fingerprint(self) -> str:
        """Return a digest of every row and of the tokenizer."""
        digest = hashlib.sha256(f"tokenizer {self.tokenizer.sha256}\n".encode())
        for part in (self.train, self.val, self.test):
            part.update(digest)
        return digest.hexdigest()
