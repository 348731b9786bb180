"""Mask tokens of a batch: a function of (seed, epoch, row) alone, so a resumed training masks the same tokens.

80% of the masked tokens become the mask token, 10% a random token, and 10% stay. See `vitzoo.text.masks` for the number
of masked tokens of a row.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn import functional

from training.random import Draw

_MASKED, _RANDOM = 0.8, 0.9  # ends of the shares of a uniform number: mask token, random token, the token itself


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Masked:
    """Masked rows.

    Args:
        input_ids: Tokens after masking.
        positions: Places of the masked tokens in each row, ascending; 0 where a row has fewer than the longest.
        targets: The true tokens at these places; -100 where a row has fewer.
    """

    input_ids: Int64[Tensor, "rows length"]
    positions: Int64[Tensor, "rows masks"]
    targets: Int64[Tensor, "rows masks"]


def mask_rows(
    input_ids: Int64[Tensor, "rows length"],
    maskable: Bool[Tensor, "rows length"],
    counts: Int64[Tensor, "rows"],
    draw: Draw,
    *,
    most: int,
    vocab_size: int,
    mask_id: int,
) -> Masked:
    """Mask a fixed number of tokens of each row: the ones with the smallest random words. Nothing waits for the device.

    Args:
        input_ids: Tokens.
        maskable: Whether a token may be masked.
        counts: Number of tokens to mask in each row, from `vitzoo.text.masks.count_masks`.
        draw: Place of the random numbers, a sample for each row.
        most: Largest of the counts.
        vocab_size: Number of tokens to draw a random one of.
        mask_id: The mask token.

    Source: Devlin et al. 2019, section 3.1.
    """
    length = input_ids.shape[1]
    ranked, outcomes = draw.words(2 * length).unflatten(1, (length, 2)).unbind(2)  # two words a place, in any padding
    # A word has 32 bits, so places that are not maskable come last. Equal words keep the order of their places.
    order = torch.where(maskable, ranked, 2**32).argsort(dim=1, stable=True)[:, :most]
    is_mask = torch.arange(most, device=counts.device) < counts[:, None]
    # Rows with fewer masks point to a further column, which sorts last and is cut off again.
    positions = torch.where(is_mask, order, length).sort(1).values
    is_mask = positions < length
    extended = functional.pad(input_ids, (0, 1))
    true = extended.gather(1, positions)
    outcome = functional.pad(outcomes, (0, 1)).gather(1, positions).double() / 2**32
    random = ((outcome - _MASKED) / (_RANDOM - _MASKED) * vocab_size).long().clamp(0, vocab_size - 1)
    changed = torch.where(outcome < _MASKED, mask_id, torch.where(outcome < _RANDOM, random, true))
    return Masked(
        input_ids=extended.scatter(1, positions, changed)[:, :length],
        positions=torch.where(is_mask, positions, 0),
        targets=torch.where(is_mask, true, -100),
    )
