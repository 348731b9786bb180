"""Masking: a fixed number a row, the shares of the three outcomes, and a function of seed, epoch and row alone."""

import pytest
import torch

from training.random import Draw, Stream
from training.text.masking import Masked, mask_rows
from vitzoo.text.masks import count_masks

LENGTH, VOCABULARY, MASK = 48, 1000, 4


def draw(rows: torch.Tensor, *, seed: int = 3, epoch: int = 2) -> Draw:
    return Draw(seed=seed, epoch=epoch, samples=rows, stream=Stream.MASKING)


def mask(
    rows: torch.Tensor, *, share: float = 0.3, length: int = LENGTH, **place: int
) -> tuple[torch.Tensor, torch.Tensor, Masked]:
    """Mask rows of different lengths, whose first and last tokens are special."""
    lengths = 6 + rows % (LENGTH - 5)
    places = torch.arange(length)
    ids = 10 + (rows[:, None] * 31 + places * 17) % (VOCABULARY - 10)
    maskable = (places > 0) & (places < lengths[:, None] - 1)
    counts = torch.from_numpy(count_masks(maskable.sum(1).numpy(), share))
    masked = mask_rows(
        ids, maskable, counts, draw(rows, **place), most=int(counts.max()), vocab_size=VOCABULARY, mask_id=MASK
    )
    return ids, maskable, masked


def test_every_row_masks_its_share_of_maskable_tokens() -> None:
    ids, maskable, masked = mask(torch.arange(500))
    counts = (masked.targets != -100).sum(1)
    assert counts.tolist() == [max(1, int(0.3 * count)) for count in maskable.sum(1).tolist()]
    for row in range(500):
        places = masked.positions[row, : counts[row]]
        assert places.tolist() == sorted(set(places.tolist()))
        assert maskable[row, places].all()
        assert torch.equal(masked.targets[row, : counts[row]], ids[row, places])
        others = torch.ones(LENGTH, dtype=torch.bool)
        others[places] = False
        assert torch.equal(masked.input_ids[row, others], ids[row, others])


def test_eight_of_ten_masked_tokens_become_the_mask_and_one_a_random_token() -> None:
    _, _, masked = mask(torch.arange(20_000))
    chosen = masked.targets != -100
    after, before = masked.input_ids.gather(1, masked.positions)[chosen], masked.targets[chosen]
    total = len(after)
    assert total > 100_000
    assert (after == MASK).sum() / total == pytest.approx(0.8, abs=0.01)
    assert (after == before).sum() / total == pytest.approx(0.1, abs=0.01)
    random = after[(after != MASK) & (after != before)]
    assert random.double().mean() == pytest.approx((VOCABULARY - 1) / 2, rel=0.03)
    assert len(random.unique()) > 0.9 * VOCABULARY


def test_masks_are_a_function_of_seed_epoch_and_row() -> None:
    rows = torch.arange(64)
    *_, whole = mask(rows)
    *_, part = mask(rows[:10], length=15)  # rows of 6 to 15 tokens
    width = part.positions.shape[1]
    assert torch.equal(whole.input_ids[:10, :15], part.input_ids)
    assert torch.equal(whole.positions[:10, :width], part.positions)
    for other in ({"seed": 4}, {"epoch": 3}):
        assert not torch.equal(mask(rows, **other)[2].input_ids, whole.input_ids)
