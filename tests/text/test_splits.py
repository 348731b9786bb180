"""Splits of texts: rows by place, a fingerprint over every part of them, and padded batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.text.sentences import label_of, sentence, tokenizer
from vitzoo.errors import DatasetError
from vitzoo.text import TextDataset, TextSplit
from vitzoo.text.batches import evaluation_batches, padded
from vitzoo.text.masks import count_masks, fixed_masks


def split(count: int = 20, *, pairs: bool = False, first: int = 0) -> TextSplit:
    seeds = range(first, first + count)
    texts = [sentence(seed) for seed in seeds]
    encoded = tokenizer().encode(texts, texts[::-1] if pairs else None, max_length=60)
    labels = np.array([label_of(seed) for seed in seeds], dtype=np.int64)
    return TextSplit(labels=labels, indices=np.arange(first, first + count), **encoded._asdict())


@pytest.mark.parametrize("pairs", [False, True])
def test_rows_are_taken_in_order(pairs: bool) -> None:
    whole = split(pairs=pairs)
    places = np.array([7, 0, 0, 19])
    taken = whole.take(places)
    assert len(taken) == 4
    for place, source in enumerate(places):
        assert np.array_equal(taken.row(place), whole.row(int(source)))
        assert (taken.labels[place], taken.indices[place]) == (whole.labels[source], source)
        if taken.second is not None and whole.second is not None:
            assert taken.second[place] == whole.second[source]
    assert (taken.second is not None) == pairs
    assert taken.lengths.tolist() == [len(whole.row(int(place))) for place in places]
    assert len(whole.take(np.array([], dtype=np.int64))) == 0


@pytest.mark.parametrize(("start", "stop"), [(3, 9), (0, 0), (15, 99), (9, 3)])
def test_part_is_a_view_of_the_rows(start: int, stop: int) -> None:
    whole = split()
    part = whole.part(start, stop)
    assert part.indices.tolist() == list(range(20))[start:stop]
    assert [part.row(place).tolist() for place in range(len(part))] == [
        whole.row(int(place)).tolist() for place in part.indices
    ]
    assert not len(part) or np.shares_memory(part.token_ids, whole.token_ids)


def test_evenly_takes_evenly_spaced_rows() -> None:
    assert split(10).evenly(4).indices.tolist() == [0, 2, 5, 7]
    with pytest.raises(DatasetError, match="11 samples were requested from a split of 10"):
        split(10).evenly(11)


def test_fingerprint_changes_with_everything_that_decides_the_rows() -> None:
    train, val, test = split(10), split(0), split(5, first=10, pairs=True)
    plain = TextDataset(
        name="a", revision="b", classes=("x", "y"), train=train, val=val, test=test, tokenizer=tokenizer()
    )
    token_ids, labels = train.token_ids.copy(), train.labels.copy()
    token_ids[3] += 1
    labels[2] = 1 - labels[2]
    assert test.second is not None
    others = [
        replace(plain, train=replace(train, token_ids=token_ids)),
        replace(plain, train=replace(train, labels=labels)),
        replace(plain, train=replace(train, indices=train.indices + 1)),
        replace(plain, test=replace(test, second=test.second + 1)),
        replace(plain, test=replace(test, second=None)),
        replace(plain, train=train.take(np.arange(9, -1, -1))),
        replace(plain, tokenizer=tokenizer(150)),
    ]
    assert len({dataset.fingerprint for dataset in [plain, *others]}) == 1 + len(others)
    assert replace(plain, name="c", train=train.take(np.arange(10))).fingerprint == plain.fingerprint


@pytest.mark.parametrize("pairs", [False, True])
def test_padding_is_on_the_right_and_masked(pairs: bool) -> None:
    whole, places = split(pairs=pairs), [3, 11, 5]
    batch = padded(whole, places, pad=0)
    lengths = [len(whole.row(place)) for place in places]
    assert batch["input_ids"].shape == (3, max(lengths))
    for row, place in enumerate(places):
        length = lengths[row]
        assert batch["input_ids"][row, :length].tolist() == whole.row(place).tolist()
        assert batch["input_ids"][row, length:].eq(0).all()
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (max(lengths) - length)
        if whole.second is not None:
            start = int(whole.second[place])
            types = [0] * start + [1] * (length - start) + [0] * (max(lengths) - length)
            assert batch["token_type_ids"][row].tolist() == types
    assert ("token_type_ids" in batch) == pairs
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    assert padded(whole, places, pad=0, to=100)["input_ids"].shape == (3, 100)
    with pytest.raises(DatasetError, match="expected at most 9"):
        padded(whole, places, pad=0, to=9)


def test_evaluation_batches_have_every_row_once_by_length() -> None:
    whole = split()
    batches = evaluation_batches(whole, 6)
    assert list(map(len, batches)) == [6, 6, 6, 2]
    order = np.concatenate(batches).tolist()
    assert order == sorted(range(20), key=lambda place: (len(whole.row(place)), place))


@pytest.mark.parametrize("share", [0.001, 0.15, 0.5])
def test_fixed_masks_choose_a_fixed_number_a_row(share: float) -> None:
    whole = split()
    whole.token_ids[5:9] = tokenizer().unk_id
    masks = fixed_masks(whole, share, tokenizer=tokenizer())
    special = set(tokenizer().special_ids)
    for place in range(len(whole)):
        row = whole.row(place)
        chosen = masks.places[masks.starts[place] : masks.starts[place + 1]]
        available = len(row) - 2 - 4 * (place == 0)
        assert len(chosen) == max(1, int(share * available))
        assert not special & set(whole.token_ids[chosen].tolist())
        assert np.isin(chosen, np.arange(whole.offsets[place], whole.offsets[place + 1])).all()
    masked = masks.apply(whole)
    assert set(masked.token_ids[masks.places].tolist()) == {tokenizer().mask_id}
    changed = np.flatnonzero(masked.token_ids != whole.token_ids)
    assert np.array_equal(changed, masks.places)
    rows = np.array([4, 0, 9])
    in_batch, columns, labels = masks.of_rows(whole, rows)
    batch = padded(masked, rows, pad=0)["input_ids"].numpy()
    assert (batch[in_batch, columns] == tokenizer().mask_id).all()
    assert np.array_equal(padded(whole, rows, pad=0)["input_ids"].numpy()[in_batch, columns], labels)


def test_fixed_masks_of_a_row_do_not_depend_on_the_others() -> None:
    whole = split()
    masks = fixed_masks(whole, 0.3, tokenizer=tokenizer())
    rows = np.array([12, 3])
    few = fixed_masks(whole.take(rows), 0.3, tokenizer=tokenizer())
    for ours, theirs in zip(masks.of_rows(whole, rows), few.of_rows(whole.take(rows), np.arange(2)), strict=True):
        assert np.array_equal(ours, theirs)
    other = fixed_masks(whole, 0.3, tokenizer=tokenizer(), seed=1)
    assert len(other.places) == len(masks.places)
    assert not np.array_equal(other.places, masks.places)


def test_fixed_masks_are_uniform_over_columns() -> None:
    rows, length = 4000, 22
    token_ids = np.full((rows, length), 9, dtype=np.int32)
    token_ids[:, 0], token_ids[:, -1] = tokenizer().cls_id, tokenizer().sep_id
    whole = TextSplit(
        labels=np.full(rows, -1),
        indices=np.arange(rows),
        token_ids=token_ids.reshape(-1),
        offsets=np.arange(rows + 1) * length,
    )
    columns = fixed_masks(whole, 0.15, tokenizer=tokenizer()).places % length
    counts = np.bincount(columns, minlength=length)
    assert counts[[0, -1]].sum() == 0
    assert counts.sum() == 3 * rows
    # Each of 20 columns is chosen with probability .15: mean 600, standard deviation 22.6.
    assert np.abs(counts[1:-1] - 600).max() < 4 * 22.6


def test_row_without_maskable_tokens_masks_none() -> None:
    assert count_masks(np.array([0, 1, 2, 6, 7, 20]), 0.15).tolist() == [0, 1, 1, 1, 1, 3]


@pytest.mark.parametrize("share", [0.0, 0.51, -1.0, float("nan")])
def test_masked_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(DatasetError, match="masked share"):
        fixed_masks(split(3), share, tokenizer=tokenizer())
    empty = tokenizer().encode(["", ""], max_length=8)
    rows = TextSplit(labels=np.zeros(2, dtype=np.int64), indices=np.arange(2), **empty._asdict())
    with pytest.raises(DatasetError, match="no token to mask"):
        fixed_masks(rows, 0.15, tokenizer=tokenizer())
