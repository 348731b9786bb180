"""Decide which tokens may be masked and how many, and choose the masked tokens of an evaluation.

Those are the same ones for every member and epoch, so that losses compare. See `training.text.masking` for the masks of
a training, which differ in each epoch.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt64

from vitzoo.errors import DatasetError
from vitzoo.notebook import Shown
from vitzoo.text.splits import TextSplit
from vitzoo.text.tokenizer import Tokenizer


def maskable_tokens(
    token_ids: Int32[np.ndarray, " tokens"] | Int64[np.ndarray, " tokens"], tokenizer: Tokenizer
) -> Bool[np.ndarray, " tokens"]:
    """Return whether each token may be masked: it is not special, and not the unknown token, which hides a text."""
    return ~np.isin(token_ids, tokenizer.special_ids)


def count_masks(maskable: Int64[np.ndarray, " rows"], share: float) -> Int64[np.ndarray, " rows"]:
    """Return the number of masked tokens of each row: a share, rounded down, and at least 1 where one is maskable.

    Args:
        maskable: Number of tokens of each row that may be masked.
        share: Share of them, above 0 and 0.5 at most.
    """
    return np.minimum(np.maximum((maskable * share).astype(np.int64), 1), maskable)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class FixedMasks(Shown):
    """Masked tokens of a split.

    Args:
        places: Places of the masked tokens in ``token_ids`` of the split, ascending.
        starts: Start of each row's masked tokens in ``places``, and the end of the last's.
        mask_id: Token that replaces each of them.
    """

    places: Int64[np.ndarray, " masked"]
    starts: Int64[np.ndarray, " starts"]
    mask_id: int

    def apply(self, split: TextSplit) -> TextSplit:
        """Return the split with its masked tokens replaced."""
        token_ids = split.token_ids.copy()
        token_ids[self.places] = self.mask_id
        return replace(split, token_ids=token_ids)

    def of_rows(
        self, split: TextSplit, rows: Int64[np.ndarray, " batch"]
    ) -> tuple[Int64[np.ndarray, " masked"], Int64[np.ndarray, " masked"], Int64[np.ndarray, " masked"]]:
        """Return the masked tokens of some rows: row in the batch, column, and the token that was there.

        Args:
            split: The split without masks.
            rows: Places of the batch's rows in the split.
        """
        counts = np.diff(self.starts)[rows]
        ends = np.cumsum(counts)
        places = self.places[np.repeat(self.starts[:-1][rows] - ends + counts, counts) + np.arange(counts.sum())]
        in_batch = np.repeat(np.arange(len(rows)), counts)
        return in_batch, places - split.offsets[:-1][rows][in_batch], split.token_ids[places].astype(np.int64)


def fixed_masks(split: TextSplit, share: float, *, tokenizer: Tokenizer, seed: int = 0) -> FixedMasks:
    """Choose a fixed number of tokens of each row, by rank of uniforms that depend on seed, index and column alone.

    Args:
        split: The rows.
        share: Share of a row's maskable tokens that are masked, as `count_masks` counts them.
        tokenizer: Tokenizer of the rows.
        seed: Seed of the uniforms.

    Raises:
        DatasetError: A share is not above 0 and .5 at most, or no row has a token to mask.
    """
    if not 0 < share <= 0.5:
        raise DatasetError(f"The masked share is {share}", expected="above 0, .5 at most")
    lengths = split.lengths
    candidates = np.flatnonzero(maskable_tokens(split.token_ids, tokenizer))
    rows = np.repeat(np.arange(len(split)), lengths)[candidates]
    if not len(candidates):
        raise DatasetError(f"The {len(split)} rows have no token to mask", expected="one or more beside special tokens")
    columns = candidates - split.offsets[:-1][rows]
    uniforms = _uniforms(seed, split.indices[rows], columns)
    available = np.bincount(rows, minlength=len(split))
    counts = count_masks(available, share)
    by_rank = np.lexsort((uniforms, rows))
    ranks = np.arange(len(rows)) - np.repeat(np.cumsum(available) - available, available)
    chosen = by_rank[ranks < counts[rows]]  # rows are ascending, so row i of the sorted order is row i of `rows`
    return FixedMasks(
        places=np.sort(candidates[chosen]),
        starts=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]),
        mask_id=tokenizer.mask_id,
    )


def _uniforms(
    seed: int, indices: Int64[np.ndarray, " tokens"], columns: Int64[np.ndarray, " tokens"]
) -> Float64[np.ndarray, " tokens"]:
    """Return a number from 0 to below 1 for each token, by three rounds of SplitMix64's finaliser."""
    state = np.full(len(indices), seed, dtype=np.uint64)
    for word in (indices.astype(np.uint64), columns.astype(np.uint64)):
        state = _mix(state ^ word)
    return (_mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(words: UInt64[np.ndarray, " tokens"]) -> UInt64[np.ndarray, " tokens"]:
    """Mix 64-bit words. Source: Steele, Lea and Flood 2014, SplitMix64."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
