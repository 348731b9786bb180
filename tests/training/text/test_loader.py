"""Batches of texts: functions of seeds, epoch and step alone, for any rank, and padded to their own longest row."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from tests.text.sentences import label_of, sentence, tokenizer
from tests.text.tiny import MASKED, SUPERVISED, tiny_text
from training.batch import Batch
from training.random import permutation
from training.ranks import Ranks
from training.recipes.plan import PlannedMember, plan_member
from training.recipes.recipe import Seeds
from training.recipes.training import Masking, Mixing, Training
from training.text.loader import TextBatches
from vitzoo.ids import MemberId
from vitzoo.text.masks import fixed_masks
from vitzoo.text.splits import TextSplit

COUNT, SIZE, LONGEST = 330, 8, 60


@cache
def sentences(*, pairs: bool = False) -> TextSplit:
    """Return sentences of different lengths; some are only a few words."""
    texts = [f"{seed} {sentence(seed)}"[: 20 + seed * 13 % 90] for seed in range(COUNT)]
    encoded = tokenizer().encode(texts, texts[::-1] if pairs else None, max_length=LONGEST)
    labels = np.array([label_of(seed) for seed in range(COUNT)], dtype=np.int64)
    return TextSplit(labels=labels, indices=np.arange(COUNT), **encoded._asdict())


@cache
def packed(length: int = 32) -> TextSplit:
    """Return rows of one length."""
    stream = tokenizer().encode_stream([sentence(seed) for seed in range(COUNT)])
    rows = len(stream) // length
    return TextSplit(
        labels=np.full(rows, -1),
        indices=np.arange(rows),
        token_ids=stream[: rows * length],
        offsets=np.arange(rows + 1) * length,
    )


def planned(training: Training, rows: int, seeds: Seeds | None = None) -> PlannedMember:
    data = replace(training.dataset, train_rows=rows)
    member = plan_member(tiny_text(), MemberId(0 if training.objective == "masked" else 1))
    return replace(
        member, training=replace(training, dataset=data, batch_size=SIZE, dropout=0.0), seeds=seeds or Seeds.same(3)
    )


def batches(
    training: Training,
    split: TextSplit,
    *,
    epoch: int = 0,
    ranks: Ranks | None = None,
    seeds: Seeds | None = None,
) -> list[Batch]:
    loader = TextBatches(
        planned(training, len(split), seeds), split, tokenizer(), device=torch.device("cpu"), ranks=ranks
    )
    return list(loader.epoch(epoch))


def same(one: list[Batch], two: list[Batch]) -> bool:
    def tensors(batch: Batch) -> dict[str, torch.Tensor | None]:
        return {**batch.inputs, "targets": batch.targets, "positions": batch.positions}

    def equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
        return a is b is None or (a is not None and b is not None and torch.equal(a, b))

    return len(one) == len(two) and all(
        a.inputs.keys() == b.inputs.keys()
        and all(equal(tensor, tensors(b)[name]) for name, tensor in tensors(a).items())
        for a, b in zip(one, two, strict=True)
    )


def rows_of(batch: Batch, split: TextSplit) -> list[int]:
    """Return the places of a batch's rows in the split, by their tokens."""
    places = {tuple(split.row(place)): place for place in range(len(split))}
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    return [places[tuple(row[real.bool()].tolist())] for row, real in zip(ids, mask, strict=True)]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("epoch", [0, 5])
def test_epoch_visits_the_first_rows_of_the_permutation_once(epoch: int, pairs: bool) -> None:
    split = sentences(pairs=pairs)
    given = batches(SUPERVISED, split, epoch=epoch)
    assert len(given) == COUNT // SIZE
    seen = [place for batch in given for place in rows_of(batch, split)]
    order = permutation(3, epoch=epoch, count=COUNT).tolist()
    assert len(seen) == len(set(seen)) == COUNT // SIZE * SIZE
    assert set(seen) == set(order[: len(seen)])
    for batch in given:
        assert batch.targets is not None
        assert batch.targets.argmax(1).tolist() == split.labels[rows_of(batch, split)].tolist()


def test_batch_is_padded_on_the_right_to_a_multiple_of_eight_above_its_longest_row() -> None:
    split = sentences(pairs=True)
    for batch in batches(SUPERVISED, split):
        lengths = batch.inputs["attention_mask"].sum(1)
        width = batch.inputs["input_ids"].shape[1]
        assert width == min(-(-int(lengths.max()) // 8) * 8, LONGEST)
        places = torch.arange(width)
        assert torch.equal(batch.inputs["attention_mask"].bool(), places < lengths[:, None])
        assert (batch.inputs["input_ids"][places >= lengths[:, None]] == tokenizer().pad_id).all()
        assert split.second is not None
        second = torch.from_numpy(split.second[rows_of(batch, split)])[:, None]
        inside = (places >= second) & (places < lengths[:, None])
        assert torch.equal(batch.inputs["token_type_ids"].bool(), inside)


def test_rows_of_a_batch_have_similar_lengths_and_batches_are_in_random_order() -> None:
    given = batches(SUPERVISED, sentences())
    lengths = [batch.inputs["attention_mask"].sum(1).double() for batch in given]
    within = torch.stack([length.std() for length in lengths]).mean()
    assert within < 0.25 * torch.cat(lengths).std()
    means = [float(length.mean()) for length in lengths][:16]  # the first window
    assert means not in (sorted(means), sorted(means, reverse=True))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("training", [SUPERVISED, MASKED])
def test_ranks_make_their_rows_of_the_global_batch(training: Training, count: int) -> None:
    split = sentences() if training is SUPERVISED else packed()
    whole = batches(training, split, epoch=2)
    shares = [batches(training, split, epoch=2, ranks=Ranks(index=index, count=count)) for index in range(count)]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        for name, tensor in batch.inputs.items():
            assert torch.equal(torch.cat([part.inputs[name] for part in parts]), tensor)
        assert {part.masks_per_row for part in parts} == {batch.masks_per_row}
        for name in ("targets", "positions"):
            if (tensor := getattr(batch, name)) is not None:
                assert torch.equal(torch.cat([getattr(part, name) for part in parts]), tensor)


@pytest.mark.parametrize("training", [SUPERVISED, MASKED])
def test_epoch_depends_on_its_number_and_seeds_alone(training: Training) -> None:
    split = sentences() if training is SUPERVISED else packed()
    loader = TextBatches(planned(training, len(split)), split, tokenizer(), device=torch.device("cpu"))
    first, second = list(loader.epoch(0)), list(loader.epoch(1))
    torch.manual_seed(7)
    assert same(batches(training, split, epoch=1), second)  # as after a resume
    assert same(list(loader.epoch(0)), first)
    assert not same(first, second)
    other = Seeds(init=9, head=9, order=3, augmentation=4)
    assert same(batches(training, split, seeds=other), first) == (training is SUPERVISED)


def test_masked_batch_hides_the_recipes_share_and_targets_the_true_tokens() -> None:
    split = packed()
    rows = permutation(3, epoch=4, count=len(split))
    for step, batch in enumerate(batches(MASKED, split, epoch=4)):
        places = rows[step * SIZE : (step + 1) * SIZE].numpy()
        true = torch.from_numpy(split.token_ids.reshape(len(split), -1)[places]).long()
        assert batch.positions is not None
        assert batch.targets is not None
        assert "attention_mask" not in batch.inputs  # rows of one length
        real = batch.targets != -100
        assert torch.equal(batch.targets[real], true.gather(1, batch.positions)[real])
        maskable = ~torch.isin(true, torch.tensor(sorted(tokenizer().special_ids)))
        assert real.sum(1).tolist() == [int(0.2 * count) for count in maskable.sum(1).tolist()]
        changed = batch.inputs["input_ids"] != true
        assert changed.sum() <= real.sum()
        hidden = torch.zeros_like(true).scatter_add(1, batch.positions, real.long()) > 0
        assert not (changed & ~hidden).any()
        assert batch.masks_per_row == pytest.approx(float(real.sum()) / SIZE)


def test_training_masks_as_many_tokens_of_a_row_as_metrics_do() -> None:
    split = replace(packed(), token_ids=packed().token_ids.copy())
    split.token_ids[::7] = tokenizer().unk_id
    expected = np.diff(fixed_masks(split, 0.2, tokenizer=tokenizer()).starts)
    assert len(set(expected.tolist())) > 1
    rows = permutation(3, epoch=0, count=len(split)).numpy()
    for step, batch in enumerate(batches(MASKED, split)):
        assert batch.targets is not None
        assert not torch.isin(batch.targets, torch.tensor(tokenizer().special_ids)).any()
        counts = (batch.targets != -100).sum(1)
        assert counts.tolist() == expected[rows[step * SIZE : (step + 1) * SIZE]].tolist()


def test_label_smoothing_softens_targets() -> None:
    training = replace(SUPERVISED, mixing=Mixing(label_smoothing=0.2))
    for batch in batches(training, sentences()):
        assert batch.targets is not None
        assert torch.allclose(batch.targets.sort(1).values, torch.tensor([0.1, 0.9]))


def test_sentences_may_be_masked_too() -> None:
    training = replace(MASKED, masking=Masking(share=0.3))
    split = sentences()
    for batch in batches(training, split):
        assert batch.targets is not None
        assert ((batch.targets != -100).sum(1) >= 1).all()
